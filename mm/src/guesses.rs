//! Whether guesses pay. Pages brought ahead count as used or as wasted. If too many are wasted,
//! runs get nothing ahead any more, except a few as a test.
//!
//! A used page saves a fault; a wasted page costs a read, an eviction, and the page that left for
//! it. The two are about equal, so each has the same weight.

use crate::event::Ahead;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// When this many more pages are wasted than used, nothing is brought ahead any more.
const CREDIT: i32 = 64;

/// While guesses do not pay, one run in this many is a test.
const TEST_ONE_IN: u32 = 16;

/// How guesses of one kind have paid lately.
pub(crate) struct Trust {
    /// How many more pages may be wasted; at most [`CREDIT`], and at least its negative.
    credit: AtomicI32,
    /// Counts the runs that nothing was brought for.
    refused: AtomicU32,
}

impl Trust {
    const fn new() -> Self {
        Self { credit: AtomicI32::new(CREDIT), refused: AtomicU32::new(0) }
    }

    /// Whether to begin bringing pages for a run.
    pub(crate) fn allows(&self) -> bool {
        self.credit.load(Ordering::Relaxed) > 0
            || (self.refused.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(TEST_ONE_IN)
    }

    /// Notes the result of some guesses: pages used minus pages wasted. A race between two threads
    /// may lose one of their notes.
    pub(crate) fn note(&self, pages: i32) {
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

    pub(crate) const fn of(&self, ahead: Ahead) -> &Trust {
        match ahead {
            Ahead::Swapped => &self.swapped,
            Ahead::Fresh => &self.fresh,
        }
    }
}
