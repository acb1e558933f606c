//! swapoff (spec F12): bringing back every page of an area.

use crate::cache::Key;
use crate::error::SwapOffError;
use crate::machine::{Cursor, Entry, Frame, Machine, PAGE_SIZE, Pages, Space, SwapSlot, VirtAddr};
use crate::manager::Manager;
use crate::mm::Mm;
use alloc::sync::Arc;
use core::ops::Range;

/// Empties an area and removes it. If a page cannot be brought back, the area stays in use.
pub(crate) fn swap_off<M: Machine>(manager: &Manager<M>, area: u8) -> Result<(), SwapOffError> {
    manager.swap.stop(area).map_err(|_| SwapOffError::NoSuchArea)?;
    let gone = |()| manager.swap.remove(area).map_err(|_| SwapOffError::OutOfMemory);
    match empty(manager, area).and_then(gone) {
        Ok(()) => Ok(()),
        Err(error) => {
            // The area was active a moment ago, and nobody else can have removed it.
            let _ = manager.swap.resume(area);
            Err(error)
        }
    }
}

fn empty<M: Machine>(manager: &Manager<M>, area: u8) -> Result<(), SwapOffError> {
    for mm in manager.spaces.all(&manager.order) {
        for vma in mm.overlapping(mm.layout.range.clone()) {
            mm.bring_back(vma.range(), area)?;
        }
    }
    for slot in manager.swap.used(area) {
        if let Some((object, index)) = manager.swap.owner(slot) {
            let Some(mapping) = manager.mappings.find(&manager.order, object) else { continue };
            let found = mapping.page(index).map_err(|_| SwapOffError::OutOfMemory)?;
            manager.unlock_and_put(found.frame);
            continue;
        }
        let key = Key::Swap(slot);
        if let Some(frame) = manager.cache.find(&manager.pages, &manager.order, key) {
            manager.lock_page(frame);
            manager.pages.wait_writeback(&*manager.machine, frame);
            if manager.page(frame).slot() == Some(slot) {
                manager.leave_swap_cache(frame);
            }
            manager.unlock_and_put(frame);
        }
    }
    Ok(())
}

impl<M: Machine> Mm<M> {
    /// Maps every page of a range that is in an area.
    fn bring_back(self: &Arc<Self>, range: Range<VirtAddr>, area: u8) -> Result<(), SwapOffError> {
        for chunk in Pages::new(&range, M::Space::SPAN) {
            let mut from = chunk.start;
            while from < chunk.end {
                let found = self.next_swapped(from..chunk.end, area);
                let Some((address, _)) = found else { break };
                self.unswap(address).map_err(|_| SwapOffError::OutOfMemory)?;
                from = address + PAGE_SIZE;
            }
        }
        Ok(())
    }

    fn next_swapped(&self, range: Range<VirtAddr>, area: u8) -> Option<(VirtAddr, SwapSlot)> {
        let cursor = self.existing_entries(range.clone())?;
        let mut from = range.start;
        while from < range.end {
            let address = cursor.next(from)?;
            if let Entry::Swap(slot) = cursor.entry(address)
                && slot.area == area
            {
                return Some((address, slot));
            }
            from = address + PAGE_SIZE;
        }
        None
    }
}

impl<M: Machine> Manager<M> {
    /// The page of a slot, with a reference: from the swap cache or read now.
    pub(crate) fn find_or_read(
        &self,
        slot: SwapSlot,
    ) -> Result<Option<Frame>, crate::fault::Refusal> {
        match self.cache.find(&self.pages, &self.order, Key::Swap(slot)) {
            Some(frame) => Ok(Some(frame)),
            None => self.read_into_swap_cache(slot),
        }
    }
}
