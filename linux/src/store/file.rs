//! A file as swap.

use super::Mutex;
use super::descriptor::{self, Kept};
use super::generation::{self, Generations, MOST, Number};
use super::name::FileName;
use crate::reserve::{ReserveError, Table};
use alloc::borrow::ToOwned;
use alloc::ffi::CString;
use core::ffi::CStr;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU64};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, SwapDevice};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The path names a directory.
    #[error("swap file {0}: is a directory; name a file in it")]
    Directory(FileName),
    /// The path names something that is neither a file nor a block device.
    #[error("swap file {0}: neither a file nor a block device")]
    NotAFile(FileName),
    /// The block device is mounted or in use otherwise.
    #[error("swap file {0}: the device is in use; unmount it or `swapoff` it first")]
    InUse(FileName),
    /// The file or device holds something that is not swap of ours.
    #[error(
        "swap file {0}: holds something that would be overwritten; delete it or name a new file"
    )]
    NotEmpty(FileName),
    /// The size is less than two pages; one page is needed for the file's signature.
    #[error("swap file: {0} bytes hold no page; give at least {least} bytes", least = 2 * PAGE_SIZE)]
    TooSmall(u64),
    /// The host refused.
    #[error("swap file {path}: {errno}")]
    Host {
        /// What was to be opened.
        path: FileName,
        /// What the host answered.
        errno: Errno,
    },
    /// Address space for the tables could not be reserved.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

impl OpenError {
    fn host(path: &CStr, errno: Errno) -> Self {
        Self::Host { path: path.into(), errno }
    }
}

impl SwapFile {
    /// The most bytes that an area without a given size may take: 64 GiB.
    pub const DEFAULT_BYTES: u64 = 64 << 30;

    /// Swap in an unlinked temporary file in `directory`, at most `bytes` long.
    ///
    /// The file is made at once, so that a directory that cannot be written is reported here.
    #[cfg(feature = "std")]
    pub fn temporary(directory: &std::path::Path, bytes: Option<u64>) -> Result<Self, OpenError> {
        Self::temporary_at(&c_path(directory)?, bytes)
    }

    /// Does what [`SwapFile::temporary`] does.
    pub fn temporary_at(directory: &CStr, bytes: Option<u64>) -> Result<Self, OpenError> {
        Self::temporary_in(open_directory(directory)?, directory, bytes)
    }

    /// Does what [`SwapFile::temporary`] does in a directory that is open already, with any rights;
    /// `name` is for messages.
    pub fn temporary_in(
        directory: OwnedFd,
        name: &CStr,
        bytes: Option<u64>,
    ) -> Result<Self, OpenError> {
        let slots = slots_of(bytes.unwrap_or(Self::DEFAULT_BYTES))?;
        let file = generation::unlinked(directory.as_fd())
            .map_err(|errno| OpenError::host(name, errno))?;
        Self::over(descriptor::keep(file), slots, directory)
    }

    /// Swap in the file `path`, at most `bytes` long, made with mode 0600 if it does not exist.
    ///
    /// An existing file must be empty or former swap of ours, and a block device must not be in
    /// use. Two processes never share one file: where `path` is another's swap already, as after a
    /// program that uses it started a second one, an unlinked file beside it is used.
    #[cfg(feature = "std")]
    pub fn open(path: &std::path::Path, bytes: Option<u64>) -> Result<Self, OpenError> {
        Self::open_at(&c_path(path)?, &c_path(&std::env::temp_dir())?, bytes)
    }

    /// Does what [`SwapFile::open`] does. Further files, of which there are some after a process
    /// fork, are made beside `path`, or in the directory `beside_device` if that is a block device.
    pub fn open_at(
        path: &CStr,
        beside_device: &CStr,
        bytes: Option<u64>,
    ) -> Result<Self, OpenError> {
        let host = |errno| OpenError::host(path, errno);
        let (mut file, kind) = open_checked(path)?;
        let (beside, longest) = match kind {
            FileType::BlockDevice => {
                let length = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(host)?;
                (beside_device.to_owned(), length)
            }
            _ => (parent(path), u64::MAX),
        };
        let directory = open_directory(&beside)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Self::temporary_in(directory, &beside, bytes),
            other => other.map_err(host)?,
        }
        let slots = slots_of(bytes.unwrap_or(Self::DEFAULT_BYTES.min(longest)).min(longest))?;
        if kind == FileType::BlockDevice {
            file = reopen_exclusively(file, path)?;
        }
        claim(&file, path, kind)?;
        Self::over(descriptor::keep(file), slots, directory)
    }

    fn over(file: Kept, slots: u32, directory: OwnedFd) -> Result<Self, OpenError> {
        Ok(Self {
            slots,
            files: Generations::new(Some(file), descriptor::keep(directory)),
            places: Table::new(slots as usize)?,
            in_run: Table::new(slots.div_ceil(RUN) as usize)?,
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

/// A path as the host takes it.
#[cfg(feature = "std")]
fn c_path(path: &std::path::Path) -> Result<CString, OpenError> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    let until_zero = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    // A name with a zero byte in it is none that the host could have.
    CString::new(bytes).map_err(|_| OpenError::host(&c_string(until_zero), Errno::INVAL))
}

/// The directory that a path's last component is in.
fn parent(path: &CStr) -> CString {
    let bytes = path.to_bytes();
    let slash = bytes.iter().rposition(|byte| *byte == b'/');
    c_string(match slash {
        None => b".",
        Some(0) => b"/",
        Some(at) => &bytes[..at],
    })
}

/// Bytes without a zero among them as a string of the host's.
fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}

/// Opens a directory in which files can be made later, wherever the process goes.
fn open_directory(path: &CStr) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| OpenError::host(path, errno))
}

/// Opens a path for reading and writing and says what it is.
fn open_checked(path: &CStr) -> Result<(OwnedFd, FileType), OpenError> {
    let host = |errno| OpenError::host(path, errno);
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
        Some(FileType::Directory) => return Err(OpenError::Directory(path.into())),
        Some(_) => return Err(OpenError::NotAFile(path.into())),
    };
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(host)?;
    Ok((file, kind.unwrap_or(FileType::RegularFile)))
}

/// Opens a locked block device once more, exclusively, which the host refuses while it is mounted
/// or in use otherwise.
fn reopen_exclusively(locked: OwnedFd, path: &CStr) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::BUSY => OpenError::InUse(path.into()),
        errno => OpenError::host(path, errno),
    })?;
    drop(locked);
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| OpenError::InUse(path.into()))?;
    Ok(file)
}

/// How far into a block device a file system or partition table may first show.
const PROBED: u64 = 128 << 10;

/// Makes a locked file ours: afterwards slot 0 holds the signature, and a regular file nothing else
/// and is readable by its owner alone.
fn claim(file: &OwnedFd, path: &CStr, kind: FileType) -> Result<(), OpenError> {
    let host = |errno| OpenError::host(path, errno);
    let mut head = [0; SIGNATURE.len()];
    let read = rustix::io::pread(file, &mut head, 0).map_err(host)?;
    let blank = match kind {
        FileType::BlockDevice => is_zero(file, PROBED).map_err(host)?,
        _ => read == 0,
    };
    if !blank && head != *SIGNATURE {
        return Err(OpenError::NotEmpty(path.into()));
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
