//! swapoff (spec F12): brings back every page of an area.

use crate::cache::Key;
use crate::error::Refusal;
use crate::error::SwapOffError;
use crate::machine::{Cursor, Entry, Machine, PAGE_SIZE, SwapSlot, VirtAddr};
use crate::manager::Manager;
use crate::mm::Mm;
use alloc::sync::Arc;
use core::ops::Range;

/// How often to walk an area: each walk catches entries that were forked or moved during the one
/// before.
const PASSES: u32 = 64;

impl<M: Machine> Manager<M> {
    /// Removes a swap area, after bringing every page in it back to memory (`swapoff(2)`, spec F12).
    ///
    /// From the start the area gives out no slot. On an error it is in use again, and pages that came
    /// back stay in memory: [`SwapOffError::OutOfMemory`] if they do not fit there or into other areas,
    /// [`SwapOffError::Io`] if one cannot be read. Visits every address space; takes page locks, waits
    /// for I/O, and must be called without a lock.
    pub fn swap_off(&self, area: u8) -> Result<(), SwapOffError> {
        swap_off(self, area)
    }
}

/// Empties an area and removes it. If a page cannot be brought back, the area stays in use.
fn swap_off<M: Machine>(manager: &Manager<M>, area: u8) -> Result<(), SwapOffError> {
    manager.swap.stop(area).map_err(|_| SwapOffError::NoSuchArea)?;
    let result = empty_and_remove(manager, area);
    if result.is_err() {
        // The area was active a moment ago, and no other thread can have removed it.
        let _ = manager.swap.resume(area);
    }
    result
}

fn empty_and_remove<M: Machine>(manager: &Manager<M>, area: u8) -> Result<(), SwapOffError> {
    for _ in 0..PASSES {
        empty(manager, area)?;
        if manager.swap.remove(area).is_ok() {
            return Ok(());
        }
        // A thread that still holds a slot of the area may need the processor to release it.
        manager.machine.pause();
    }
    Err(SwapOffError::Busy)
}

fn empty<M: Machine>(manager: &Manager<M>, area: u8) -> Result<(), SwapOffError> {
    for mm in manager.spaces.all(&manager.order) {
        for vma in mm.overlapping(mm.layout.range.clone()) {
            mm.bring_back(vma.range(), area)?;
        }
    }
    for slot in manager.swap.used(area) {
        match manager.swap.owner(slot) {
            Some((object, index)) => bring_back_shared(manager, slot, object, index)?,
            None => leave_if_cached(manager, slot),
        }
    }
    Ok(())
}

/// Brings a page of shared memory back, unless its object is ending: then the object's end frees
/// the slot.
fn bring_back_shared<M: Machine>(
    manager: &Manager<M>,
    slot: SwapSlot,
    object: u64,
    index: u64,
) -> Result<(), SwapOffError> {
    let mapping = manager.mappings.find(&manager.order, object);
    // A handle, so that the object does not end while the page comes in.
    let Some(file) = mapping.and_then(|mapping| mapping.handle()) else { return Ok(()) };
    let _engaged = manager.engage();
    match file.page(index) {
        Ok(found) => manager.unlock_and_put(found.frame),
        // Truncated meanwhile: nothing to bring back.
        Err(Refusal::Bus) if manager.swap.owner(slot) != Some((object, index)) => {}
        Err(refusal) => return Err(refusal.into()),
    }
    Ok(())
}

/// Takes a page that is back in memory out of the swap cache, if no entry names the slot.
fn leave_if_cached<M: Machine>(manager: &Manager<M>, slot: SwapSlot) {
    let _engaged = manager.engage();
    let Some(frame) = manager.cache.find(&manager.pages, &manager.order, Key::Swap(slot)) else {
        return;
    };
    manager.lock_page(frame);
    // As long as an entry names the slot, its content is needed there.
    if manager.page(frame).slot() == Some(slot) && manager.swap.count(slot) == 1 {
        manager.free_slots(manager.leave_swap_cache(frame));
    }
    manager.unlock_and_put(frame);
}

impl From<Refusal> for SwapOffError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OutOfMemory => Self::OutOfMemory,
            _ => Self::Io,
        }
    }
}

impl<M: Machine> Mm<M> {
    /// Maps every page of a range that is in an area.
    fn bring_back(self: &Arc<Self>, range: Range<VirtAddr>, area: u8) -> Result<(), SwapOffError> {
        for chunk in self.blocks(range) {
            let mut from = chunk.start;
            while from < chunk.end {
                let found = self.next_swapped(from..chunk.end, area);
                let Some((address, _)) = found else { break };
                self.unswap(address)?;
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
