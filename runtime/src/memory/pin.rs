//! Pages that a call names, kept resident while the host uses them.
//!
//! The host's own accesses to an absent page fail, since its faults do not reach the runtime. So
//! the pages that a call names are first made resident, and writable if the host writes. Reclaim
//! leaves them alone until the call is over. The host then works on the program's own addresses:
//! result, count, side effects and `EFAULT` for bad parts are its own.

use super::room::Room;
use super::{GATE, Manager, PAGE, addresses, current, passive};
use crate::quiescence;
use crate::thread::Thread;
use alloc::vec::Vec;
use core::ops::Range;
use pagefault::Pin;
use pagefault::error::UserError;
use pagefault_calls::{Access as Touched, Area, Kind, USER_END};
use pagefault_linux::{LinuxMachine, PresentError};
use pagefault_machine::{Access, VirtAddr};
use rustix::io::Errno;

/// Pages kept resident until this is dropped.
#[derive(Default)]
pub struct Pins {
    pins: Vec<Pin<LinuxMachine>>,
    pages: usize,
    /// Whether a requested page does not allow the access, or exceeds the number that a call may
    /// keep.
    has_gaps: bool,
}

impl Pins {
    /// No pages.
    pub const fn new() -> Self {
        Self { pins: Vec::new(), pages: 0, has_gaps: false }
    }

    /// Keeps the managed pages of an area resident, as far as the program may access it so, and as
    /// one call may keep.
    pub fn add(&mut self, start: u64, len: u64, access: Access) {
        if let Some(manager) = current() {
            self.add_by(start, len, |pins, range| pins.add_step(manager, &range, access));
        }
    }

    /// The same for present pages, under the gate held exclusively; returns how many were pinned.
    pub fn add_held(&mut self, manager: &Manager, start: u64, len: u64, access: Access) -> usize {
        let before = self.pages;
        self.add_by(start, len, |pins, range| pins.try_step(manager, &range, access));
        self.pages - before
    }

    fn add_by(
        &mut self,
        start: u64,
        len: u64,
        mut step: impl FnMut(&mut Self, Range<u64>) -> Option<Step>,
    ) {
        if len == 0 {
            return;
        }
        let most = (Self::most().saturating_sub(self.pages) as u64).saturating_mul(PAGE);
        let mut page = start & !(PAGE - 1);
        let asked = start.saturating_add(len).min(crate::user::END);
        let end = asked.min(page.saturating_add(most));
        self.has_gaps |= end < asked;
        while page < end {
            let Some(Step { part, added }) = step(self, page..end) else { return };
            page = part.start + added.pages * PAGE;
            if page < part.end {
                // The host refuses a page that does not allow the access.
                self.has_gaps = true;
                page += PAGE;
            }
        }
    }

    /// Pins the first managed pages of a range up to the first that does not allow the access; `None`
    /// if there are none.
    fn add_step(&mut self, manager: &Manager, range: &Range<u64>, access: Access) -> Option<Step> {
        let mut room = Room::new();
        // What the last attempt pinned, so that it does not leave again while room is made for the rest.
        let mut so_far = None;
        loop {
            let gate = GATE.read();
            let step = self.try_step(manager, range, access);
            // Under the gate, even if the region is gone.
            so_far.take();
            let step = step?;
            if !step.added.short {
                return Some(step);
            }
            so_far = self.take_last_back(&step.added);
            drop(gate);
            if !room.make_more(manager, step.added.pages) {
                // Two calls that wait for each other's pages get on once one lets go.
                let _gate = GATE.read();
                so_far.take();
            }
        }
    }

    /// One attempt, under the gate: a fork must not copy a lock that the look-up holds.
    fn try_step(&mut self, manager: &Manager, range: &Range<u64>, access: Access) -> Option<Step> {
        let region = manager.region_from(range)?;
        let end = region.end.min(range.end.next_multiple_of(PAGE));
        let part = region.start.max(range.start)..end;
        let added = self.try_add(manager, &part, access);
        Some(Step { part, added })
    }

    fn try_add(&mut self, manager: &Manager, range: &Range<u64>, access: Access) -> Added {
        let _section = quiescence::section(Thread::current());
        let (pin, refused) = manager.mm().pin_prefix(addresses(range), access);
        let pages = pin.frames().len() as u64;
        let pinned = VirtAddr(range.start)..VirtAddr(range.start + pages * PAGE);
        let present = manager.mm().space().make_present(pinned, access);
        let short = present == Err(PresentError::Host(Errno::NOBUFS))
            || refused == Some(UserError::OutOfMemory);
        self.pins.push(pin);
        self.pages += pages as usize;
        Added { pages, short }
    }

    fn take_last_back(&mut self, added: &Added) -> Option<Pin<LinuxMachine>> {
        self.pages -= added.pages as usize;
        self.pins.pop()
    }

    /// Lets go of all pages, under the gate.
    pub fn clear_held(&mut self) {
        self.pins.clear();
        self.pages = 0;
    }

    /// Lets go of all pages.
    pub fn clear(&mut self) {
        if !self.pins.is_empty() {
            let _gate = GATE.read();
            self.clear_held();
        }
    }

    /// The same as [`add`](Self::add); whether a page may be accessed so.
    pub fn add_if(&mut self, start: u64, len: u64, access: Access) -> bool {
        let before = self.pages;
        self.add(start, len, access);
        self.pages > before
    }

    /// Whether all requested managed pages are kept.
    pub fn are_whole(&self) -> bool {
        !self.has_gaps
    }

    /// How many pages are kept.
    pub fn len(&self) -> usize {
        self.pages
    }

    /// How many pages one call may keep; the rest of memory must stay evictable.
    pub fn most() -> usize {
        current().map_or(usize::MAX, |manager| manager.tree.limit() as usize / 4)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What one step did to a part of a region.
struct Step {
    part: Range<u64>,
    added: Added,
}

/// The pins of one attempt.
struct Added {
    pages: u64,
    /// There was no frame for all accessible pages.
    short: bool,
}

impl Manager {
    /// The first managed region that overlaps a range. The gate is held.
    fn region_from(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let region = self.mm().first_mapped(addresses(range))?;
        Some(region.start.value()..region.end.value())
    }
}

/// In an active process, keeps the pages of words resident that the host will write.
pub fn pin_words(words: &[Option<u64>]) -> Pins {
    let mut pins = Pins::new();
    for word in words.iter().flatten() {
        pins.add(*word, 4, Access::Write);
    }
    pins
}

/// Keeps an area resident that the host itself writes, until the thread ends.
pub fn keep_resident(thread: &Thread, start: u64, len: u64) {
    let len = len.min(USER_END.saturating_sub(start));
    if len == 0 {
        return;
    }
    if let Some(_gate) = passive::stay() {
        let area = Area { start, len, access: Touched::ReadWrite, kind: Kind::Later };
        thread.later.borrow_mut().push(area);
        return;
    }
    let mut pins = Pins::new();
    pins.add(start, len, Access::Write);
    thread.kept.borrow_mut().push(pins);
}

/// Releases the pages kept for a thread.
pub fn end_thread(thread: &Thread) {
    // The conversion adds to it.
    let _gate = GATE.read();
    thread.later.borrow_mut().clear();
    let mut kept = thread.kept.borrow_mut();
    kept.iter_mut().for_each(Pins::clear_held);
    kept.clear();
}
