//! Predicts stores, for machines without dirty bits.
//!
//! On such a machine a page that comes back from swap for a load is mapped read-only, so that its
//! copy in swap stays valid until the first store. A load and then a store cost two faults. Most
//! programs treat a page as they did before. So a page that was written during its last stay is
//! mapped writable at once, at the price of writing it to swap again. Now and then such a page is
//! mapped read-only as a test: seldom while the tests find stores, and often while they find none.

use crate::machine::SwapSlot;
use alloc::boxed::Box;
use bytemuck::allocation::zeroed_slice_box;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The share of tests that found no store, moving: this many is all of them.
const ALL: u32 = 1 << 10;
/// How many tests the share remembers, roughly.
const MEMORY: u32 = 16;

/// One in how many pages that are expected to be written is a test, by the share of tests that found no store.
///
/// A test that finds a store costs a fault and a change of rights, which interrupts other processors. A page
/// that is wrongly mapped writable costs a write to swap, which is cheaper.
const fn test_one_in(unfounded: u32) -> u32 {
    match unfounded {
        0..64 => 64,
        64..512 => 8,
        _ => 2,
    }
}

/// For each slot, approximately, whether its page was written during its last stay in memory.
pub(crate) struct Foresight {
    written: Box<[AtomicBool]>,
    /// The share of tests that found no store.
    unfounded: AtomicU32,
}

/// What programs did with a page while it was in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// They stored to it: it got a slot with new content.
    Stored,
    /// They left it as it was in its slot.
    Kept,
}

impl Foresight {
    pub(crate) fn new(frames: u32) -> Self {
        let written = zeroed_slice_box(frames.next_power_of_two() as usize * 8);
        Self { written, unfounded: AtomicU32::new(0) }
    }

    /// Notes what programs did with the page now in `slot`.
    pub(crate) fn learn(&self, slot: SwapSlot, outcome: Outcome) {
        let was_expected = self.of(slot).load(Ordering::Relaxed);
        self.of(slot).store(outcome == Outcome::Stored, Ordering::Relaxed);
        if was_expected && outcome == Outcome::Kept {
            // Of two tests that end at the same time, one may be lost: the share is a guess.
            let before = self.unfounded.load(Ordering::Relaxed);
            self.unfounded.store(before + (ALL - before) / MEMORY, Ordering::Relaxed);
        }
    }

    /// Whether the page in `slot` should be mapped writable at once; `turn` selects the tests.
    pub(crate) fn expects_store(&self, slot: SwapSlot, turn: u32) -> bool {
        if !self.of(slot).load(Ordering::Relaxed) {
            return false;
        }
        let unfounded = self.unfounded.load(Ordering::Relaxed);
        let is_test = slot.offset.wrapping_add(turn).is_multiple_of(test_one_in(unfounded));
        if is_test {
            self.unfounded.store(unfounded - unfounded.div_ceil(MEMORY), Ordering::Relaxed);
        }
        !is_test
    }

    fn of(&self, slot: SwapSlot) -> &AtomicBool {
        // Spreads areas, so that equal offsets of two areas do not collide.
        let spread = u32::from(slot.area).wrapping_mul(0x9e37_79b9);
        &self.written[(slot.offset ^ spread) as usize & (self.written.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(offset: u32) -> SwapSlot {
        SwapSlot { area: 0, offset }
    }

    /// Pages that were written come back; returns how many of them are tests.
    fn tests(foresight: &Foresight, is_stored_to: bool) -> usize {
        (0..4096)
            .filter(|offset| {
                foresight.learn(slot(*offset), Outcome::Stored);
                let is_test = !foresight.expects_store(slot(*offset), 0);
                if is_test && !is_stored_to {
                    foresight.learn(slot(*offset), Outcome::Kept);
                }
                is_test
            })
            .count()
    }

    #[test]
    fn tests_are_as_frequent_as_they_find_something() {
        let foresight = Foresight::new(512);
        assert_eq!(tests(&foresight, true), 64, "all pages are stored to");
        assert!(tests(&foresight, false) > 1500, "none is stored to any more");
        assert!(tests(&foresight, true) < 200, "all are again");
    }
}
