//! The files behind one swap area: a new one after every process fork.
//!
//! After a fork parent and child refer to the same slots of the same file. Neither may overwrite
//! what the other still needs, and neither can know what that is. So at a fork the file that both
//! have becomes read-only to both, and each writes to a new unlinked file from then on, made when
//! the first page is written. A frozen file is closed once no slot refers to it; the last process to
//! do so frees its space.

use super::Mutex;
use super::descriptor::{self, Kept};
use super::growth::{self, Space};
use super::name::Short;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32};
use pagefault_machine::{IoError, PAGE_SIZE};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

/// The most files that one area may consist of.
pub const MOST: usize = 16;

/// The number of a file of an area, 0 to [`MOST`] − 1.
pub type Number = u8;

/// The current file has not been made yet.
const NONE: u32 = u32::MAX;

/// The files of an area.
pub(super) struct Generations {
    files: [Generation; MOST],
    /// The number of the file that is written, or [`NONE`].
    current: AtomicU32,
    /// Where new files are made; also the lock under which they are. A descriptor, since the process
    /// may change its root and its directory.
    directory: Mutex<Kept>,
}

/// One file.
struct Generation {
    /// Where the descriptor's number is; null where there is no file.
    fd: AtomicPtr<AtomicI32>,
    /// How many slots refer to the file, plus readers under way, plus one while it is current.
    users: AtomicU32,
}

impl Generations {
    /// An area whose first file is `first`, or is made in `directory` when it is needed.
    pub(super) fn new(first: Option<Kept>, directory: Kept) -> Self {
        let files = [const { Generation { fd: AtomicPtr::new(null_mut()), users: AtomicU32::new(0) } };
            MOST];
        let all = Self { files, current: AtomicU32::new(NONE), directory: Mutex::new(directory) };
        if let Some(first) = first {
            all.files[0].open(first);
            all.current.store(0, Release);
        }
        all
    }

    /// The file that is written, if there is one already.
    pub(super) fn current(&self) -> Option<Number> {
        match self.current.load(Acquire) {
            NONE => None,
            number => Some(number as Number),
        }
    }

    /// The file that is written, made if there is none.
    pub(super) fn current_or_new(&self) -> Result<Number, IoError> {
        if let Some(number) = self.current() {
            return Ok(number);
        }
        let directory = self.directory.lock();
        if let Some(number) = self.current() {
            return Ok(number);
        }
        let free = self.files.iter().position(|file| file.fd.load(Acquire).is_null());
        let free = free.ok_or(IoError::Full)?;
        let file = descriptor::with_room(|| unlinked(directory.as_fd())).map_err(io_error)?;
        self.files[free].open(descriptor::keep(file));
        self.current.store(free as u32, Release);
        Ok(free as Number)
    }

    /// Makes the current file read-only: from now on writes go to a new one.
    pub(super) fn freeze(&self) {
        let number = self.current.swap(NONE, AcqRel);
        if let Some(file) = self.files.get(number as usize) {
            file.release();
        }
    }

    /// How many files there are.
    pub(super) fn count(&self) -> usize {
        self.files.iter().filter(|file| !file.fd.load(Relaxed).is_null()).count()
    }

    /// The frozen file to which the fewest slots refer.
    pub(super) fn least_used(&self) -> Option<Number> {
        let current = self.current();
        (0..MOST as Number)
            .filter(|number| Some(*number) != current)
            .filter(|number| !self.files[usize::from(*number)].fd.load(Relaxed).is_null())
            .min_by_key(|number| self.files[usize::from(*number)].users.load(Relaxed))
    }

    /// Says that one more slot refers to a file.
    pub(super) fn refer(&self, number: Number) {
        self.files[usize::from(number)].users.fetch_add(1, Relaxed);
    }

    /// Says that one slot fewer refers to a file; the last one closes a frozen file.
    pub(super) fn release(&self, number: Number) {
        self.files[usize::from(number)].release();
    }

    /// Reads pages into memory that is aligned like one.
    pub(super) fn read(&self, number: Number, page: u64, bytes: &mut [u8]) -> Result<(), IoError> {
        let file = self.files.get(usize::from(number)).ok_or(IoError::Device)?;
        file.with(|fd| read_all(fd, page * PAGE_SIZE, bytes).map_err(io_error))
    }

    /// Writes pages from memory that is aligned like one.
    pub(super) fn write(&self, number: Number, page: u64, bytes: &[u8]) -> Result<(), IoError> {
        let file = self.files.get(usize::from(number)).ok_or(IoError::Device)?;
        file.with(|fd| write_all(fd, page * PAGE_SIZE, bytes).map_err(io_error))
    }

    /// What the file system of a file has.
    pub(super) fn free_space(&self, number: Number) -> Result<Space, IoError> {
        let file = self.files.get(usize::from(number)).ok_or(IoError::Device)?;
        file.with(|fd| growth::space_of(fd).map_err(io_error))
    }

    /// Gives the blocks of a range of pages back to the file system, where it can.
    pub(super) fn punch(&self, number: Number, first: u64, pages: u64) {
        let Some(file) = self.files.get(usize::from(number)) else { return };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // A file system without holes keeps the blocks for the slots' next use.
        let _ = file.with(|fd| {
            rustix::fs::fallocate(fd, flags, first * PAGE_SIZE, pages * PAGE_SIZE).map_err(io_error)
        });
    }
}

impl Drop for Generations {
    fn drop(&mut self) {
        for file in &self.files {
            file.close();
        }
    }
}

impl Generation {
    /// Takes a file as the current one.
    fn open(&self, file: Kept) {
        self.users.store(1, Relaxed);
        self.fd.store(core::ptr::from_ref(file.into_place()).cast_mut(), Release);
    }

    /// Does I/O on the file, which stays open meanwhile.
    fn with<R>(&self, io: impl FnOnce(BorrowedFd<'_>) -> Result<R, IoError>) -> Result<R, IoError> {
        let more = |users: u32| (users > 0).then_some(users + 1);
        self.users.fetch_update(AcqRel, Relaxed, more).map_err(|_| IoError::Device)?;
        // SAFETY: `users` was above zero and is raised by this call, so that the descriptor is open
        // and stays so until the release below; places live for ever.
        let result = io(descriptor::at(unsafe { &*self.fd.load(Acquire) }));
        self.release();
        result
    }

    /// Ends one use; the last one closes the file.
    fn release(&self) {
        if self.users.fetch_sub(1, AcqRel) == 1 {
            self.close();
        }
    }

    fn close(&self) {
        // SAFETY: places live for ever.
        if let Some(place) = unsafe { self.fd.swap(null_mut(), AcqRel).as_ref() } {
            // SAFETY: the place came from `Kept::into_place` and was taken out of the field, so that
            // nobody else closes it.
            drop(unsafe { Kept::from_place(place) });
        }
    }
}

/// Makes an unlinked file in `directory` that only its descriptor keeps alive.
pub(super) fn unlinked(directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
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

fn read_all(fd: BorrowedFd<'_>, mut offset: u64, mut bytes: &mut [u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pread(fd.as_fd(), &mut *bytes, offset) {
            // The file ends here: nothing was ever written at the place.
            Ok(0) => return Err(Errno::IO),
            Ok(read) => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn write_all(fd: BorrowedFd<'_>, mut offset: u64, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd.as_fd(), bytes, offset) {
            // No progress and no error is how a full device may say so.
            Ok(0) => return Err(Errno::NOSPC),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// What an error of the host means to the memory manager.
fn io_error(errno: Errno) -> IoError {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => IoError::Full,
        Errno::ROFS | Errno::OPNOTSUPP => IoError::Unsupported,
        _ => IoError::Device,
    }
}
