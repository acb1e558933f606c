//! Claims of slots: a fault reads a slot that only one entry names past the swap cache.

use super::{Area, Areas, UnusedSlot};
use alloc::sync::Arc;
use lock_api::{RawMutex, RawRwLock};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, Part, SwapSlot};

/// A second reference to a slot that had one, with its area: see [`Areas::claim`].
#[must_use = "a claim is a reference: take the slot, or give the claim up"]
pub(crate) struct Claim<M: RawMutex> {
    area: Arc<Area<M>>,
    slot: SwapSlot,
}

impl<M: RawMutex> Claim<M> {
    /// Hints that the slot is about to be read.
    pub(crate) fn prefetch(&self) {
        self.area.device.prefetch(self.slot.offset, Part::Content);
    }

    /// Reads the content of the slot. The device may be slow.
    pub(crate) fn read(&self, page: &mut PageBytes) -> Result<(), IoError> {
        self.area.read(self.slot.offset, page)
    }

    /// Drops the claim and the slot's own reference together, unless others have come: then the
    /// claim stays.
    pub(crate) fn take(self) -> Result<UnusedSlot<M>, Self> {
        if self.area.slots.drop_claimed(self.slot.offset) {
            Ok(UnusedSlot { area: self.area, offset: self.slot.offset })
        } else {
            Err(self)
        }
    }

    /// The slot.
    pub(crate) const fn slot(&self) -> SwapSlot {
        self.slot
    }
}

impl<M: RawMutex, W: RawRwLock> Areas<M, W> {
    /// Adds a reference to a slot that has exactly one: that of the only entry that names it. Then its
    /// page is not cached, and no shared object owns it. If the entry changed a moment ago, it is
    /// another user's; the caller looks at the entry again before it takes the slot.
    ///
    /// Until the claim is dropped nobody else is the slot's only user, so its content stays.
    pub(crate) fn claim(&self, slot: SwapSlot) -> Option<Claim<M>> {
        let area = self.area(slot.area)?;
        area.device.prefetch(slot.offset, Part::State);
        area.slots.claim(slot.offset).then_some(Claim { area, slot })
    }
}
