//! mseal: regions that may not change any more.

use crate::error::SealError;
use crate::machine::{Machine, VirtAddr};
use crate::map::pages_up;
use crate::mm::Mm;
use crate::vma::VmaFlags;
use alloc::sync::Arc;

impl<M: Machine> Mm<M> {
    /// Forbids the program to unmap, move or change the mappings of a range. The verbs do not check
    /// this, since a kernel's own changes are not refused. The embedder's calls check it by
    /// [`is_sealed`](Self::is_sealed).
    pub fn seal(self: &Arc<Self>, address: VirtAddr, length: u64) -> Result<(), SealError> {
        if !address.is_page_aligned() {
            return Err(SealError::Unaligned);
        }
        let length = pages_up(length).ok_or(SealError::Wraps)?;
        let end = address.checked_add(length).ok_or(SealError::Wraps)?;
        let exclusive = self.exclusive();
        // All or nothing.
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
        Ok(())
    }

    /// Whether a part of a range is sealed.
    pub fn is_sealed(&self, address: VirtAddr, length: u64) -> bool {
        let end = pages_up(length).and_then(|length| address.checked_add(length));
        let range = address.page()..end.unwrap_or(self.layout.range.end);
        self.regions.read(&self.manager.order, |tree| {
            tree.overlapping(range).any(|vma| vma.has(VmaFlags::SEALED))
        })
    }
}
