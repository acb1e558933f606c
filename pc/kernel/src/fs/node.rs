//! What a path leads to, and where its bytes are.

use super::open::Open;
use super::pipe::Pipe;
use super::seals::SealSet;
use crate::clock;
use crate::errno::Errno;
use crate::kernel;
use crate::machine::Pc;
use crate::process::{self, Process};
use crate::signal;
use crate::sleep::SleepMutex;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use linux_raw_sys::general as nr;
use pagefault::File;
use pagefault::machine::store::PageBytes;
use pagefault::machine::{Backing, IoError, PAGE_SIZE};

/// The kinds of files, in `st_mode`.
pub const DIRECTORY: u32 = 0o040_000;
/// See [`DIRECTORY`].
pub const REGULAR: u32 = 0o100_000;
/// See [`DIRECTORY`].
pub const LINK: u32 = 0o120_000;
/// See [`DIRECTORY`].
pub const DEVICE: u32 = 0o020_000;
/// See [`DIRECTORY`].
pub const BLOCK: u32 = 0o060_000;
/// See [`DIRECTORY`].
pub const FIFO: u32 = 0o010_000;
/// The bits of `st_mode` that say the kind.
pub const KIND: u32 = 0o170_000;

/// Something with a path.
pub struct Node {
    /// Its number.
    pub inode: u64,
    /// Its kind and permissions.
    pub mode: AtomicU32,
    /// Whose it is: the user's number, and the group's above it. Nothing asks: every program is the
    /// superuser's.
    pub owner: AtomicU64,
    /// When it was last written, in nanoseconds since 1970.
    pub modified: AtomicU64,
    /// How many paths lead to it.
    pub links: AtomicU32,
    /// What may not be done to it any more (`F_SEAL_` flags).
    pub seals: SealSet,
    /// What it is.
    pub kind: Kind,
    /// Held by who writes at the end (`O_APPEND`).
    pub(super) end: SleepMutex<()>,
}

static INODES: AtomicU64 = AtomicU64::new(1);

/// Makes something that a path may lead to.
pub fn node(mode: u32, kind: Kind) -> Arc<Node> {
    Arc::new(Node {
        inode: INODES.fetch_add(1, Ordering::Relaxed),
        mode: AtomicU32::new(mode),
        owner: AtomicU64::new(0),
        modified: AtomicU64::new(clock::since_1970()),
        links: AtomicU32::new(1),
        seals: SealSet::default(),
        kind,
        end: SleepMutex::new(()),
    })
}

/// What a path may lead to.
pub enum Kind {
    /// Other paths go on below it.
    Directory,
    /// Bytes.
    Regular(SleepMutex<Content>),
    /// Another path.
    Link(String),
    /// A pipe with a name.
    Fifo(Arc<Pipe>),
    /// The console, or one of the devices without content.
    Device(Device),
    /// A text that was made when it was looked up.
    Text(Vec<u8>),
    /// A text that there was no memory to make.
    TooLong,
    /// A word for each page of a process (`/proc/PID/pagemap`).
    Pagemap(Arc<Process>),
    /// A process's memory by address (`/proc/PID/mem`).
    Memory(Arc<Process>),
    /// An open file that has no path of its own.
    Opened(Arc<Open>),
}

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The programs' terminal.
    Console,
    /// Swallows everything, holds nothing.
    Null,
    /// Swallows everything, holds zeros.
    Zero,
    /// Random bytes.
    Random,
    /// May be a swap area; nothing else is done with it.
    Swap,
    /// Takes orders of what shall fail.
    Failures,
}

/// Where a regular file's bytes are.
#[derive(Clone)]
pub enum Content {
    /// In the archive; not used yet.
    Archived(&'static [u8]),
    /// In the page cache, read from the archive.
    Cached(File<Pc>, &'static [u8]),
    /// In the page cache, and in swap or on the file disk.
    Own(File<Pc>),
}

/// A file of the archive, for the page cache.
struct Archived(&'static [u8]);

impl Backing for Archived {
    fn read(&self, index: u64, page: &mut PageBytes) -> Result<(), IoError> {
        let start = (index * PAGE_SIZE) as usize;
        let bytes = self.0.get(start..).ok_or(IoError::Device)?;
        let n = bytes.len().min(page.len());
        page[..n].copy_from_slice(&bytes[..n]);
        Ok(())
    }

    fn write(&self, _index: u64, _page: &[u8]) -> Result<(), IoError> {
        Err(IoError::Unsupported)
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.0.len() as u64)
    }
}

impl Content {
    /// The content for reading.
    pub fn cached(&mut self) -> File<Pc> {
        match self {
            Self::Cached(file, _) | Self::Own(file) => file.clone(),
            Self::Archived(bytes) => {
                let file = File::open(&kernel().manager, Arc::new(Archived(bytes)));
                *self = Self::Cached(file.clone(), bytes);
                file
            }
        }
    }

    /// The number of the object in the page cache, if there is one yet.
    pub(super) fn object(&self) -> Option<u64> {
        match self {
            Self::Archived(_) => None,
            Self::Cached(file, _) | Self::Own(file) => Some(file.id()),
        }
    }

    pub fn len(&self) -> u64 {
        match self {
            Self::Archived(bytes) => bytes.len() as u64,
            // No content of ours fails to tell its length.
            Self::Cached(file, _) | Self::Own(file) => file.len().unwrap_or(0),
        }
    }
}

impl Node {
    /// The length in bytes.
    pub fn len(&self) -> u64 {
        match &self.kind {
            Kind::Regular(content) => content.lock().len(),
            Kind::Link(target) => target.len() as u64,
            Kind::Directory => 4096,
            // What is made when it is looked at shows no length, as on Linux.
            Kind::Device(_)
            | Kind::Fifo(_)
            | Kind::Text(_)
            | Kind::TooLong
            | Kind::Pagemap(_)
            | Kind::Memory(_)
            | Kind::Opened(_) => 0,
        }
    }

    /// Whether it is a file of bytes.
    pub const fn is_regular(&self) -> bool {
        matches!(self.kind, Kind::Regular(_))
    }

    /// Its kind and permissions now.
    pub fn mode(&self) -> u32 {
        self.mode.load(Ordering::Relaxed)
    }

    /// Gives it other permissions.
    pub fn set_permissions(&self, mode: u32) {
        self.mode.store(self.mode() & KIND | mode & 0o7777, Ordering::Relaxed);
    }

    /// Notes that it was written.
    pub fn touch(&self) {
        self.modified.store(clock::since_1970(), Ordering::Relaxed);
    }

    /// The content of a regular file for reading.
    pub fn content(&self) -> Result<File<Pc>, Errno> {
        match &self.kind {
            Kind::Regular(content) => Ok(content.lock().cached()),
            Kind::Directory => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// How many of the bytes that are to be written from an offset on may be: what the process's
    /// limit cuts off is not, and a write that begins beyond it is refused with a signal. The caller keeps the
    /// seals until it has written.
    pub fn room_for(&self, offset: u64, bytes: usize) -> Result<usize, Errno> {
        if !self.is_regular() {
            return Ok(bytes);
        }
        let limit = process::current().limit(nr::RLIMIT_FSIZE);
        if bytes > 0 && offset >= limit {
            signal::send(process::current(), signal::SIGXFSZ);
            return Err(Errno::EFBIG);
        }
        let bytes = (limit - offset).min(bytes as u64);
        self.seals.check_write(offset.saturating_add(bytes), || self.len())?;
        Ok(bytes as usize)
    }

    /// Gives a regular file another length.
    pub fn set_len(&self, bytes: u64) -> Result<(), Errno> {
        if bytes > process::current().limit(nr::RLIMIT_FSIZE) && bytes > self.len() {
            signal::send(process::current(), signal::SIGXFSZ);
            return Err(Errno::EFBIG);
        }
        let _kept = self.seals.keep();
        self.seals.check_length(bytes, self.len())?;
        self.content_for_writing()?.truncate(bytes)?;
        self.touch();
        Ok(())
    }

    /// The content of a regular file for writing, which makes a copy of what is in the archive.
    pub fn content_for_writing(&self) -> Result<File<Pc>, Errno> {
        let Kind::Regular(content) = &self.kind else { return Err(Errno::EISDIR) };
        // Held while the copy is made: a second writer must not make another.
        let mut content = content.lock();
        let archived = match &*content {
            Content::Own(file) => return Ok(file.clone()),
            Content::Archived(bytes) | Content::Cached(_, bytes) => *bytes,
        };
        let copy = File::shared(&kernel().manager, 0);
        copy.write_all_at(0, archived)?;
        *content = Content::Own(copy.clone());
        Ok(copy)
    }
}
