//! Taking pages out of the page table (spec E5).

use crate::entries::GUARD;
use crate::machine::{Cursor, Entry, Fate, Frame, Machine, PAGE_SIZE, VirtAddr};
use crate::mm::{Kind, Mm};
use crate::page::PageFlags;
use crate::pending::Noted;
use crate::tlb::{After, Gather};
use crate::vma::{Vma, VmaFlags};
use core::ops::{ControlFlow, Range};
use core::sync::atomic::Ordering;

/// Which pages of a region are taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Every page; a nonlinear region keeps its file places.
    Pages,
    /// The same, but only pages of the file, not private copies.
    Files,
}

/// What becomes of an entry.
enum Zap {
    /// This entry replaces it.
    Take(Entry),
    /// It stays.
    Leave,
    /// It no longer belongs to the caller's region, and neither do those that follow.
    Stop,
}

impl<M: Machine> Mm<M> {
    /// Takes every page in a range, whose region has left its tree, out of the page table.
    pub(crate) fn zap(&self, range: Range<VirtAddr>) {
        self.zap_where(range, |_, _| Zap::Take(Entry::None));
    }

    /// Takes pages in a range of a region out of the page table. Once the region has left its tree,
    /// the addresses may belong to another region: returns how far it came before that.
    pub(crate) fn zap_live(&self, vma: &Vma<M>, range: Range<VirtAddr>, which: Which) -> VirtAddr {
        self.zap_where(range, |address, entry| match which {
            _ if !vma.is_alive() => Zap::Stop,
            Which::Files if !self.shows_file_page(entry) => Zap::Leave,
            _ => Zap::Take(self.place_of(vma, address, entry)),
        })
    }

    /// Takes the pages with these indexes out of a nonlinear region, wherever they are.
    pub(crate) fn zap_indexes(&self, vma: &Vma<M>, indexes: &Range<u64>) {
        self.zap_where(vma.range(), |address, entry| {
            if !vma.is_alive() {
                return Zap::Stop;
            }
            let index = entry.frame().map(|frame| self.manager.page(frame).index());
            if index.is_some_and(|index| indexes.contains(&index)) {
                Zap::Take(self.place_of(vma, address, entry))
            } else {
                Zap::Leave
            }
        });
    }

    /// Makes the pages in a range of a region read as zero or as the file again (`MADV_DONTNEED`);
    /// returns how far it came while the region was still in its tree.
    ///
    /// A pinned page loses its content too, but the page stays: the device, or a system call that
    /// got this address, goes on using it.
    pub(crate) fn discard(&self, vma: &Vma<M>, range: Range<VirtAddr>) -> VirtAddr {
        let mut pinned = false;
        let reached = self.zap_where(range.clone(), |address, entry| {
            if !vma.is_alive() {
                return Zap::Stop;
            }
            if self.stays_for_pin(vma, entry) {
                pinned = true;
                return Zap::Leave;
            }
            Zap::Take(self.place_of(vma, address, entry))
        });
        if pinned && vma.file.is_none() {
            let mut from = range.start;
            while let Some((address, _)) = self.next_entry(from..reached) {
                self.wipe_pinned(vma, address..address + PAGE_SIZE);
                from = address + PAGE_SIZE;
            }
        }
        reached
    }

    /// Whether an entry names a pinned page whose content does not come from a file.
    fn stays_for_pin(&self, vma: &Vma<M>, entry: &Entry) -> bool {
        let is_source = vma.file.is_none() || vma.has(VmaFlags::SHARED);
        let page = entry.frame().filter(|frame| !self.manager.is_bare(*frame));
        is_source && page.is_some_and(|frame| self.manager.page(frame).is_pinned())
    }

    /// Fills the page of one address with zeros, if it is pinned.
    fn wipe_pinned(&self, vma: &Vma<M>, page: Range<VirtAddr>) {
        let manager = &self.manager;
        let machine = &*manager.machine;
        // Calls `note` with the page's entry locked.
        let pinned = |note: &mut dyn FnMut(Frame)| {
            let cursor = self.existing_entries(page.clone())?;
            let entry = cursor.entry(page.start);
            let stays = vma.is_alive() && self.stays_for_pin(vma, &entry);
            let frame = entry.frame().filter(|_| stays)?;
            note(frame);
            Some(frame)
        };
        let _engaged = manager.engage();
        let Some(frame) = pinned(&mut |frame| manager.page(frame).hold(machine)) else { return };
        // The kernel's own stores hold the page lock, and so a fork has to wait.
        manager.lock_page(frame);
        // Noted like a change of the entry, so that a seal waits for the zeros.
        let mut noted = Noted::default();
        let still = pinned(&mut |_| self.pending.note(&mut noted, page.start, machine));
        if still == Some(frame) {
            machine.zero(frame);
            manager.mark_dirty(manager.page(frame));
        }
        if still.is_some() {
            self.pending.flushed(noted, core::iter::once(page.start), machine);
        }
        manager.unlock_and_put(frame);
    }

    /// The entry that replaces a page of a nonlinear region: the page's place in the file (spec
    /// E5).
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
                !self.manager.is_zero_frame(*frame)
                    && self.manager.normal_page(*frame).is_none_or(|page| !page.is_anon())
            }
            Entry::File(_) => true,
            _ => false,
        }
    }

    /// Goes through the entries of a range and takes out those that `choose` selects; returns where
    /// it stopped.
    fn zap_where(
        &self,
        range: Range<VirtAddr>,
        mut choose: impl FnMut(VirtAddr, &Entry) -> Zap,
    ) -> VirtAddr {
        let mut gather = Gather::new(self);
        let engaged = self.manager.engage();
        let reached = gather.each_entry(range, |gather, cursor, address, entry| {
            match choose(address, &entry) {
                Zap::Stop => return ControlFlow::Break(()),
                Zap::Leave => {}
                Zap::Take(instead) => {
                    let old = cursor.replace(address, instead);
                    self.zapped(address, old, gather);
                }
            }
            ControlFlow::Continue(())
        });
        gather.flush();
        drop(engaged);
        gather.settle();
        reached
    }

    /// Releases what an entry referred to, after it was taken out.
    pub(crate) fn zapped(&self, address: VirtAddr, old: Entry, gather: &mut Gather<'_, M>) {
        match old {
            Entry::None | Entry::File(_) | Entry::Swap(GUARD) => {}
            Entry::Swap(slot) => gather.free_later(self.manager.release_slot(slot)),
            Entry::Present { frame, .. } if self.manager.is_bare(frame) => {
                gather.add(address, frame, Fate::Kept, After::Keep);
            }
            Entry::Present { frame, accessed, dirty, .. } => {
                self.dropped.fetch_add(1, Ordering::SeqCst);
                let fate = self.drop_mapping(frame, accessed, dirty, gather);
                gather.add(address, frame, fate, After::Drop);
            }
        }
    }

    /// Undoes an entry's mapping of a page; the entry's reference remains. Returns whether the
    /// content is still needed after that reference is dropped.
    pub(crate) fn drop_mapping(
        &self,
        frame: Frame,
        accessed: bool,
        dirty: bool,
        gather: &mut Gather<'_, M>,
    ) -> Fate {
        let page = self.manager.page(frame);
        let anon = page.is_anon();
        self.count_rss(if anon { Kind::Anon } else { Kind::File }, -1);
        let before = self.manager.count_unmapping(page);
        if !anon {
            // The content belongs to the file: the entry's dirty bit must be kept (spec D9).
            if dirty {
                self.manager.mark_dirty(page);
            }
            if accessed {
                page.set(&*self.manager.machine, PageFlags::REFERENCED);
            }
            return Fate::Kept;
        }
        if before == 1 && self.drop_from_swap_cache(frame, gather) && page.refs() == 1 {
            return Fate::Freed;
        }
        Fate::Kept
    }

    /// Takes an unmapped anonymous page out of the swap cache, if no other user needs it there;
    /// returns whether it is now in no cache.
    fn drop_from_swap_cache(&self, frame: Frame, gather: &mut Gather<'_, M>) -> bool {
        let Some(slot) = self.manager.page(frame).slot() else { return true };
        match self.manager.try_drop_cached(frame, slot) {
            Some(unused) => {
                gather.free_later(unused);
                true
            }
            None => false,
        }
    }
}
