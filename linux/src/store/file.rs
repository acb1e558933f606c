//! A file as swap.

use super::Mutex;
use super::descriptor::{self, Kept};
use super::generation::{self, Generations, MOST, Number};
use super::table::{ReserveError, Table};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU64};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, SwapDevice};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fmt;
use std::path::{Path, PathBuf};

/// Slots are given back to the file system in runs of this many: 256 KiB.
const RUN: u32 = 64;

/// How many locks the runs are spread over.
const SHARDS: usize = 16;

/// What a file that was used as swap begins with, in slot 0, which holds no page.
const SIGNATURE: &[u8; 16] = b"pagefault swap\n\0";

/// Evicted pages in a file: an unlinked temporary one, or one with a name.
///
/// Freed slots are punched out of the file, 256 KiB at a time. A write that finds the disk full
/// answers [`IoError::Full`].
///
/// # Process fork
/// Call [`SwapFile::before_fork`] in the parent and [`SwapFile::after_fork`] in parent and child,
/// with no other call under way. What was written before stays readable to both; what either writes
/// later goes to a new unlinked file of its own, in the same directory.
pub struct SwapFile {
    slots: u32,
    files: Generations,
    /// For each slot the number of the file that it is in plus one, or 0.
    places: Table<AtomicU8>,
    /// For each run how many of its slots are in the current file.
    in_run: Table<AtomicU16>,
    shards: [Mutex<()>; SHARDS],
    pages: AtomicU64,
}

/// What a swap file holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStats {
    /// Pages held.
    pub pages: u64,
    /// How many files they are spread over: more than one only after process forks.
    pub files: usize,
}

/// Why a swap file could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The path names a directory.
    Directory(PathBuf),
    /// The path names something that is neither a file nor a block device.
    NotAFile(PathBuf),
    /// The block device is mounted or in use otherwise.
    InUse(PathBuf),
    /// The file or device holds something that is not swap of ours.
    NotEmpty(PathBuf),
    /// The size is less than two pages; one page is needed for the file's signature.
    TooSmall(u64),
    /// The host refused.
    Host {
        /// What was to be opened.
        path: PathBuf,
        /// What the host answered.
        errno: Errno,
    },
    /// Address space for the tables could not be reserved.
    Reserve(ReserveError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => {
                write!(f, "swap file {}: is a directory; name a file in it", path.display())
            }
            Self::NotAFile(path) => {
                write!(f, "swap file {}: neither a file nor a block device", path.display())
            }
            Self::InUse(path) => write!(
                f,
                "swap file {}: the device is in use; unmount it or `swapoff` it first",
                path.display()
            ),
            Self::NotEmpty(path) => write!(
                f,
                "swap file {}: holds something that would be overwritten; delete it or name a new \
                 file",
                path.display()
            ),
            Self::TooSmall(bytes) => write!(
                f,
                "swap file: {bytes} bytes hold no page; give at least {} bytes",
                2 * PAGE_SIZE
            ),
            Self::Host { path, errno } => {
                let why = std::io::Error::from(*errno);
                write!(f, "swap file {}: {why}", path.display())
            }
            Self::Reserve(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<ReserveError> for OpenError {
    fn from(error: ReserveError) -> Self {
        Self::Reserve(error)
    }
}

impl SwapFile {
    /// The most bytes that an area without a given size may take: 64 GiB.
    pub const DEFAULT_BYTES: u64 = 64 << 30;

    /// Swap in an unlinked temporary file in `directory`, at most `bytes` long.
    ///
    /// The file is made at once, so that a directory that cannot be written is reported here.
    pub fn temporary(directory: &Path, bytes: Option<u64>) -> Result<Self, OpenError> {
        let slots = slots_of(bytes.unwrap_or(Self::DEFAULT_BYTES))?;
        let file = generation::unlinked(directory)
            .map_err(|errno| OpenError::Host { path: directory.to_owned(), errno })?;
        Self::over(descriptor::keep(file), slots, directory.to_owned())
    }

    /// Swap in the file `path`, at most `bytes` long, made with mode 0600 if it does not exist.
    ///
    /// An existing file must be empty or former swap of ours, and a block device must not be in
    /// use. Two processes never share one file: where `path` is another's swap already, as after a
    /// program that uses it started a second one, an unlinked file beside it is used.
    pub fn open(path: &Path, bytes: Option<u64>) -> Result<Self, OpenError> {
        let host = |errno| OpenError::Host { path: path.to_owned(), errno };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        // The process may change its directory before it makes further files.
        let directory = directory.canonicalize().unwrap_or(directory);
        let (mut file, kind) = open_checked(path)?;
        let (directory, longest) = match kind {
            FileType::BlockDevice => {
                let length = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(host)?;
                (std::env::temp_dir(), length)
            }
            _ => (directory, u64::MAX),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Self::temporary(&directory, bytes),
            other => other.map_err(host)?,
        }
        let slots = slots_of(bytes.unwrap_or(Self::DEFAULT_BYTES.min(longest)).min(longest))?;
        if kind == FileType::BlockDevice {
            file = reopen_exclusively(file, path)?;
        }
        claim(&file, path, kind)?;
        Self::over(descriptor::keep(file), slots, directory)
    }

    fn over(file: Kept, slots: u32, directory: PathBuf) -> Result<Self, OpenError> {
        Ok(Self {
            slots,
            files: Generations::new(Some(file), directory),
            places: Table::reserve(slots as usize)?,
            in_run: Table::reserve(slots.div_ceil(RUN) as usize)?,
            shards: [const { Mutex::new(()) }; SHARDS],
            pages: AtomicU64::new(0),
        })
    }

    /// What is held now.
    pub fn stats(&self) -> FileStats {
        FileStats { pages: self.pages.load(Relaxed), files: self.files.count() }
    }

    /// Prepares for a process fork, in the parent, with no other call under way.
    ///
    /// Bounds the number of files: where there are [`MOST`] less one, the pages of the one with the
    /// fewest are written anew, so that it can be closed. An error leaves every page where it was;
    /// the fork may go on, and the next call tries again.
    pub fn before_fork(&self) -> Result<(), IoError> {
        if self.files.count() + 1 < MOST {
            return Ok(());
        }
        let Some(victim) = self.files.least_used() else { return Ok(()) };
        let mut page = [0; PAGE_SIZE as usize];
        for slot in 0..self.slots {
            if self.place(slot) == Some(victim) {
                self.files.read(victim, u64::from(slot), &mut page)?;
                self.write(slot, &page)?;
            }
        }
        Ok(())
    }

    /// Ends a process fork, in the parent and in the child, with no other call under way.
    pub fn after_fork(&self) {
        self.files.freeze();
        // SAFETY: zero is a value of the counters, and no call is under way.
        unsafe { self.in_run.release(0..self.in_run.len() * size_of::<AtomicU16>()) };
    }

    /// The file that a slot is in.
    fn place(&self, slot: u32) -> Option<Number> {
        self.places.get(slot as usize)?.load(Relaxed).checked_sub(1)
    }

    fn set_place(&self, slot: u32, new: Option<Number>) {
        let new = new.map_or(0, |number| number + 1);
        let old = self.places[slot as usize].swap(new, Relaxed).checked_sub(1);
        match old {
            None if new != 0 => _ = self.pages.fetch_add(1, Relaxed),
            Some(_) if new == 0 => _ = self.pages.fetch_sub(1, Relaxed),
            _ => {}
        }
        if let Some(number) = old {
            if Some(number) == self.files.current() {
                self.leave_run(slot, number);
            }
            self.files.release(number);
        }
    }

    /// Counts a slot as in the current file, before it is written.
    fn enter_run(&self, slot: u32) {
        let run = slot / RUN;
        let _shard = self.shards[run as usize % SHARDS].lock();
        self.in_run[run as usize].fetch_add(1, Relaxed);
    }

    /// Counts a slot out of the current file; an empty run is punched out.
    ///
    /// The lock keeps a slot of the run from being written before the hole is there.
    fn leave_run(&self, slot: u32, number: Number) {
        let run = slot / RUN;
        let _shard = self.shards[run as usize % SHARDS].lock();
        if self.in_run[run as usize].fetch_sub(1, Relaxed) == 1 {
            // The first run begins after the signature in slot 0.
            let first = u64::from(run * RUN).max(1);
            let end = u64::from(run * RUN) + u64::from(RUN);
            self.files.punch(number, first, end - first);
        }
    }
}

impl SwapDevice for SwapFile {
    fn slots(&self) -> u32 {
        self.slots
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        let number = self.place(slot).ok_or(IoError::Device)?;
        self.files.read(number, u64::from(slot), page)
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        if slot == 0 || slot >= self.slots {
            return Err(IoError::Device);
        }
        let number = self.files.current_or_new()?;
        if self.place(slot) == Some(number) {
            let written = self.files.write(number, u64::from(slot), page);
            if written.is_err() {
                // Half of a page must not be taken for a page.
                self.set_place(slot, None);
            }
            return written;
        }
        self.enter_run(slot);
        self.files.refer(number);
        match self.files.write(number, u64::from(slot), page) {
            Ok(()) => {
                self.set_place(slot, Some(number));
                Ok(())
            }
            Err(error) => {
                self.leave_run(slot, number);
                self.files.release(number);
                Err(error)
            }
        }
    }

    fn discard(&self, slot: u32) {
        if self.place(slot).is_some() {
            self.set_place(slot, None);
        }
    }
}

/// How many slots fit into an area of `bytes`.
fn slots_of(bytes: u64) -> Result<u32, OpenError> {
    match u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX) {
        0 | 1 => Err(OpenError::TooSmall(bytes)),
        slots => Ok(slots),
    }
}

/// Opens a path for reading and writing and says what it is.
fn open_checked(path: &Path) -> Result<(OwnedFd, FileType), OpenError> {
    let host = |errno| OpenError::Host { path: path.to_owned(), errno };
    // Looked at first, because opening a pipe would wait for its other end.
    let kind = match rustix::fs::stat(path) {
        Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(host(errno)),
    };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
    let flags = match kind {
        None => flags | OFlags::CREATE,
        Some(FileType::RegularFile | FileType::BlockDevice) => flags,
        Some(FileType::Directory) => return Err(OpenError::Directory(path.to_owned())),
        Some(_) => return Err(OpenError::NotAFile(path.to_owned())),
    };
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(host)?;
    Ok((file, kind.unwrap_or(FileType::RegularFile)))
}

/// Opens a locked block device once more, exclusively, which the host refuses while it is mounted
/// or in use otherwise.
fn reopen_exclusively(locked: OwnedFd, path: &Path) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::BUSY => OpenError::InUse(path.to_owned()),
        errno => OpenError::Host { path: path.to_owned(), errno },
    })?;
    drop(locked);
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| OpenError::InUse(path.to_owned()))?;
    Ok(file)
}

/// How far into a block device a file system or partition table may first show.
const PROBED: u64 = 128 << 10;

/// Makes a locked file ours: afterwards slot 0 holds the signature, and a regular file nothing else
/// and is readable by its owner alone.
fn claim(file: &OwnedFd, path: &Path, kind: FileType) -> Result<(), OpenError> {
    let host = |errno| OpenError::Host { path: path.to_owned(), errno };
    let mut head = [0; SIGNATURE.len()];
    let read = rustix::io::pread(file, &mut head, 0).map_err(host)?;
    let blank = match kind {
        FileType::BlockDevice => is_zero(file, PROBED).map_err(host)?,
        _ => read == 0,
    };
    if !blank && head != *SIGNATURE {
        return Err(OpenError::NotEmpty(path.to_owned()));
    }
    if kind == FileType::RegularFile {
        rustix::fs::fchmod(file, Mode::RUSR | Mode::WUSR).map_err(host)?;
        rustix::fs::ftruncate(file, 0).map_err(host)?;
    }
    match rustix::io::pwrite(file, SIGNATURE, 0).map_err(host)? {
        written if written == SIGNATURE.len() => Ok(()),
        _ => Err(host(Errno::NOSPC)),
    }
}

/// Whether the first `bytes` bytes of a file are all zero.
fn is_zero(file: &OwnedFd, bytes: u64) -> Result<bool, Errno> {
    let mut page = [0; PAGE_SIZE as usize];
    for offset in (0..bytes).step_by(page.len()) {
        let read = rustix::io::pread(file, &mut page, offset)?;
        if page[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}
