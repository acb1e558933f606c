//! Predicts stores, for machines without dirty bits.
//!
//! On such a machine a page that comes back from swap for a load is mapped read-only, so that its
//! copy in swap stays valid until the first store. A load and then a store cost two faults. Most
//! programs treat a page as they did before. So a page that was written during its last stay is
//! mapped writable at once, at the price of writing it to swap again. Now and then such a page is
//! mapped read-only as a test.

use crate::machine::SwapSlot;
use alloc::boxed::Box;
use bytemuck::allocation::zeroed_slice_box;
use core::sync::atomic::{AtomicBool, Ordering};

/// One in this many pages that are expected to be written is a test.
const TEST_ONE_IN: u32 = 8;

/// For each slot, approximately, whether its page was written during its last stay in memory.
pub(crate) struct Foresight {
    written: Box<[AtomicBool]>,
}

impl Foresight {
    pub(crate) fn new(frames: u32) -> Self {
        Self { written: zeroed_slice_box(frames.next_power_of_two() as usize * 8) }
    }

    /// Notes whether the page now in `slot` was written.
    pub(crate) fn learn(&self, slot: SwapSlot, written: bool) {
        self.of(slot).store(written, Ordering::Relaxed);
    }

    /// Whether the page in `slot` should be mapped writable at once; `turn` selects the tests.
    pub(crate) fn expects_store(&self, slot: SwapSlot, turn: u32) -> bool {
        self.of(slot).load(Ordering::Relaxed)
            && !slot.offset.wrapping_add(turn).is_multiple_of(TEST_ONE_IN)
    }

    fn of(&self, slot: SwapSlot) -> &AtomicBool {
        // Spreads areas, so that equal offsets of two areas do not collide.
        let spread = u32::from(slot.area).wrapping_mul(0x9e37_79b9);
        &self.written[(slot.offset ^ spread) as usize & (self.written.len() - 1)]
    }
}
