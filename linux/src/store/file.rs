//! A file as swap.

use super::ahead::Ahead;
use super::behind::{Behind, Run};
use super::descriptor::Kept;
use super::extents::{Extents, OwnExtents};
use super::failure::{Cause, Failure, LastFailure};
use super::growth::{Growth, Shortage, ShortageKind, space_of};
use super::name::FileName;
use super::open::OpenError;
use super::positions::{Fresh, Positions};
use crate::reserve::{ReserveError, Table};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ffi::CStr;
use core::fmt;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, SwapDevice};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use twox_hash::XxHash3_64;

/// Evicted pages in a file: an unlinked temporary one, or one with a name.
///
/// Pages are gathered and written in runs of up to 128 KiB, and read in clusters if the reads are
/// sequential. A page read must have the checksum of the page written. Freed pages are punched out
/// of the file, 256 KiB at a time. If the disk or the file has reached its limit, a write fails
/// with [`IoError::Full`]; [`SwapFile::shortage`] tells which.
///
/// # Process fork
/// Call [`SwapFile::before_fork`] in the parent, while no other call runs. Both sides then read the
/// pages written before, and write to different places. If several processes use one file from the
/// start ([`SwapFile::shared`]), the [`Extents`] record the holders.
pub struct SwapFile {
    slots: u32,
    positions: Positions,
    /// The extents, if the file is this process's own.
    own: Option<Arc<OwnExtents>>,
    growth: Growth,
    behind: Behind,
    ahead: Ahead,
    /// For each slot the page of the file that it has; 0 for none.
    places: Table<AtomicU32>,
    /// For each slot the checksum of its page.
    sums: Table<AtomicU32>,
    pages: AtomicU64,
    /// A page came back different from what was written.
    damaged: AtomicBool,
    failure: LastFailure,
}

/// A page came back from a file different from what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, or the directory that it was made in.
    pub place: FileName,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "swap file {}: a page came back other than it was written; something else writes to the \
             file, or the disk is broken: look at the kernel's log, or name another place",
            self.place
        )
    }
}

/// The contents of a swap file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStats {
    /// Pages held.
    pub pages: u64,
}

impl SwapFile {
    pub(super) fn own(file: Kept, slots: u32, growth: Growth) -> Result<Self, OpenError> {
        let extents = Arc::new(OwnExtents::new(file, slots)?);
        let mut this = Self::over(Box::new(extents.clone()), slots, growth)?;
        this.own = Some(extents);
        Ok(this)
    }

    /// Swap in a file of `pages` pages that other processes may share. `name` is for messages.
    /// Without `bytes` the file may grow as far as its file system has room, less 5 %.
    pub fn shared(
        extents: Box<dyn Extents>,
        pages: u32,
        name: &CStr,
        bytes: Option<u64>,
    ) -> Result<Self, ReserveError> {
        Self::over(extents, pages, Growth::up_to(name, bytes))
    }

    fn over(extents: Box<dyn Extents>, slots: u32, growth: Growth) -> Result<Self, ReserveError> {
        Ok(Self {
            slots,
            positions: Positions::new(extents, slots)?,
            own: None,
            growth,
            behind: Behind::new()?,
            ahead: Ahead::new()?,
            places: Table::new(slots as usize)?,
            sums: Table::new(slots as usize)?,
            pages: AtomicU64::new(0),
            damaged: AtomicBool::new(false),
            failure: LastFailure::default(),
        })
    }

    /// Why there is no room for a page, if the last search for room failed.
    pub fn shortage(&self) -> Option<Shortage> {
        // A few slots stay in reserve for each thread.
        let some_free = u64::from(self.slots / 16);
        let has_slots = self.pages.load(Relaxed) + some_free < u64::from(self.slots);
        self.growth.shortage().or_else(|| if has_slots { None } else { self.growth.at_its_end() })
    }

    /// Why the file can hold no more than it has room for now, if its file system is full, whoever
    /// filled it.
    pub fn limit_reached(&self) -> Option<Shortage> {
        match self.growth.may_grow(|| space_of(self.file())) {
            true => None,
            false => self.growth.at_its_end(),
        }
    }

    /// The message about the file, if a page came back different from what was written.
    pub fn damage(&self) -> Option<Damage> {
        self.damaged.load(Relaxed).then(|| Damage { place: self.growth.place().clone() })
    }

    /// The last read that failed.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.get()
    }

    /// The file's name, or the directory that it was made in.
    pub fn place(&self) -> &FileName {
        self.growth.place()
    }

    /// What is held now.
    pub fn stats(&self) -> FileStats {
        FileStats { pages: self.pages.load(Relaxed) }
    }

    /// Writes the waiting pages.
    pub fn flush(&self) -> Result<(), IoError> {
        self.behind.flush(|run| self.write_run(run))
    }

    /// Prepares for a process fork, in the parent, while no other call runs: from now on a child
    /// may hold the extents of this process.
    ///
    /// Writes the waiting pages, once for both. Pages for which the disk has no room keep waiting
    /// on both sides; both would write the same bytes.
    pub fn before_fork(&self) -> Result<(), IoError> {
        let flushed = self.flush();
        self.positions.before_fork();
        if let Some(own) = &self.own {
            self.positions.held().for_each(|extent| own.join(extent));
        }
        flushed
    }

    /// Undoes the notes of [`SwapFile::before_fork`] for a child that was not made.
    pub fn fork_failed(&self) {
        if let Some(own) = &self.own {
            self.positions.held().for_each(|extent| own.give(extent));
        }
    }

    /// Takes a page of the file.
    fn take_position(&self) -> Result<u32, IoError> {
        if self.growth.is_known_short() {
            return Err(IoError::Full);
        }
        let limit = Growth::limit(self.file());
        let mut grows = true;
        let may_grow = || {
            grows = self.growth.may_grow(|| space_of(self.file()));
            if grows { Fresh::Allowed } else { Fresh::Refused }
        };
        if let Some(position) = self.positions.take(limit, may_grow) {
            self.growth.found();
            return Ok(position);
        }
        self.growth.refuse(match grows {
            false => Some(ShortageKind::FileSystem),
            true if limit < self.slots => Some(ShortageKind::FileSizeLimit),
            true => None,
        });
        Err(IoError::Full)
    }

    fn file(&self) -> BorrowedFd<'_> {
        self.positions.extents().file()
    }

    /// Writes pages that have waited.
    fn write_run(&self, run: Run<'_>) -> Result<(), IoError> {
        run.pages.clone().for_each(|position| self.ahead.forget(position));
        let written = write_all(self.file(), u64::from(run.pages.start) * PAGE_SIZE, run.bytes);
        match written.map_err(io_error) {
            Ok(()) => {
                self.positions.set_written(run.pages);
                Ok(())
            }
            Err(error) => {
                self.growth.note(error);
                Err(error)
            }
        }
    }

    fn check(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        if self.sums[slot as usize].load(Relaxed) == sum(page) {
            return Ok(());
        }
        self.failure.note(slot, Cause::Checksum);
        self.damaged.store(true, Relaxed);
        Err(IoError::Device)
    }
}

/// The checksum of a page.
pub(crate) fn sum(page: &PageBytes) -> u32 {
    XxHash3_64::oneshot(page) as u32
}

impl SwapDevice for SwapFile {
    fn slots(&self) -> u32 {
        self.slots
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        let place = self.places.get(slot as usize).map_or(0, |place| place.load(Acquire));
        if place == 0 {
            self.failure.note(slot, Cause::Empty);
            return Err(IoError::Device);
        }
        loop {
            if self.positions.is_written(place) {
                let is_there = |position| self.positions.is_written(position);
                let read = |first: u32, pages: &mut [u8]| {
                    let at = u64::from(first) * PAGE_SIZE;
                    read_all(self.file(), at, pages).map_err(|errno| {
                        self.failure.note(slot, Cause::Host(errno.raw_os_error()));
                        io_error(errno)
                    })
                };
                self.ahead.read(place, page, is_there, read)?;
                return self.check(slot, page);
            }
            if self.behind.read(place, page) {
                return Ok(());
            }
            // It has just been written.
        }
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        if slot == 0 || slot >= self.slots {
            return Err(IoError::Device);
        }
        self.discard(slot);
        let position = self.take_position()?;
        self.sums[slot as usize].store(sum(page), Relaxed);
        if let Err(error) = self.behind.add(position, page, |run| self.write_run(run)) {
            self.positions.give(position);
            return Err(error);
        }
        self.pages.fetch_add(1, Relaxed);
        self.places[slot as usize].store(position, Release);
        Ok(())
    }

    fn discard(&self, slot: u32) {
        let Some(place) = self.places.get(slot as usize) else { return };
        // A slot that was never written is already empty: do not touch its memory.
        let position = if place.load(Relaxed) == 0 { 0 } else { place.swap(0, AcqRel) };
        if position == 0 {
            return;
        }
        // A page that has just been written no longer waits.
        while !self.positions.is_written(position) && !self.behind.forget(position) {}
        self.pages.fetch_sub(1, Relaxed);
        self.positions.give(position);
        self.growth.freed();
    }
}

fn read_all(fd: BorrowedFd<'_>, mut offset: u64, mut bytes: &mut [u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pread(fd, &mut *bytes, offset) {
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

pub(super) fn write_all(
    fd: BorrowedFd<'_>,
    mut offset: u64,
    mut bytes: &[u8],
) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            // A full device may report no progress and no error.
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

/// The memory manager's error for an error of the host.
pub(super) fn io_error(errno: Errno) -> IoError {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => IoError::Full,
        Errno::ROFS | Errno::OPNOTSUPP => IoError::Unsupported,
        _ => IoError::Device,
    }
}
