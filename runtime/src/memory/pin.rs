//! Pages that a call names, kept resident while the host uses them.
//!
//! The host's own accesses to an absent page fail, since its faults do not come here. So the pages
//! that a call names are made resident before, writable where the host writes, and reclaim leaves
//! them alone until the call is over. The host then works on the program's own addresses: result,
//! count, side effect and `EFAULT` of bad parts are its own.

use super::{GATE, Manager, PAGE, addresses, current, room};
use crate::thread::Thread;
use alloc::vec::Vec;
use core::ops::Range;
use pagefault::Pin;
use pagefault::error::UserError;
use pagefault_linux::{LinuxMachine, PresentError};
use pagefault_machine::{Access, VirtAddr};
use rustix::io::Errno;

/// How often room is looked for before a call is made without its pages.
const ATTEMPTS: u32 = 1000;

/// Pages kept resident until this is dropped.
#[derive(Default)]
pub struct Pins {
    pins: Vec<Pin<LinuxMachine>>,
    pages: usize,
}

impl Pins {
    /// No pages.
    pub const fn new() -> Self {
        Self { pins: Vec::new(), pages: 0 }
    }

    /// Keeps the managed pages of an area resident, as far as the program may access it so, and as
    /// one call may keep.
    pub fn add(&mut self, start: u64, len: u64, access: Access) {
        let Some(manager) = current() else { return };
        if len == 0 {
            return;
        }
        let most = (Self::most().saturating_sub(self.pages) as u64).saturating_mul(PAGE);
        let mut page = start & !(PAGE - 1);
        let end = start.saturating_add(len).min(crate::user::END).min(page.saturating_add(most));
        while page < end {
            let Some(region) = manager.region_from(page..end) else { return };
            page = region.start.max(page);
            let part_end = region.end.min(end.next_multiple_of(PAGE));
            while page < part_end {
                // A page that may not be accessed so is the host's to refuse.
                let pinned = self.add_pages(manager, page..part_end, access);
                page += (pinned + 1) * PAGE;
            }
        }
    }

    /// Pins the pages of a range up to the first that may not be accessed so; returns how many.
    fn add_pages(&mut self, manager: &Manager, range: Range<u64>, access: Access) -> u64 {
        let mut attempts = 0;
        loop {
            let gate = GATE.read();
            let (pin, refused) = manager.mm().pin_prefix(addresses(&range), access);
            let pages = pin.frames().len() as u64;
            let pinned = VirtAddr(range.start)..VirtAddr(range.start + pages * PAGE);
            let present = manager.mm().space().make_present(pinned, access);
            let short = present == Err(PresentError::Host(Errno::NOBUFS))
                || refused == Some(UserError::OutOfMemory);
            if !short || attempts == ATTEMPTS {
                // If there is no memory for a page, the call finds it absent and says so.
                self.pins.push(pin);
                self.pages += pages as usize;
                return pages;
            }
            drop(pin);
            drop(gate);
            room::try_to_make(manager);
            attempts += 1;
        }
    }

    /// The same as [`add`](Self::add); whether a page may be accessed so.
    pub fn add_if(&mut self, start: u64, len: u64, access: Access) -> bool {
        let before = self.pages;
        self.add(start, len, access);
        self.pages > before
    }

    /// How many pages are kept.
    pub fn len(&self) -> usize {
        self.pages
    }

    /// How many pages one call may keep: the rest of memory must have room to move.
    pub fn most() -> usize {
        current().map_or(usize::MAX, |manager| manager.tree.limit() as usize / 4)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if !self.pins.is_empty() {
            let _gate = GATE.read();
            self.pins.clear();
        }
    }
}

impl Manager {
    /// The first managed region that overlaps a range.
    fn region_from(&self, range: Range<u64>) -> Option<Range<u64>> {
        let region = self.mm().first_mapped(addresses(&range))?;
        Some(region.start.value()..region.end.value())
    }
}

/// Keeps the pages of words resident that the host is to write.
pub fn pin_words(words: &[Option<u64>]) -> Pins {
    let mut pins = Pins::new();
    for word in words.iter().flatten() {
        pins.add(*word, 4, Access::Write);
    }
    pins
}

/// Keeps an area resident that the host writes by itself, until the thread ends.
pub fn keep_resident(thread: &Thread, start: u64, len: u64) {
    let mut pins = Pins::new();
    pins.add(start, len, Access::Write);
    thread.kept.borrow_mut().push(pins);
}

/// Lets go of what was kept for a thread.
pub fn end_thread(thread: &Thread) {
    thread.kept.borrow_mut().clear();
}
