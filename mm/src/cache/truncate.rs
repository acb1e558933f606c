//! Truncating objects and punching holes in them (spec D10, C16 REMOVE).

use crate::cache::mapping::{Mapping, Store};
use crate::error::FileError;
use crate::machine::{Frame, Machine, PAGE_SHIFT, PAGE_SIZE};
use crate::map::zap::Which;
use crate::page::PageFlags;
use crate::rmap::RegionLink;
use crate::sync::Rank;
use crate::vma::VmaFlags;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Range;

impl<M: Machine> Mapping<M> {
    /// Sets the length (`ftruncate`). Pages past the new end disappear from every mapping, private
    /// copies too; a later access there is a bus error.
    pub fn truncate(&self, bytes: u64) -> Result<(), FileError> {
        if bytes > i64::MAX as u64 {
            return Err(FileError::OutOfRange);
        }
        let _resizing = self.resizing.lock(&self.manager.order, Rank::Layout);
        let before = self.len()?;
        if bytes > before {
            // Bytes stored past the old end through a mapping are not content (spec D5).
            self.zero_tail(before)?;
        }
        self.set_store_len(bytes)?;
        if bytes < before {
            let first = bytes.div_ceil(PAGE_SIZE);
            // Unmapped twice: faults may copy a page between the first pass and its removal.
            self.unmap(first..u64::MAX, Which::Pages);
            let zeroed = self.zero_tail(bytes);
            self.drop_pages(first..u64::MAX);
            self.unmap(first..u64::MAX, Which::Pages);
            zeroed?;
        }
        Ok(())
    }

    /// Makes whole pages read as zero again (`fallocate` with `PUNCH_HOLE`). Private copies stay.
    pub fn punch(&self, indexes: Range<u64>) -> Result<(), FileError> {
        if self.is_device() {
            return Err(FileError::Unsupported);
        }
        let _resizing = self.resizing.lock(&self.manager.order, Rank::Layout);
        self.unmap(indexes.clone(), Which::Files);
        match &self.store {
            Store::Device(_) => {}
            Store::Shared(_) => self.drop_pages(indexes),
            Store::Backing(_) => {
                // A backing knows no holes: zeros are written instead.
                for index in indexes.start..indexes.end.min(self.pages()?) {
                    let _engaged = self.manager.engage();
                    let found = self.page(index)?;
                    let allowed = self.ask_to_write(found.frame);
                    if allowed.is_ok() {
                        self.manager.machine.zero(found.frame);
                        self.manager.mark_dirty(self.manager.page(found.frame));
                    }
                    self.manager.unlock_and_put(found.frame);
                    allowed?;
                }
            }
        }
        Ok(())
    }

    /// Zeroes the part of the last page that is past the end.
    pub(super) fn zero_tail(&self, bytes: u64) -> Result<(), FileError> {
        let within = (bytes & (PAGE_SIZE - 1)) as usize;
        if within == 0 {
            return Ok(());
        }
        // Before, the whole page was content. If it is not cached, it must come from the store,
        // which zeroes its own tail when its length is set.
        let _engaged = self.manager.engage();
        let Some(frame) = self.tail_page(bytes >> PAGE_SHIFT)? else { return Ok(()) };
        // The page may be mapped.
        self.manager.machine.write(frame, within, &[0; PAGE_SIZE as usize][within..]);
        self.manager.unlock_and_put(frame);
        Ok(())
    }

    /// The page that the new end cuts, locked, if its tail may be anywhere but in the backing.
    fn tail_page(&self, index: u64) -> Result<Option<Frame>, FileError> {
        match &self.store {
            Store::Device(_) => Ok(None),
            Store::Shared(_) => Ok(Some(self.page(index)?.frame)),
            Store::Backing(_) => {
                let Some(frame) = self.cached(index) else { return Ok(None) };
                self.manager.lock_page(frame);
                if self.holds(frame, index) && self.manager.page(frame).has(PageFlags::UPTODATE) {
                    return Ok(Some(frame));
                }
                self.manager.unlock_and_put(frame);
                Ok(None)
            }
        }
    }

    /// Takes pages out of the cache without writing them.
    pub(crate) fn drop_pages(&self, indexes: Range<u64>) {
        let manager = &self.manager;
        self.each_cached(indexes.clone(), |frame, index| {
            manager.lock_page(frame);
            if self.holds(frame, index) {
                // Every thread that maps the page holds its lock, except a fork that copies an
                // entry.
                while manager.page(frame).maps() > 0 {
                    self.unmap(index..index + 1, Which::Pages);
                    manager.machine.pause();
                }
                manager.mark_clean(manager.page(frame));
                self.forget(frame);
            }
            manager.unlock_page(frame);
        });
        if self.is_shared_memory() {
            self.drop_slots(indexes);
        }
    }

    /// Takes clean, unmapped pages out of the cache (Linux: `invalidate_mapping_pages`,
    /// `POSIX_FADV_DONTNEED`). The next use reads them again. Pages of shared memory have no other
    /// home and stay.
    pub fn discard_clean(&self, indexes: Range<u64>) {
        if self.is_shared_memory() {
            return;
        }
        let manager = &self.manager;
        self.each_cached(indexes, |frame, index| {
            manager.lock_page(frame);
            let page = manager.page(frame);
            // A thread that maps the page holds its lock, and a store through an entry needs the
            // page mapped. A device's stores to a pinned page are noted when the pin goes.
            let unused = page.maps() == 0 && !page.is_pinned();
            if self.holds(frame, index) && unused && !page.has(PageFlags::DIRTY) {
                self.forget(frame);
            }
            manager.unlock_page(frame);
        });
    }

    /// Gives up the slots of evicted pages.
    fn drop_slots(&self, indexes: Range<u64>) {
        let swap = &self.manager.swap;
        let drop_slot = |slot, index| {
            // A fault that brings the page back may have been faster.
            if swap.disown(slot, self.id, index) {
                self.manager.release_and_free(slot);
            }
        };
        if indexes.end.saturating_sub(indexes.start) <= swap.total() {
            for index in indexes {
                if let Some(slot) = swap.find_owner(self.id, index) {
                    drop_slot(slot, index);
                }
            }
            return;
        }
        for area in swap.statistics() {
            for slot in swap.used(area.area) {
                let owner = swap.owner(slot);
                let ours = owner.filter(|(id, at)| *id == self.id && indexes.contains(at));
                if let Some((_, index)) = ours {
                    drop_slot(slot, index);
                }
            }
        }
    }

    /// Unmaps a range of indexes from every region over the object (`unmap_mapping_range`).
    ///
    /// While this runs, entries pass from one region to another: a fork, a move or another call
    /// replaces a region. They always pass to a region with a higher number that is already in the
    /// reverse map. So this visits regions in the order of their numbers, then those that have
    /// appeared meanwhile, and no entry escapes.
    pub(crate) fn unmap(&self, indexes: Range<u64>, which: Which) {
        let mut visited = BTreeSet::new();
        loop {
            let links = self.links_over(&indexes, &visited);
            if links.is_empty() {
                return;
            }
            for link in &links {
                self.unmap_from(link, &indexes, which);
                visited.insert(link.vma.id);
            }
        }
    }

    /// The regions over a range of indexes that were not visited yet, in the order of their numbers.
    fn links_over(&self, indexes: &Range<u64>, visited: &BTreeSet<u64>) -> Vec<RegionLink<M>> {
        let regions = self.regions.lock(&self.manager.order);
        let linear = regions.linear.overlapping(indexes.clone()).map(|entry| &entry.value);
        let new = linear.chain(&regions.nonlinear).filter(|link| !visited.contains(&link.vma.id));
        let mut links: Vec<RegionLink<M>> = new.cloned().collect();
        drop(regions);
        links.sort_by_key(|link| link.vma.id);
        links
    }

    fn unmap_from(&self, link: &RegionLink<M>, indexes: &Range<u64>, which: Which) {
        let vma = &link.vma;
        // Gone by now, with all its pages.
        let Some(mm) = link.mm.upgrade() else { return };
        if vma.has(VmaFlags::NONLINEAR) {
            mm.zap_indexes(vma, indexes);
            return;
        }
        let covered = vma.indexes();
        let start = indexes.start.max(covered.start);
        let end = indexes.end.min(covered.end);
        if start < end {
            let address = |index: u64| vma.start + (index - covered.start) * PAGE_SIZE;
            // If the region is dead, other regions have its entries.
            mm.zap_live(vma, address(start)..address(end), which);
        }
    }
}
