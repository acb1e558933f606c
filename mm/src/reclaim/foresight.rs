//! Foreseeing stores, for machines that keep no dirty bits.
//!
//! On such a machine a page that comes back from swap for a load is mapped read-only, so that its
//! copy in swap stays good until the first store; a load and then a store cost two faults. Most
//! programs treat a page as they did before: a page that was written during its last stay is mapped
//! writable at once, at the price of writing it to swap again. Now and then one is mapped read-only
//! all the same, to learn whether that is still so.

use crate::machine::SwapSlot;
use alloc::boxed::Box;
use bytemuck::allocation::zeroed_slice_box;
use core::sync::atomic::{AtomicBool, Ordering};

/// Of so many pages that are expected to be written one is put to the test.
const TEST_ONE_IN: u32 = 8;

/// For each slot, more or less, whether its page was written during its last stay in memory.
pub(crate) struct Foresight {
    written: Box<[AtomicBool]>,
}

impl Foresight {
    pub(crate) fn new(frames: u32) -> Self {
        Self { written: zeroed_slice_box(frames.next_power_of_two() as usize * 8) }
    }

    /// Notes how a page was treated that is in `slot` now.
    pub(crate) fn learn(&self, slot: SwapSlot, written: bool) {
        self.of(slot).store(written, Ordering::Relaxed);
    }

    /// Whether the page in `slot` should be mapped writable at once; `turn` decides when it is put
    /// to the test.
    pub(crate) fn expects_store(&self, slot: SwapSlot, turn: u32) -> bool {
        self.of(slot).load(Ordering::Relaxed)
            && !slot.offset.wrapping_add(turn).is_multiple_of(TEST_ONE_IN)
    }

    fn of(&self, slot: SwapSlot) -> &AtomicBool {
        // Areas are spread, so that the same offsets of two do not meet.
        let spread = u32::from(slot.area).wrapping_mul(0x9e37_79b9);
        &self.written[(slot.offset ^ spread) as usize & (self.written.len() - 1)]
    }
}
