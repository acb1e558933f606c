//! mseal: regions that may not change any more.

use crate::edit::{Edit, Exclusive};
use crate::error::SealError;
use crate::machine::{Machine, VirtAddr};
use crate::map::{Advice, pages_up};
use crate::mm::Mm;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use alloc::vec;
use core::ops::Range;

impl<M: Machine> Mm<M> {
    /// Forbids to unmap, move or change the mappings of a range (`mseal(2)`), for good. From its return on,
    /// munmap, mprotect, mremap, fixed mappings, remap_file_pages, a shrinking heap, and advice that drops what
    /// the program may not store to are refused with `EPERM`. A child of a fork inherits the seals; the end of
    /// the address space ignores them.
    ///
    /// All or nothing: a range with a gap is not sealed. Takes the exclusive right to the address space.
    pub fn seal(self: &Arc<Self>, address: VirtAddr, length: u64) -> Result<(), SealError> {
        if !address.is_page_aligned() {
            return Err(SealError::Unaligned);
        }
        let length = pages_up(length).ok_or(SealError::Wraps)?;
        let end = address.checked_add(length).ok_or(SealError::Wraps)?;
        let exclusive = self.exclusive();
        let covered = self.each_region(address..end, |_, part| Ok::<_, SealError>(part.end))?;
        if !covered {
            return Err(SealError::Unmapped);
        }
        self.each_region(address..end, |vma, part| {
            let (end, flags) = (part.end, vma.flags | VmaFlags::SEALED);
            if flags != vma.flags {
                let sealed = exclusive.reflag(vma, part, flags);
                sealed.map_err(|_| SealError::TooManyRegions)?;
            }
            Ok(end)
        })?;
        drop(exclusive);
        self.await_advice(address..end);
        Ok(())
    }

    /// Waits for advice that found a region alive before it was replaced. It works without the exclusive right,
    /// but looks at the region under each entry's lock, and notes there what it has to flush.
    fn await_advice(&self, range: Range<VirtAddr>) {
        self.blocks(range).for_each(|block| drop(self.existing_entries(block)));
        self.await_flushes();
    }
}

impl<M: Machine> Exclusive<'_, M> {
    /// Whether a part of a range, which is about to be unmapped, is sealed. No other thread can seal it before
    /// the caller gives up its right.
    ///
    /// A region that begins below the range stays cut in two at the range's start, as Linux leaves it: it has
    /// split the first region by the time that it meets a seal further up.
    pub(super) fn meets_seal(&self, range: &Range<VirtAddr>) -> bool {
        let mm = self.mm();
        let is_sealed = mm.regions.read(&mm.manager.order, |tree| {
            tree.overlapping(range.clone()).any(|vma| vma.has(VmaFlags::SEALED))
        });
        let first = mm.containing(range.start).filter(|vma| vma.start < range.start);
        if let Some(first) = first.filter(|vma| is_sealed && !vma.has(VmaFlags::SEALED)) {
            self.cut(&first, range.start);
        }
        is_sealed
    }

    fn cut(&self, vma: &Arc<Vma<M>>, at: VirtAddr) {
        let part = |range| Arc::new(vma.part(self.mm().manager.vma_id(), range));
        let into = vec![part(vma.start..at), part(at..vma.end)];
        let edit = Edit { out: vec![vma.clone()], into };
        self.apply(&edit);
        self.tell_file(&edit);
    }
}

impl<M: Machine> Vma<M> {
    /// Whether a seal forbids this advice: it drops anonymous memory, or what a child would see of it, and the
    /// program may not store there. What it may store to, it may as well drop.
    pub(super) fn is_sealed_against(&self, advice: Advice) -> bool {
        let drops = matches!(
            advice,
            Advice::DontNeed
                | Advice::DontNeedLocked
                | Advice::Free
                | Advice::Remove
                | Advice::DontFork
                | Advice::WipeOnFork
                | Advice::GuardInstall
        );
        drops && self.has(VmaFlags::SEALED) && !self.has(VmaFlags::WRITE) && self.file.is_none()
    }
}
