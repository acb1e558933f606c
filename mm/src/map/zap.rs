//! Taking pages out of the page table (spec E5).

use crate::machine::{Cursor, Entry, Fate, Frame, Machine, PAGE_SIZE, Pages, Space, VirtAddr};
use crate::map::guard::GUARD;
use crate::mm::{Kind, Mm, PageCursor};
use crate::page::PageFlags;
use crate::tlb::{After, Gather};
use crate::vma::{Vma, VmaFlags};
use core::ops::Range;
use core::sync::atomic::Ordering;

/// Which pages of a region are taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Everything, for a region that goes.
    All,
    /// Every page; a nonlinear region still knows which page of the file belongs where.
    Pages,
    /// Likewise, the pages of the file only and not the private copies.
    Files,
}

impl<M: Machine> Mm<M> {
    /// Takes everything in a range of a region out of the page table.
    pub(crate) fn zap(&self, vma: &Vma<M>, range: Range<VirtAddr>) {
        self.zap_some(vma, range, Which::All);
    }

    /// Takes some pages in a range of a region out of the page table.
    pub(crate) fn zap_some(&self, vma: &Vma<M>, range: Range<VirtAddr>, which: Which) {
        self.zap_where(range, |address, entry| match which {
            Which::All => Some(Entry::None),
            Which::Files if !self.shows_file_page(entry) => None,
            _ => Some(self.place_of(vma, address, entry)),
        });
    }

    /// Like [`zap_some`](Self::zap_some), for someone who found the region through a reverse map:
    /// where it is not in its tree any more, the addresses may mean something else by now.
    pub(crate) fn zap_found(&self, vma: &Vma<M>, range: Range<VirtAddr>, which: Which) {
        self.zap_where(range, |address, entry| {
            let ours = vma.is_alive() && (which != Which::Files || self.shows_file_page(entry));
            ours.then(|| self.place_of(vma, address, entry))
        });
    }

    /// Takes the pages with these indexes out of a nonlinear region, wherever they are.
    pub(crate) fn zap_indexes(&self, vma: &Vma<M>, indexes: &Range<u64>) {
        self.zap_where(vma.range(), |address, entry| {
            if !vma.is_alive() {
                return None;
            }
            let index = self.manager.page(entry.frame()?).index();
            indexes.contains(&index).then(|| self.place_of(vma, address, entry))
        });
    }

    /// What stays where a page of a nonlinear region was: which page of the file it is (spec E5).
    fn place_of(&self, vma: &Vma<M>, address: VirtAddr, entry: &Entry) -> Entry {
        match entry {
            Entry::Swap(GUARD) => *entry,
            Entry::Present { frame, .. } if vma.has(VmaFlags::NONLINEAR) => {
                let index = self.manager.page(*frame).index();
                if vma.index_of(address) == index { Entry::None } else { Entry::File(index) }
            }
            Entry::File(_) => *entry,
            _ => Entry::None,
        }
    }

    fn shows_file_page(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Present { frame, .. } => {
                !self.manager.is_zero_frame(*frame) && !self.manager.page(*frame).is_anon()
            }
            Entry::File(_) => true,
            _ => false,
        }
    }

    fn zap_where(&self, range: Range<VirtAddr>, take: impl Fn(VirtAddr, &Entry) -> Option<Entry>) {
        let mut gather = Gather::new(self);
        let engaged = self.manager.engage();
        for chunk in Pages::new(&range, M::Space::SPAN) {
            let mut from = chunk.start;
            while from < chunk.end {
                from = match self.existing_entries(from..chunk.end) {
                    Some(mut cursor) => {
                        self.zap_chunk(&mut cursor, from..chunk.end, &take, &mut gather)
                    }
                    None => chunk.end,
                };
                gather.flush_if_full();
            }
        }
        gather.flush();
        drop(engaged);
        gather.settle();
    }

    /// Works through a locked range until its end or until the batch is full; returns how far.
    fn zap_chunk(
        &self,
        cursor: &mut PageCursor<'_, M>,
        range: Range<VirtAddr>,
        take: &impl Fn(VirtAddr, &Entry) -> Option<Entry>,
        gather: &mut Gather<'_, M>,
    ) -> VirtAddr {
        let mut from = range.start;
        while from < range.end {
            if gather.is_full() {
                return from;
            }
            let Some(address) = cursor.next(from) else { return range.end };
            if let Some(instead) = take(address, &cursor.entry(address)) {
                let old = cursor.replace(address, instead);
                self.zapped(address, old, gather);
            }
            from = address + PAGE_SIZE;
        }
        range.end
    }

    /// Undoes what an entry stood for, after it was taken out.
    pub(crate) fn zapped(&self, address: VirtAddr, old: Entry, gather: &mut Gather<'_, M>) {
        match old {
            Entry::None | Entry::File(_) | Entry::Swap(GUARD) => {}
            Entry::Swap(slot) => self.manager.release_slot(slot),
            Entry::Present { frame, .. } if self.manager.is_zero_frame(frame) => {
                gather.add(address, frame, Fate::Kept, After::Keep);
            }
            Entry::Present { frame, accessed, dirty, .. } => {
                let fate = self.drop_mapping(frame, accessed, dirty);
                gather.add(address, frame, fate, After::Drop);
            }
        }
    }

    /// Undoes an entry's mapping of a page, whose reference the entry still has; says whether
    /// anyone will need the content after that reference is dropped.
    pub(crate) fn drop_mapping(&self, frame: Frame, accessed: bool, dirty: bool) -> Fate {
        let page = self.manager.page(frame);
        let anon = page.is_anon();
        self.count_rss(if anon { Kind::Anon } else { Kind::File }, -1);
        let before = page.maps.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "{frame:?} was not mapped");
        if !anon {
            // The content belongs to the file: what the entry knew of it is kept (spec D9).
            if dirty {
                page.set(PageFlags::DIRTY);
            }
            if accessed {
                page.set(PageFlags::REFERENCED);
            }
            return Fate::Kept;
        }
        if before == 1 && self.drop_from_swap_cache(frame) && page.refs() == 1 {
            return Fate::Freed;
        }
        Fate::Kept
    }

    /// Takes an anonymous page that is mapped no more out of the swap cache, if nobody else needs
    /// it there; returns whether it is in no cache now.
    fn drop_from_swap_cache(&self, frame: Frame) -> bool {
        let page = self.manager.page(frame);
        let Some(slot) = page.slot() else { return true };
        if !page.try_lock() {
            return false;
        }
        let dropped = self.manager.drop_if_only_cached(frame, slot);
        self.manager.unlock_page(frame);
        dropped
    }
}
