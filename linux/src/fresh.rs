//! Fresh memory: one call fills consecutive pages of zeros.

use crate::frame::{Held, Location};
use crate::host::PAGE;
use crate::machine::Shared;
use crate::reserve::{Reservation, ReserveError};
use crate::space::SpaceCore;
use crate::stats::Counter;
use crate::table::LEAF_PAGES;
use crate::uffd::Mapped;
use arrayvec::ArrayVec;
use core::ops::Range;
use pagefault_machine::{Entry, Protection};

/// The most pages that one call fills.
const RUN: usize = 64;

/// The source: as many pages, never stored to, so that all of them are the host's one page of
/// zeros.
pub(crate) struct Zeros(Reservation);

impl Zeros {
    pub fn new() -> Result<Self, ReserveError> {
        Reservation::own(RUN * PAGE).map(Self)
    }
}

/// The outcome.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The page has its content, and so do some neighbours.
    Run,
    /// Nothing was done: there is no run, or another thread is at work there.
    Nothing,
}

impl Shared {
    /// Fills the host page of `page` together with its neighbours, if all are pages of zeros that
    /// are not on the host yet.
    pub fn refill_fresh(&self, space: &SpaceCore, page: usize) -> Filled {
        let is_fresh = |page: usize| {
            let frame = space.table.entry(page).frame();
            frame.is_some_and(|frame| self.frames.peek(frame) == Location::Zero)
        };
        if !is_fresh(page) {
            return Filled::Nothing;
        }
        let leaf = page / LEAF_PAGES * LEAF_PAGES;
        let before = (leaf..page).rev().take(RUN / 2).take_while(|page| is_fresh(*page)).count();
        let start = page - before;
        let run = start..(start + RUN).min(leaf + LEAF_PAGES);
        match self.fill_fresh(space, run) {
            Some(filled) if filled.contains(&page) => Filled::Run,
            _ => Filled::Nothing,
        }
    }

    /// Fills the first pages of a range in one leaf as long as they are such pages; returns which
    /// it filled.
    fn fill_fresh(&self, space: &SpaceCore, pages: Range<usize>) -> Option<Range<usize>> {
        let leaf = space.table.lock_existing(pages.start)?;
        let Entry::Present { protection, .. } = leaf.entry(pages.start) else { return None };
        let alike = |page: usize| match leaf.entry(page) {
            Entry::Present { frame, protection: own, .. } if own == protection => {
                space.table.is_empty(page, space.host_of(page), &self.frames).then_some(frame)
            }
            _ => None,
        };
        let mut held = ArrayVec::<Held<'_>, RUN>::new();
        for page in pages.clone() {
            let Some(one) = alike(page).and_then(|frame| self.frames.try_hold(frame)) else {
                break;
            };
            if one.location() != Location::Zero {
                break;
            }
            held.push(one);
        }
        if held.len() < 2 || protection.is_empty() {
            return None;
        }
        let mapped = if protection.contains(Protection::WRITE) {
            Mapped::Writable
        } else {
            Mapped::WriteProtected
        };
        let host = space.host_of(pages.start);
        // SAFETY: the source has RUN pages, and the target are pages of the space's own.
        let filled =
            unsafe { self.descriptor.copy_run(host, self.zeros.0.start(), held.len(), mapped) };
        for (page, one) in pages.clone().zip(&held[..filled]) {
            space.table.set_shown(page, one.frame());
            one.set_location(Location::At(space.host_of(page), mapped));
        }
        self.counters.add(Counter::Installed, filled as u64);
        Some(pages.start..pages.start + filled)
    }
}
