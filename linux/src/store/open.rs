//! Opening a file as swap.

use super::descriptor;
use super::extents;
use super::file::{SwapFile, io_error, write_all};
use super::growth::Growth;
use super::name::{FileName, Short};
use crate::reserve::ReserveError;
use alloc::ffi::CString;
use core::ffi::CStr;
use pagefault_machine::{IoError, PAGE_SIZE};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

/// The signature of a file that was used as swap, in slot 0, which holds no page.
const SIGNATURE: &[u8; 16] = b"pagefault swap\n\0";

/// Why a swap file could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The path names a directory.
    #[error("swap file {0}: is a directory; name a file in it")]
    Directory(FileName),
    /// The path names something that is neither a file nor a block device.
    #[error("swap file {0}: neither a file nor a block device")]
    NotAFile(FileName),
    /// The block device is mounted or otherwise in use.
    #[error("swap file {0}: the device is in use; unmount it or `swapoff` it first")]
    InUse(FileName),
    /// The file or device holds data that is not swap of ours.
    #[error(
        "swap file {0}: holds something that would be overwritten; delete it or name a new file"
    )]
    NotEmpty(FileName),
    /// The size is less than two pages; one page is needed for the file's signature.
    #[error("swap file: {0} bytes hold no page; give at least {least} bytes", least = 2 * PAGE_SIZE)]
    TooSmall(u64),
    /// The process may not make files of this size (`RLIMIT_FSIZE`).
    #[error(
        "swap file {path}: files may have at most {limit} bytes (ulimit -f); raise that limit or \
         give a smaller size"
    )]
    FileSizeLimit {
        /// What was to be opened.
        path: FileName,
        /// The limit in bytes.
        limit: u64,
    },
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
    /// Whether the disk or the user's quota has no room for the file.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Host { errno: Errno::NOSPC | Errno::DQUOT, .. })
    }

    fn host(path: &CStr, errno: Errno) -> Self {
        Self::Host { path: path.into(), errno }
    }
}

/// A file that is opened as swap and holds no page yet.
pub struct Opened {
    file: OwnedFd,
    pages: u32,
    bytes: Option<u64>,
    growth: Growth,
}

impl Opened {
    /// An unlinked temporary file in `directory`, at most `bytes` long. Without a size it may grow as far as
    /// its file system has room, less 5 %.
    pub fn temporary(directory: &CStr, bytes: Option<u64>) -> Result<Self, OpenError> {
        let host = |errno| OpenError::host(directory, errno);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::open(directory, flags, Mode::empty()).map_err(host)?;
        let file = unlinked(place.as_fd()).map_err(host)?;
        let (pages, growth) = Growth::of(file.as_fd(), directory, bytes)?;
        Ok(Self { file, pages, bytes, growth })
    }

    /// The file `path`, at most `bytes` long, made with mode 0600 if it does not exist. Without a
    /// size it may grow as far as its file system has room, less 5 %, or has the size of its
    /// device.
    ///
    /// An existing file must be empty or former swap of ours, and a block device must not be in
    /// use. A file is never used twice: if `path` is already swap, an unlinked file beside it is
    /// used, or one in the directory `beside_device` if `path` is a block device.
    pub fn named(path: &CStr, beside_device: &CStr, bytes: Option<u64>) -> Result<Self, OpenError> {
        let host = |errno| OpenError::host(path, errno);
        let (mut file, kind) = open_checked(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if kind == FileType::BlockDevice => {
                return Self::temporary(beside_device, bytes);
            }
            Err(Errno::WOULDBLOCK) => return Self::temporary(&parent(path), bytes),
            other => other.map_err(host)?,
        }
        let (pages, bytes, growth) = match kind {
            FileType::BlockDevice => {
                let length = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(host)?;
                file = reopen_exclusively(file, path)?;
                let length = bytes.unwrap_or(length).min(length);
                (slots_of(length)?, Some(length), Growth::up_to(path, Some(length)))
            }
            _ => {
                let (pages, growth) = Growth::of(file.as_fd(), path, bytes)?;
                (pages, bytes, growth)
            }
        };
        claim(&file, path, kind)?;
        Ok(Self { file, pages, bytes, growth })
    }

    /// Writes a page and punches it out again, as a test.
    pub fn probe(&self) -> Result<(), IoError> {
        let written = write_all(self.file.as_fd(), PAGE_SIZE, &[0x5a; PAGE_SIZE as usize]);
        extents::punch(self.file.as_fd(), 0, self.pages.min(2));
        written.map_err(io_error)
    }

    /// How many pages it can have; the first holds no page of memory.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// The most bytes that it takes; `None` for as many as its file system has room for.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// The file alone, for [`SwapFile::shared`] in the processes that use it.
    pub fn into_file(self) -> OwnedFd {
        self.file
    }

    fn into_swap(self) -> Result<SwapFile, OpenError> {
        SwapFile::own(descriptor::keep(self.file), self.pages, self.growth)
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl SwapFile {
    /// Swap of this process's own in an unlinked temporary file, as [`Opened::temporary`] makes it.
    ///
    /// The file is made at once, so that an unwritable directory is reported here.
    #[cfg(feature = "std")]
    pub fn temporary(directory: &std::path::Path, bytes: Option<u64>) -> Result<Self, OpenError> {
        Self::temporary_at(&c_path(directory)?, bytes)
    }

    /// The same as [`SwapFile::temporary`].
    pub fn temporary_at(directory: &CStr, bytes: Option<u64>) -> Result<Self, OpenError> {
        Opened::temporary(directory, bytes)?.into_swap()
    }

    /// Swap of this process's own in a file with a name, as [`Opened::named`] opens it.
    #[cfg(feature = "std")]
    pub fn open(path: &std::path::Path, bytes: Option<u64>) -> Result<Self, OpenError> {
        Opened::named(&c_path(path)?, &c_path(&std::env::temp_dir())?, bytes)?.into_swap()
    }
}

/// Makes an unlinked file in `directory`, which only its descriptor keeps alive.
fn unlinked(directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, c".", flags, mode) {
        // Older file systems and kernels know no unnamed files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        made => return made,
    }
    let process = rustix::process::getpid().as_raw_nonzero();
    for attempt in 0..100 {
        let name = Short::of(format_args!(".pagefault-{process}-{attempt}"));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match rustix::fs::openat(directory, name.as_c_str(), flags, mode) {
            Err(Errno::EXIST) => continue,
            Err(errno) => return Err(errno),
            Ok(fd) => {
                rustix::fs::unlinkat(directory, name.as_c_str(), AtFlags::empty())?;
                return Ok(fd);
            }
        }
    }
    Err(Errno::EXIST)
}

/// How many slots fit into an area of `bytes`.
pub(super) fn slots_of(bytes: u64) -> Result<u32, OpenError> {
    match u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX) {
        0 | 1 => Err(OpenError::TooSmall(bytes)),
        slots => Ok(slots),
    }
}

/// A path for the host.
#[cfg(feature = "std")]
fn c_path(path: &std::path::Path) -> Result<CString, OpenError> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    let until_zero = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    // The host has no name with a zero byte.
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

/// Opens a path for reading and writing, and returns its kind.
fn open_checked(path: &CStr) -> Result<(OwnedFd, FileType), OpenError> {
    let host = |errno| OpenError::host(path, errno);
    // Checked first, because opening a pipe would wait for its other end.
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

/// Opens a locked block device once more, exclusively; the host refuses that while it is mounted or
/// otherwise in use.
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

/// Makes a locked file ours: slot 0 gets the signature. A regular file then holds nothing else, and
/// only its owner can read it.
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
