//! Guard pages inside of a region (`MADV_GUARD_INSTALL`): an access raises SIGSEGV, and the region
//! stays one.
//!
//! A guard is an entry of the page table that no fault corrects. Like Linux's markers, it is
//! encoded as a slot of an impossible swap area: no area gets the last two numbers (spec F2).

use crate::entries::{GUARD, is_guard};
use crate::error::AdviseError;
use crate::machine::{Cursor, Entry, Machine, PAGE_SIZE, Pages, Space, VirtAddr};
use crate::mm::Mm;
use crate::rmap::family::Stores;
use crate::tlb::Gather;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use core::ops::Range;

impl<M: Machine> Mm<M> {
    /// Makes every page of a part of a region a guard, and drops the old content. Returns how far
    /// it came while the region was still in its tree.
    pub(super) fn install_guards(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        range: Range<VirtAddr>,
    ) -> Result<VirtAddr, AdviseError> {
        if vma.has(VmaFlags::LOCKED | VmaFlags::NONLINEAR) {
            return Err(AdviseError::Unsuitable);
        }
        // A fork copies the page table of a region that has a family.
        if vma.written_family().is_none() {
            let _engaged = self.manager.engage();
            self.prepare_family(vma, Stores::Begin);
            // Another region has the family.
            return Ok(range.start);
        }
        let mut from = range.start;
        while from < range.end && vma.is_alive() {
            let Some(chunk) = Pages::new(&(from..range.end), M::Space::SPAN).next() else { break };
            from = self.install_some(vma, chunk)?;
        }
        Ok(from)
    }

    /// Installs guards in a range inside one leaf table; returns how far.
    fn install_some(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        range: Range<VirtAddr>,
    ) -> Result<VirtAddr, AdviseError> {
        let mut gather = Gather::new(self);
        let engaged = self.manager.engage();
        let mut cursor = self.entries(range.clone()).map_err(|_| AdviseError::OutOfMemory)?;
        let mut at = range.start;
        // Under the cursor: a region that is changed is marked dead before its entries are.
        while at < range.end && vma.is_alive() && !gather.is_full() {
            let old = cursor.replace(at, Entry::Swap(GUARD));
            self.zapped(at, old, &mut gather);
            at = at + PAGE_SIZE;
        }
        drop(cursor);
        gather.flush();
        drop(engaged);
        gather.settle();
        Ok(at)
    }

    /// Turns the guards in a range into ordinary pages.
    pub(super) fn remove_guards(&self, range: Range<VirtAddr>) {
        for chunk in self.blocks(range) {
            let Some(mut cursor) = self.existing_entries(chunk.clone()) else { continue };
            let mut from = chunk.start;
            while from < chunk.end
                && let Some(address) = cursor.next(from)
                && address < chunk.end
            {
                if is_guard(&cursor.entry(address)) {
                    cursor.replace(address, Entry::None);
                }
                from = address + PAGE_SIZE;
            }
        }
    }
}
