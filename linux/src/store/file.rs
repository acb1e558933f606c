//! A file as swap.

use super::ahead::Ahead;
use super::behind::{Behind, Run};
use super::descriptor::{self, Kept};
use super::generation::{Generations, MOST, Number};
use super::growth::{Growth, Shortage};
use super::name::FileName;
use super::open::OpenError;
use super::runs::Runs;
use crate::reserve::Table;
use core::fmt;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, SwapDevice};
use rustix::fd::OwnedFd;
use twox_hash::XxHash3_64;

/// Evicted pages in a file: an unlinked temporary one, or one with a name.
///
/// Pages are gathered and written in runs of up to 128 KiB, and read in clusters where reads go through
/// the file in order. What is read must have the checksum of what was written. Freed slots are punched out of the file, 256 KiB at a time. A
/// write that finds the disk as full as it may become, or the file as long as the process may make one,
/// answers [`IoError::Full`]; [`SwapFile::shortage`] then tells which.
///
/// # Process fork
/// Call [`SwapFile::before_fork`] in the parent and [`SwapFile::after_fork`] in parent and child,
/// with no other call under way. What was written before stays readable to both; what either writes
/// later goes to a new unlinked file of its own, in the same directory.
pub struct SwapFile {
    slots: u32,
    files: Generations,
    growth: Growth,
    behind: Behind,
    ahead: Ahead,
    /// For each slot where its page is, as [`Place::to_byte`] has it.
    places: Table<AtomicU8>,
    /// For each slot the checksum of its page.
    sums: Table<AtomicU32>,
    /// How many slots of each run are in the current file.
    runs: Runs,
    pages: AtomicU64,
    /// A page came back other than it was written.
    damaged: AtomicBool,
}

/// Where the page of a slot is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// There is none.
    Nowhere,
    /// It waits to be written.
    Waiting,
    /// In the file of this number.
    In(Number),
}

impl Place {
    const WAITING: u8 = u8::MAX;

    const fn to_byte(self) -> u8 {
        match self {
            Self::Nowhere => 0,
            Self::Waiting => Self::WAITING,
            Self::In(number) => number + 1,
        }
    }

    const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Nowhere,
            Self::WAITING => Self::Waiting,
            number => Self::In(number - 1),
        }
    }
}

/// A page came back from a file other than it was written.
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

/// What a swap file holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStats {
    /// Pages held.
    pub pages: u64,
    /// How many files they are spread over: more than one only after process forks.
    pub files: usize,
}

impl SwapFile {
    pub(super) fn over(
        file: Kept,
        slots: u32,
        growth: Growth,
        directory: OwnedFd,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            slots,
            files: Generations::new(Some(file), descriptor::keep(directory)),
            growth,
            behind: Behind::new()?,
            ahead: Ahead::new()?,
            places: Table::new(slots as usize)?,
            sums: Table::new(slots as usize)?,
            runs: Runs::new(slots)?,
            pages: AtomicU64::new(0),
            damaged: AtomicBool::new(false),
        })
    }

    /// Why there is no room for a page, if none was found the last time that one was needed.
    pub fn shortage(&self) -> Option<Shortage> {
        // Whoever gives slots away keeps a few for each thread.
        let some_free = u64::from(self.slots / 16);
        let has_slots = self.pages.load(Relaxed) + some_free < u64::from(self.slots);
        self.growth.shortage().or_else(|| if has_slots { None } else { self.growth.at_its_end() })
    }

    /// What to say of the file, if a page came back from it other than it was written.
    pub fn damage(&self) -> Option<Damage> {
        self.damaged.load(Relaxed).then(|| Damage { place: self.growth.place().clone() })
    }

    /// What is held now.
    pub fn stats(&self) -> FileStats {
        FileStats { pages: self.pages.load(Relaxed), files: self.files.count() }
    }

    /// Writes what waits to be written.
    pub fn flush(&self) -> Result<(), IoError> {
        self.behind.flush(|run| self.write_run(run))
    }

    /// Prepares for a process fork, in the parent, with no other call under way.
    ///
    /// Writes what waits, so that it is written once for both, and bounds the number of files: where
    /// there are [`MOST`] less one, the pages of the one with the fewest are written anew, so that it
    /// can be closed. An error leaves every page where it was; the fork may go on, and the next call
    /// tries again.
    pub fn before_fork(&self) -> Result<(), IoError> {
        if self.files.count() + 1 >= MOST
            && let Some(victim) = self.files.least_used()
        {
            let mut page = [0; PAGE_SIZE as usize];
            for slot in 0..self.slots {
                if self.place(slot) == Place::In(victim) {
                    self.read(slot, &mut page)?;
                    self.move_on(slot, &page)?;
                }
            }
        }
        self.flush()
    }

    /// Writes a page anew, to the current file. With no other call under way; if it fails the page is
    /// where it was.
    fn move_on(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        self.may_grow(slot)?;
        self.behind.add(slot, page, |run| self.write_run(run))?;
        self.set_place(slot, Place::Waiting);
        self.ahead.forget(slot);
        Ok(())
    }

    /// Ends a process fork, in the parent and in the child, with no other call under way.
    pub fn after_fork(&self) {
        self.files.freeze();
        self.runs.forget_all();
    }

    fn place(&self, slot: u32) -> Place {
        self.places
            .get(slot as usize)
            .map_or(Place::Nowhere, |place| Place::from_byte(place.load(Acquire)))
    }

    fn set_place(&self, slot: u32, new: Place) {
        let old = Place::from_byte(self.places[slot as usize].swap(new.to_byte(), AcqRel));
        match (old, new) {
            (Place::Nowhere, Place::Nowhere) => {}
            (Place::Nowhere, _) => _ = self.pages.fetch_add(1, Relaxed),
            (_, Place::Nowhere) => _ = self.pages.fetch_sub(1, Relaxed),
            _ => {}
        }
        if let Place::In(number) = old {
            if Some(number) == self.files.current() {
                self.leave_run(slot, number);
            }
            self.files.release(number);
        }
    }

    /// Counts a slot out of the current file; a run that is empty then is punched out.
    fn leave_run(&self, slot: u32, number: Number) {
        self.runs.leave(slot, |run| {
            // The first run begins after the signature in slot 0.
            let first = u64::from(run.start).max(1);
            self.files.punch(number, first, u64::from(run.end) - first);
        });
    }

    /// Makes sure that a page may be written that takes room of the file system's.
    fn may_grow(&self, slot: u32) -> Result<(), IoError> {
        let number = self.files.current_or_new()?;
        let end = (u64::from(slot) + 1) * PAGE_SIZE;
        self.growth.take(end, || self.files.free_space(number))
    }

    /// Writes pages that waited. None of their slots is in a file.
    fn write_run(&self, run: Run<'_>) -> Result<(), IoError> {
        let number = self.files.current_or_new()?;
        for slot in run.slots.clone() {
            self.runs.enter(slot);
            self.files.refer(number);
        }
        match self.files.write(number, u64::from(run.slots.start), run.bytes) {
            Ok(()) => {
                run.slots.for_each(|slot| self.set_place(slot, Place::In(number)));
                Ok(())
            }
            Err(error) => {
                self.growth.note(error);
                for slot in run.slots {
                    self.leave_run(slot, number);
                    self.files.release(number);
                }
                Err(error)
            }
        }
    }

    fn check(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        if self.sums[slot as usize].load(Relaxed) == sum(page) {
            return Ok(());
        }
        self.damaged.store(true, Relaxed);
        Err(IoError::Device)
    }
}

/// The checksum of a page.
fn sum(page: &PageBytes) -> u32 {
    XxHash3_64::oneshot(page) as u32
}

impl SwapDevice for SwapFile {
    fn slots(&self) -> u32 {
        self.slots
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        loop {
            match self.place(slot) {
                Place::Nowhere => return Err(IoError::Device),
                Place::Waiting if self.behind.read(slot, page) => return Ok(()),
                // It has just been written.
                Place::Waiting => {}
                Place::In(number) => {
                    let is_there = |slot| self.place(slot) == Place::In(number);
                    let read = |first: u32, pages: &mut [u8]| {
                        self.files.read(number, u64::from(first), pages)
                    };
                    self.ahead.read(slot, number, page, is_there, read)?;
                    return self.check(slot, page);
                }
            }
        }
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        if slot == 0 || slot >= self.slots {
            return Err(IoError::Device);
        }
        self.discard(slot);
        self.may_grow(slot)?;
        self.sums[slot as usize].store(sum(page), Relaxed);
        self.set_place(slot, Place::Waiting);
        self.ahead.forget(slot);
        self.behind.add(slot, page, |run| self.write_run(run)).inspect_err(|_| {
            self.set_place(slot, Place::Nowhere);
        })
    }

    fn discard(&self, slot: u32) {
        loop {
            match self.place(slot) {
                Place::Nowhere => return,
                // It has just been written.
                Place::Waiting if !self.behind.forget(slot) => {}
                Place::Waiting | Place::In(_) => return self.set_place(slot, Place::Nowhere),
            }
        }
    }
}
