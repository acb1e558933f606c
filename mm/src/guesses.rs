//! Whether guesses pay: what was brought ahead is counted as used or as wasted, and where too much is
//! wasted, runs get nothing ahead any more, but for a few that are put to the test.
//!
//! A page that is used saves a fault; one that is wasted costs a read, an eviction, and the page that
//! left for it. These are about the same, so that each weighs the same here.

use crate::event::Ahead;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// So many pages more may be wasted than used, before anything is known or at any time later, until
/// nothing is brought ahead.
const CREDIT: i32 = 64;

/// While guesses do not pay, one run of so many is put to the test.
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

    /// Whether a run may begin to have pages brought for it.
    pub(crate) fn allows(&self) -> bool {
        self.credit.load(Ordering::Relaxed) > 0
            || (self.refused.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(TEST_ONE_IN)
    }

    /// Notes how some guesses turned out: pages used, less pages wasted. A race between two threads
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
