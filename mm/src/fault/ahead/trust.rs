//! Whether guesses pay: what was brought ahead is counted as used or as wasted, and where too much is
//! wasted, runs get nothing ahead any more, but for a few that are put to the test.
//!
//! A page that is used saves a fault; one that is wasted costs a read, an eviction, and the page that
//! left for it. These are about the same, so that each weighs the same here.

use crate::event::{Ahead, Event};
use crate::machine::{Frame, Machine};
use crate::manager::Manager;
use crate::page::{Page, PageFlags};
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// So many pages more may be wasted than used, before anything is known or at any time later, until
/// nothing is brought ahead.
const CREDIT: i32 = 64;

/// While guesses do not pay, one run of so many is put to the test.
const TEST_ONE_IN: u32 = 16;

/// How guesses of one kind have paid lately.
pub(super) struct Trust {
    /// How many more pages may be wasted; at most [`CREDIT`], and at least its negative.
    credit: AtomicI32,
    /// Counts the runs that nothing was brought for.
    refused: AtomicU32,
}

impl Trust {
    const fn new() -> Self {
        Self { credit: AtomicI32::new(CREDIT), refused: AtomicU32::new(0) }
    }

    /// Whether a run may begin to have pages brought for it.
    pub(super) fn allows(&self) -> bool {
        self.credit.load(Ordering::Relaxed) > 0
            || (self.refused.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(TEST_ONE_IN)
    }

    /// Notes how some guesses turned out: pages used, less pages wasted. A race between two threads
    /// may lose one of their notes.
    fn note(&self, pages: i32) {
        let credit = self.credit.load(Ordering::Relaxed).saturating_add(pages);
        self.credit.store(credit.clamp(-CREDIT, CREDIT), Ordering::Relaxed);
    }
}

/// How guesses have paid, by kind.
pub(crate) struct Guesses {
    swapped: Trust,
    fresh: Trust,
}

impl Guesses {
    pub(crate) const fn new() -> Self {
        Self { swapped: Trust::new(), fresh: Trust::new() }
    }

    pub(super) const fn of(&self, ahead: Ahead) -> &Trust {
        match ahead {
            Ahead::Swapped => &self.swapped,
            Ahead::Fresh => &self.fresh,
        }
    }
}

/// The flags of pages that were brought ahead and show no sign of use yet.
const GUESSED: PageFlags = PageFlags::READ_AHEAD.union(PageFlags::POPULATED_AHEAD);

impl Ahead {
    const fn flag(self) -> PageFlags {
        match self {
            Self::Swapped => PageFlags::READ_AHEAD,
            Self::Fresh => PageFlags::POPULATED_AHEAD,
        }
    }

    const fn of(flags: PageFlags) -> Option<Self> {
        match () {
            () if flags.contains(PageFlags::READ_AHEAD) => Some(Self::Swapped),
            () if flags.contains(PageFlags::POPULATED_AHEAD) => Some(Self::Fresh),
            () => None,
        }
    }
}

impl<M: Machine> Manager<M> {
    /// A page was brought ahead; the caller keeps it from being freed.
    pub(in crate::fault) fn mark_guessed(&self, frame: Frame, ahead: Ahead) {
        self.page(frame).set(ahead.flag());
    }

    /// A page is used; the caller keeps it from being freed.
    pub(crate) fn note_use(&self, frame: Frame) {
        if !self.is_zero_frame(frame)
            && let Some(ahead) = take_guess(self.page(frame))
        {
            self.count_used(ahead, 1);
        }
    }

    /// Takes the mark of a guess from a page that turns out to be used; the caller counts it.
    pub(super) fn take_guess(&self, frame: Frame) -> Option<Ahead> {
        take_guess(self.page(frame))
    }

    /// Pages that were brought ahead are used.
    pub(super) fn count_used(&self, ahead: Ahead, pages: u32) {
        let counter = match ahead {
            Ahead::Swapped => &self.stats.read_ahead_used,
            Ahead::Fresh => &self.stats.populated_ahead_used,
        };
        counter.add(&*self.machine, pages.into());
        self.guesses.of(ahead).note(pages as i32);
        self.observe(|| Event::Used { ahead, pages });
    }

    /// A page is evicted: a guess that shows no sign of use until then was wrong.
    pub(crate) fn note_eviction(&self, frame: Frame) {
        let Some(ahead) = take_guess(self.page(frame)) else { return };
        let counter = match ahead {
            Ahead::Swapped => &self.stats.read_ahead_wasted,
            Ahead::Fresh => &self.stats.populated_ahead_wasted,
        };
        counter.add(&*self.machine, 1);
        self.guesses.of(ahead).note(-1);
        self.observe(|| Event::Wasted { ahead });
    }
}

/// The look comes first: most pages were no guess, and a load is cheap.
fn take_guess(page: &Page) -> Option<Ahead> {
    if !page.has(GUESSED) {
        return None;
    }
    Ahead::of(page.clear(GUESSED))
}
