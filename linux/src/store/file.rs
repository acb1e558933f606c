//! A file as swap.

use super::descriptor::{self, Kept};
use super::generation::{Generations, MOST, Number};
use super::growth::{Growth, Shortage};
use super::open::OpenError;
use super::runs::Runs;
use crate::reserve::Table;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU64};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, SwapDevice};
use rustix::fd::OwnedFd;

/// Evicted pages in a file: an unlinked temporary one, or one with a name.
///
/// Freed slots are punched out of the file, 256 KiB at a time. A write that finds the disk as full as
/// it may become, or the file as long as the process may make one, answers [`IoError::Full`];
/// [`SwapFile::shortage`] then tells which.
///
/// # Process fork
/// Call [`SwapFile::before_fork`] in the parent and [`SwapFile::after_fork`] in parent and child,
/// with no other call under way. What was written before stays readable to both; what either writes
/// later goes to a new unlinked file of its own, in the same directory.
pub struct SwapFile {
    slots: u32,
    files: Generations,
    growth: Growth,
    /// For each slot the number of the file that it is in plus one, or 0.
    places: Table<AtomicU8>,
    /// How many slots of each run are in the current file.
    runs: Runs,
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
            places: Table::new(slots as usize)?,
            runs: Runs::new(slots)?,
            pages: AtomicU64::new(0),
        })
    }

    /// Why there is no room for a page, if none was found the last time that one was needed.
    pub fn shortage(&self) -> Option<Shortage> {
        self.growth.shortage()
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
        self.runs.forget_all();
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

    /// Counts a slot out of the current file; a run that is empty then is punched out.
    fn leave_run(&self, slot: u32, number: Number) {
        self.runs.leave(slot, |run| {
            // The first run begins after the signature in slot 0.
            let first = u64::from(run.start).max(1);
            self.files.punch(number, first, u64::from(run.end) - first);
        });
    }

    /// Makes sure that a page may be written that takes room of the file system's.
    fn may_grow(&self, slot: u32, number: Number) -> Result<(), IoError> {
        let end = (u64::from(slot) + 1) * PAGE_SIZE;
        self.growth.take(end, || self.files.free_space(number))
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
        self.may_grow(slot, number)?;
        self.runs.enter(slot);
        self.files.refer(number);
        match self.files.write(number, u64::from(slot), page) {
            Ok(()) => {
                self.set_place(slot, Some(number));
                Ok(())
            }
            Err(error) => {
                self.growth.note(error);
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
