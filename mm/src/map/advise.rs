//! madvise (spec C16, J9).

use crate::error::AdviseError;
use crate::machine::{
    Access, Cursor, Entry, Fate, Frame, Machine, PAGE_SIZE, Pages, Space, VirtAddr,
};
use crate::map::guard::GUARD;
use crate::map::pages_up;
use crate::map::zap::Which;
use crate::mm::{Exclusive, Mm};
use crate::page::PageFlags;
use crate::tlb::{After, Gather};
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use core::ops::Range;

/// Advice about a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Advice {
    /// No special treatment.
    Normal,
    /// Accesses will come in no order.
    Random,
    /// Accesses will come in order.
    Sequential,
    /// The pages will be needed soon: bring them near.
    WillNeed,
    /// The content is not needed any more: private memory reads as zero or as the file again.
    DontNeed,
    /// The same, of memory that is locked too.
    DontNeedLocked,
    /// The content may be discarded until it is written again.
    Free,
    /// The content of the object goes too: a hole.
    Remove,
    /// A fork does not copy the range.
    DontFork,
    /// A fork copies the range again.
    DoFork,
    /// The pages may leave before others.
    Cold,
    /// The pages should leave now.
    PageOut,
    /// Bring the pages in as for reading.
    PopulateRead,
    /// Bring the pages in as for writing.
    PopulateWrite,
    /// A fork's child finds zeros here.
    WipeOnFork,
    /// A fork's child finds what its parent has.
    KeepOnFork,
    /// A core dump leaves the range out.
    DontDump,
    /// A core dump has the range.
    DoDump,
    /// Pages with the same content may become one; they never do here.
    Mergeable,
    /// Pages with the same content stay apart.
    Unmergeable,
    /// Huge pages are wanted; there are none here.
    HugePage,
    /// Huge pages are not wanted.
    NoHugePage,
    /// Every access to the range is refused, without a region of its own; its content goes.
    GuardInstall,
    /// Such pages become pages of the region again.
    GuardRemove,
}

impl<M: Machine> Mm<M> {
    /// Advises how a range will be used.
    ///
    /// Gaps are skipped and reported at the end; a region that refuses stops the walk.
    pub fn madvise(
        self: &Arc<Self>,
        address: VirtAddr,
        length: u64,
        advice: Advice,
    ) -> Result<(), AdviseError> {
        if !address.is_page_aligned() {
            return Err(AdviseError::Unaligned);
        }
        let length = pages_up(length).ok_or(AdviseError::BadLength)?;
        let end = address.checked_add(length).ok_or(AdviseError::BadLength)?;
        if let Some(access) = populates(advice) {
            return self.populate_or_fail(address..end, access);
        }
        let covered =
            self.each_region(address..end, |vma, range| self.advise_region(vma, range, advice))?;
        if covered { Ok(()) } else { Err(AdviseError::Unmapped) }
    }

    fn advise_region(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        range: Range<VirtAddr>,
        advice: Advice,
    ) -> Result<(), AdviseError> {
        let flags = vma.flags.difference(VmaFlags::SEQ_READ | VmaFlags::RAND_READ);
        let with = |flag| vma.flags | flag;
        let without = |flag| vma.flags.difference(flag);
        match advice {
            Advice::WipeOnFork if vma.file.is_some() || vma.has(VmaFlags::MAYSHARE) => {
                Err(AdviseError::Unsuitable)
            }
            Advice::WipeOnFork => self.change_flags(vma, range, with(VmaFlags::WIPEONFORK)),
            Advice::KeepOnFork => self.change_flags(vma, range, without(VmaFlags::WIPEONFORK)),
            Advice::DontDump => self.change_flags(vma, range, with(VmaFlags::DONTDUMP)),
            Advice::DoDump => self.change_flags(vma, range, without(VmaFlags::DONTDUMP)),
            // Only private anonymous memory is looked at; elsewhere the advice changes nothing.
            Advice::Mergeable if vma.has(VmaFlags::MAYSHARE) => Ok(()),
            Advice::Mergeable => self.change_flags(vma, range, with(VmaFlags::MERGEABLE)),
            Advice::Unmergeable => self.change_flags(vma, range, without(VmaFlags::MERGEABLE)),
            Advice::HugePage => {
                let flags = without(VmaFlags::NOHUGEPAGE) | VmaFlags::HUGEPAGE;
                self.change_flags(vma, range, flags)
            }
            Advice::NoHugePage => {
                let flags = without(VmaFlags::HUGEPAGE) | VmaFlags::NOHUGEPAGE;
                self.change_flags(vma, range, flags)
            }
            Advice::GuardInstall => self.install_guards(vma, range),
            Advice::GuardRemove => {
                self.remove_guards(range);
                Ok(())
            }
            Advice::Normal => self.change_flags(vma, range, flags),
            Advice::Random => self.change_flags(vma, range, flags | VmaFlags::RAND_READ),
            Advice::Sequential => self.change_flags(vma, range, flags | VmaFlags::SEQ_READ),
            Advice::DontFork => self.change_flags(vma, range, vma.flags | VmaFlags::DONTCOPY),
            Advice::DoFork => {
                self.change_flags(vma, range, vma.flags.difference(VmaFlags::DONTCOPY))
            }
            Advice::WillNeed => {
                self.bring_near(vma, range);
                Ok(())
            }
            Advice::Remove => self.remove(vma, range),
            Advice::DontNeedLocked => {
                self.zap_some(vma, range, Which::Pages);
                Ok(())
            }
            _ if vma.has(VmaFlags::LOCKED) => Err(AdviseError::Unsuitable),
            Advice::DontNeed => {
                self.zap_some(vma, range, Which::Pages);
                Ok(())
            }
            Advice::Free if vma.file.is_some() => Err(AdviseError::Unsuitable),
            Advice::Free => {
                self.free_lazily(range);
                Ok(())
            }
            Advice::Cold => {
                self.each_page(range, |frame| self.manager.make_cold(frame));
                Ok(())
            }
            _ => {
                self.each_page(range, |frame| self.manager.evict(frame));
                Ok(())
            }
        }
    }

    fn change_flags(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        range: Range<VirtAddr>,
        flags: VmaFlags,
    ) -> Result<(), AdviseError> {
        if flags == vma.flags {
            return Ok(());
        }
        let exclusive: Exclusive<'_, M> = self.exclusive();
        if !vma.is_alive() {
            // It changed between the look-up and the lock: start over with what is there now.
            drop(exclusive);
            let now = self.containing(range.start).ok_or(AdviseError::Unmapped)?;
            let end = range.end.min(now.end);
            return self.change_flags(&now, range.start..end, flags);
        }
        exclusive.reflag(vma, range, flags).map(drop).map_err(|_| AdviseError::TooManyRegions)
    }

    /// Reads what is in swap or not cached, ignoring errors.
    fn bring_near(self: &Arc<Self>, vma: &Vma<M>, range: Range<VirtAddr>) {
        let mut page = range.start;
        while page < range.end {
            let _engaged = self.manager.engage();
            let entry = self
                .existing_entries(page..page + PAGE_SIZE)
                .map_or(Entry::None, |cursor| cursor.entry(page));
            match (entry, &vma.file) {
                (Entry::Swap(GUARD), _) => {}
                (Entry::Swap(slot), _) => {
                    if let Ok(Some(frame)) = self.manager.find_or_read(slot) {
                        self.manager.put(frame);
                    }
                }
                (Entry::None, Some(file)) => {
                    if let Ok(found) = file.page(vma.index_of(page)) {
                        self.manager.unlock_and_put(found.frame);
                    }
                }
                _ => {}
            }
            page = page + PAGE_SIZE;
        }
    }

    fn remove(&self, vma: &Vma<M>, range: Range<VirtAddr>) -> Result<(), AdviseError> {
        if vma.has(VmaFlags::LOCKED | VmaFlags::NONLINEAR) {
            return Err(AdviseError::Unsuitable);
        }
        let file = vma.file.as_ref().ok_or(AdviseError::Unsuitable)?;
        if !vma.flags.contains(VmaFlags::MAYSHARE | VmaFlags::MAYWRITE) {
            return Err(AdviseError::NotWritable);
        }
        let start = vma.index_of(range.start);
        let pages = (range.end - range.start) / PAGE_SIZE;
        file.punch(start..start + pages).map_err(|_| AdviseError::NoHole)
    }

    /// Lets reclaim discard private pages unless they are written again (J9).
    fn free_lazily(&self, range: Range<VirtAddr>) {
        let mut gather = Gather::new(self);
        for chunk in Pages::new(&range, M::Space::SPAN) {
            let mut from = chunk.start;
            while from < chunk.end {
                from = self.free_some(from..chunk.end, &mut gather);
                gather.flush();
            }
        }
        gather.settle();
    }

    fn free_some(&self, range: Range<VirtAddr>, gather: &mut Gather<'_, M>) -> VirtAddr {
        let Some(mut cursor) = self.existing_entries(range.clone()) else { return range.end };
        let mut from = range.start;
        while from < range.end {
            if gather.is_full() {
                return from;
            }
            let Some(address) = cursor.next(from) else { return range.end };
            match cursor.entry(address) {
                Entry::Swap(GUARD) => {}
                Entry::Swap(slot) => {
                    cursor.replace(address, Entry::None);
                    self.manager.release_slot(slot);
                }
                Entry::Present { frame, protection, .. } if self.is_lazily_freeable(frame) => {
                    cursor.replace(address, Entry::None);
                    // Read-only and clean, so that a store is noticed on every machine.
                    let protection = protection.read_only();
                    let entry = Entry::Present { frame, protection, accessed: false, dirty: false };
                    cursor.replace(address, entry);
                    gather.add(address, frame, Fate::Narrowed, After::Keep);
                }
                _ => {}
            }
            from = address + PAGE_SIZE;
        }
        range.end
    }

    /// Marks a page that only this entry uses; others may still want the content.
    fn is_lazily_freeable(&self, frame: Frame) -> bool {
        let manager = &self.manager;
        let page = manager.page(frame);
        if manager.is_zero_frame(frame) || !page.is_anon() || !page.try_lock() {
            return false;
        }
        let sole = manager.is_sole_owner(page, 0);
        if sole {
            manager.leave_swap_cache(frame);
        }
        let free = sole && page.slot().is_none();
        if free {
            page.set(PageFlags::LAZY_FREE);
        }
        manager.unlock_page(frame);
        free
    }

    /// Calls `f` with every page of a range, with a reference and no lock.
    fn each_page(&self, range: Range<VirtAddr>, f: impl Fn(Frame)) {
        let mut page = range.start;
        while page < range.end {
            let _engaged = self.manager.engage();
            let frame = self.existing_entries(page..page + PAGE_SIZE).and_then(|cursor| {
                let frame = cursor.entry(page).frame()?;
                if self.manager.is_zero_frame(frame) {
                    return None;
                }
                self.manager.page(frame).hold();
                Some(frame)
            });
            if let Some(frame) = frame {
                f(frame);
                self.manager.put(frame);
            }
            page = page + PAGE_SIZE;
        }
    }

    /// Brings every page in or says why not (`MADV_POPULATE_READ` and `_WRITE`).
    fn populate_or_fail(
        self: &Arc<Self>,
        range: Range<VirtAddr>,
        access: Access,
    ) -> Result<(), AdviseError> {
        let needed = if access == Access::Write { VmaFlags::WRITE } else { VmaFlags::READ };
        let mut page = range.start;
        while page < range.end {
            let vma = self.containing(page).ok_or(AdviseError::Unmapped)?;
            if !vma.has(needed) {
                return Err(AdviseError::Denied);
            }
            self.fault_in(page, access).map_err(|refusal| match refusal {
                crate::fault::Refusal::NoRegion => AdviseError::Unmapped,
                crate::fault::Refusal::Forbidden => AdviseError::Denied,
                crate::fault::Refusal::Bus | crate::fault::Refusal::Guard => {
                    AdviseError::NotAccessible
                }
                crate::fault::Refusal::OutOfMemory => AdviseError::OutOfMemory,
            })?;
            page = page + PAGE_SIZE;
        }
        Ok(())
    }
}

const fn populates(advice: Advice) -> Option<Access> {
    match advice {
        Advice::PopulateRead => Some(Access::Read),
        Advice::PopulateWrite => Some(Access::Write),
        _ => None,
    }
}
