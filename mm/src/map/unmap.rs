//! munmap (spec C11).

use crate::edit::{Edit, Exclusive};
use crate::error::UnmapError;
use crate::machine::{Machine, PAGE_SHIFT, Space, VirtAddr};
use crate::map::pages_up;
use crate::map::region::remainders;
use crate::mm::Mm;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

impl<M: Machine> Mm<M> {
    /// Unmaps all mappings in a range; the length is rounded up to whole pages.
    ///
    /// Nothing mapped is not an error. An error unmaps nothing.
    pub fn munmap(self: &Arc<Self>, address: VirtAddr, length: u64) -> Result<(), UnmapError> {
        if !address.is_page_aligned() {
            return Err(UnmapError::Unaligned);
        }
        let end = self.layout.range.end;
        let length = pages_up(length).filter(|length| *length > 0);
        let length = length.ok_or(UnmapError::OutOfRange)?;
        if address > end || length > end - address {
            return Err(UnmapError::OutOfRange);
        }
        let range = address..address + length;
        let exclusive = self.exclusive();
        if exclusive.splits(&range) && exclusive.room_for(1).is_err() {
            return Err(UnmapError::TooManyRegions);
        }
        if exclusive.meets_seal(&range) {
            return Err(UnmapError::Sealed);
        }
        exclusive.unmap(&range);
        Ok(())
    }

    /// Unmaps what shows an object in a range, as one mapping of the object from its page 0 would (`shmdt(2)`);
    /// returns whether there was any. Sealed regions stay, without an error, as on Linux.
    pub fn unmap_object(self: &Arc<Self>, range: Range<VirtAddr>, object: u64) -> bool {
        let exclusive = self.exclusive();
        let shows = |vma: &&Arc<Vma<M>>| {
            vma.start >= range.start
                && vma.file.as_ref().is_some_and(|file| file.id == object)
                && vma.pgoff == (vma.start - range.start) >> PAGE_SHIFT
        };
        let regions = self.overlapping(range.clone());
        let parts: Vec<_> =
            regions.iter().filter(shows).map(|vma| (vma.range(), vma.flags)).collect();
        for (part, _) in parts.iter().filter(|(_, flags)| !flags.contains(VmaFlags::SEALED)) {
            exclusive.unmap(part);
        }
        !parts.is_empty()
    }
}

impl<M: Machine> Exclusive<'_, M> {
    /// Whether unmapping a range cuts one region in two.
    pub(super) fn splits(&self, range: &Range<VirtAddr>) -> bool {
        self.mm()
            .containing(range.start)
            .is_some_and(|vma| vma.start < range.start && range.end < vma.end)
    }

    /// Unmaps a page-aligned range: takes the regions out of the tree and the reverse maps, then
    /// the pages out of the page table, then frees its empty levels.
    pub(crate) fn unmap(&self, range: &Range<VirtAddr>) {
        let mm = self.mm();
        let mut left = range.clone();
        loop {
            let out = mm.overlapping_first(&left);
            let Some(last) = out.last() else { break };
            let piece = left.start..last.end.min(left.end);
            left.start = piece.end;
            self.unmap_regions(out, &piece);
        }
        if left.start > range.start {
            mm.space.prune(self.hole_around(range), range.clone());
        }
    }

    /// Unmaps a range's part of regions that all overlap it.
    fn unmap_regions(&self, out: Vec<Arc<Vma<M>>>, range: &Range<VirtAddr>) {
        let mm = self.mm();
        let mut into = Vec::new();
        for vma in &out {
            into.extend(remainders(vma, range, || mm.manager.vma_id()));
        }
        let edit = Edit { out, into };
        self.apply(&edit);
        for vma in &edit.out {
            let part = vma.start.max(range.start)..vma.end.min(range.end);
            mm.zap(part.clone());
            if vma.has(VmaFlags::ACCOUNT) {
                mm.manager.uncharge((part.end - part.start) >> PAGE_SHIFT);
            }
            if let Some(file) = &vma.file {
                match (vma.start < range.start, range.end < vma.end) {
                    (true, true) => file.opened(),
                    (false, false) => file.closed(),
                    _ => {}
                }
            }
        }
    }

    /// The unmapped addresses around an unmapped range (spec E6).
    pub(crate) fn hole_around(&self, range: &Range<VirtAddr>) -> Range<VirtAddr> {
        let mm = self.mm();
        mm.regions.read(&mm.manager.order, |tree| {
            let start = tree.previous(range.start).map_or(mm.layout.range.start, |vma| vma.end);
            let end = tree.find(range.end).map_or(mm.layout.range.end, |vma| vma.start);
            start..end
        })
    }
}
