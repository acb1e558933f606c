//! Slots that a batch takes together, so that processors that evict rarely meet at the areas' lock.

use crate::machine::{Machine, SwapSlot};
use crate::manager::Manager;
use crate::swap::area::{AreaHandle, Areas};
use arrayvec::ArrayVec;

/// The most slots that a batch can use.
pub(super) const MOST: usize = 32;

/// The slots that a batch has taken and not used, and the area that it writes to.
pub(super) struct SpareSlots<M: Machine> {
    /// Each is reserved; the next one is the last.
    slots: ArrayVec<SwapSlot, MOST>,
    /// The area of the last write: the next slot is probably in the same.
    area: Option<AreaHandle<M::Mutex>>,
}

impl<M: Machine> SpareSlots<M> {
    /// None.
    pub(super) const fn new() -> Self {
        Self { slots: ArrayVec::new_const(), area: None }
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<SwapSlot> {
        self.slots.pop()
    }

    /// Takes up to `wanted` slots.
    pub(super) fn fill(&mut self, wanted: usize, all: &Areas<M::Mutex, M::RwLock>) {
        all.reserve_some(wanted, |slot| self.slots.push(slot));
        self.slots.reverse();
    }

    /// The area of a slot.
    #[inline]
    pub(super) fn area_of(
        &mut self,
        slot: SwapSlot,
        all: &Areas<M::Mutex, M::RwLock>,
    ) -> Option<&AreaHandle<M::Mutex>> {
        if self.area.as_ref().is_none_or(|area| area.number() != slot.area) {
            self.area = all.handle(slot.area);
        }
        self.area.as_ref()
    }
}

impl<M: Machine> Manager<M> {
    /// Frees spare slots.
    pub(super) fn give_back(&self, spare: &mut SpareSlots<M>) {
        spare.slots.drain(..).for_each(|slot| self.release_and_free(slot));
    }
}
