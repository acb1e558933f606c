//! Slots that a batch takes together, so that processors that evict rarely meet at the areas' lock.

use crate::machine::{Machine, SwapSlot};
use crate::manager::Manager;
use crate::page::PageFlags;
use crate::reclaim::batch::{Batch, State, Victim};
use arrayvec::ArrayVec;

/// While fewer slots are free, none is taken that might stay unused: another batch may need it.
const PLENTY: u64 = 4096;

/// The slots that a batch has taken and not used, each with one reference; the next one last.
pub(super) struct SpareSlots(ArrayVec<SwapSlot, { SpareSlots::MOST }>);

impl SpareSlots {
    /// The most slots that a batch can use.
    pub(super) const MOST: usize = 32;

    /// None.
    pub(super) const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    pub(super) fn take(&mut self) -> Option<SwapSlot> {
        self.0.pop()
    }
}

impl<M: Machine> Batch<'_, M> {
    /// Takes slots for the pages that the batch is about to write to new ones, if nothing intervenes.
    pub(super) fn take_slots(&mut self) {
        let manager = self.manager;
        let needs_slot = |victim: &&Victim<M>| {
            let page = manager.page(victim.frame);
            matches!(victim.state, State::Clean(_))
                && page.is_anon()
                && !page.has(PageFlags::LAZY_FREE)
                && page.slot().is_none()
        };
        let wanted = self.victims.iter().filter(needs_slot).count();
        if wanted > 1 && manager.swap.free() >= PLENTY {
            let slots = &mut self.spare.0;
            manager.swap.allocate_some(wanted, |slot| slots.push(slot));
            slots.reverse();
        }
    }

    /// Gives back what was not used.
    pub(super) fn return_slots(&mut self) {
        self.manager.give_back(&mut self.spare);
    }
}

impl<M: Machine> Manager<M> {
    /// Frees spare slots.
    pub(super) fn give_back(&self, spare: &mut SpareSlots) {
        spare.0.drain(..).for_each(|slot| self.release_and_free(slot));
    }
}
