//! remap_file_pages (spec C19, J10): file pages out of order within a shared mapping.

use crate::edit::{Edit, Exclusive};
use crate::error::RemapPagesError;
use crate::machine::{Cursor, Entry, Machine, PAGE_SHIFT, PAGE_SIZE, Pages, Space, VirtAddr};
use crate::manager::NonlinearPolicy;
use crate::mm::Mm;
use crate::tlb::{After, Gather};
use crate::vma::{Vma, VmaFlags, same_object};
use alloc::sync::Arc;
use alloc::vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

/// The largest file page number that a mapping may reach.
const LAST_INDEX: u64 = (i64::MAX as u64) >> PAGE_SHIFT;

impl<M: Machine> Mm<M> {
    /// Makes a range of a shared mapping show its object from page `index` on.
    ///
    /// Address and length are rounded down to whole pages. Objects whose dirty pages are accounted
    /// get a region for each piece; shared anonymous objects get file entries in the page table,
    /// unless [`NonlinearPolicy::Regions`] is chosen.
    pub fn remap_file_pages(
        self: &Arc<Self>,
        address: VirtAddr,
        length: u64,
        index: u64,
    ) -> Result<(), RemapPagesError> {
        let start = address.page();
        let length = length & !(PAGE_SIZE - 1);
        let end = start.checked_add(length).filter(|end| *end > start);
        let range = start..end.ok_or(RemapPagesError::BadRange)?;
        let pages = length >> PAGE_SHIFT;
        if index.checked_add(pages).is_none() {
            return Err(RemapPagesError::BadRange);
        }
        let exclusive = self.exclusive();
        let vma = self.containing(start).ok_or(RemapPagesError::BadRange)?;
        let file = match &vma.file {
            Some(file) if vma.has(VmaFlags::SHARED) => file,
            _ => return Err(RemapPagesError::NotShared),
        };
        exclusive.check_followers(&vma, &range)?;
        let limit = self.manager.machine.capabilities().file_index_limit;
        let by_entries = self.manager.config.nonlinear == NonlinearPolicy::Entries
            && file.is_shared_memory()
            && range.end <= vma.end;
        if by_entries {
            if index + pages - 1 > limit {
                return Err(RemapPagesError::NotEncodable);
            }
            if exclusive.meets_seal(&range) {
                return Err(RemapPagesError::Sealed);
            }
            if vma.has(VmaFlags::NONLINEAR) || vma.index_of(start) != index {
                exclusive.make_nonlinear(&vma);
                self.enter_file_entries(&range, index)?;
            }
        } else {
            exclusive.remap_as_region(&vma, &range, index)?;
        }
        drop(exclusive);
        self.populate(range);
        Ok(())
    }

    /// Replaces every entry of a range by one that names its file page.
    fn enter_file_entries(
        &self,
        range: &Range<VirtAddr>,
        index: u64,
    ) -> Result<(), RemapPagesError> {
        let mut gather = Gather::new(self);
        for chunk in Pages::new(range, M::Space::SPAN) {
            let mut at = chunk.start;
            while at < chunk.end {
                let _engaged = self.manager.engage();
                let mut cursor =
                    self.entries(at..chunk.end).map_err(|_| RemapPagesError::OutOfMemory)?;
                while at < chunk.end && !gather.is_full() {
                    let place = index + ((at - range.start) >> PAGE_SHIFT);
                    let old = cursor.replace(at, Entry::File(place));
                    if let Entry::Present { frame, accessed, dirty, .. } = old {
                        let fate = self.drop_mapping(frame, accessed, dirty, &mut gather);
                        gather.add(at, frame, fate, After::Drop);
                    }
                    at = at + PAGE_SIZE;
                }
                drop(cursor);
                gather.flush();
            }
        }
        Ok(())
    }
}

impl<M: Machine> Exclusive<'_, M> {
    /// The range may extend into regions that follow directly and differ only in their place in the
    /// file.
    fn check_followers(
        &self,
        first: &Arc<Vma<M>>,
        range: &Range<VirtAddr>,
    ) -> Result<(), RemapPagesError> {
        let mut end = first.end;
        while end < range.end {
            let next = self.mm().containing(end).ok_or(RemapPagesError::BadRange)?;
            if next.flags != first.flags || !same_object(&next.file, &first.file) {
                return Err(RemapPagesError::BadRange);
            }
            end = next.end;
        }
        Ok(())
    }

    /// Moves a region from the ordered to the unordered regions of its object. Its entries stay: an
    /// empty entry means the linear place.
    fn make_nonlinear(&self, vma: &Arc<Vma<M>>) {
        if vma.has(VmaFlags::NONLINEAR) {
            return;
        }
        let mut nonlinear = vma.part(self.mm().manager.vma_id(), vma.range());
        nonlinear.flags |= VmaFlags::NONLINEAR;
        self.apply(&Edit { out: vec![vma.clone()], into: vec![Arc::new(nonlinear)] });
    }

    /// Maps the piece as a region of its own (J10). It is a new mapping, which checks what `mmap` checks, in the
    /// same order.
    fn remap_as_region(
        &self,
        vma: &Arc<Vma<M>>,
        range: &Range<VirtAddr>,
        index: u64,
    ) -> Result<(), RemapPagesError> {
        let length = range.end - range.start;
        let flags = self.piece_flags(vma);
        if vma.has(VmaFlags::LOCKED) && self.mm().limits.locked.load(Ordering::Relaxed) == 0 {
            return Err(RemapPagesError::NotPermitted);
        }
        if !self.mm().may_lock(flags, length) {
            return Err(RemapPagesError::LockLimit);
        }
        if index + (length >> PAGE_SHIFT) > LAST_INDEX {
            return Err(RemapPagesError::TooFar);
        }
        self.room_for(2).map_err(|_| RemapPagesError::Unmappable)?;
        if self.meets_seal(range) {
            return Err(RemapPagesError::Sealed);
        }
        let id = self.mm().manager.vma_id();
        let mut piece = Vma::new(id, range.clone(), flags, index, vma.file.clone());
        if vma.has(VmaFlags::PFNMAP) {
            // A device's memory never leaves.
            piece.flags.remove(VmaFlags::LOCKS);
        }
        if let Some(file) = &piece.file {
            file.opened();
        }
        self.unmap(range);
        self.insert(piece);
        Ok(())
    }

    /// The flags of a piece of a region. What is not said here is as in a fresh mapping: advice is reset, and a
    /// lock on fault is one at once.
    fn piece_flags(&self, vma: &Vma<M>) -> VmaFlags {
        let kept = VmaFlags::ACCESS
            | VmaFlags::SHARED
            | VmaFlags::MAYREAD
            | VmaFlags::MAYWRITE
            | VmaFlags::MAYEXEC
            | VmaFlags::MAYSHARE
            | VmaFlags::LOCKED;
        let device = if vma.has(VmaFlags::PFNMAP) { VmaFlags::DEVICE } else { VmaFlags::empty() };
        let locks = VmaFlags::from_bits_truncate(self.mm().locks_new.load(Ordering::Relaxed));
        vma.flags & kept | locks | device
    }
}
