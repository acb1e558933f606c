//! madvise (spec C16, J9).

use crate::cache::File;
use crate::edit::Exclusive;
use crate::entries::GUARD;
use crate::error::AdviseError;
use crate::error::Refusal;
use crate::machine::{
    Access, Cursor, Entry, Fate, Frame, Machine, PAGE_SHIFT, PAGE_SIZE, Pages, VirtAddr,
};
use crate::map::pages_up;
use crate::mm::Mm;
use crate::page::PageFlags;
use crate::tlb::{After, Gather};
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use core::ops::{ControlFlow, Range};

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
    /// The same, for locked memory too.
    DontNeedLocked,
    /// The content may be discarded until it is written again.
    Free,
    /// The content of the object goes too: punch a hole.
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
    /// Guard pages become ordinary pages of the region again.
    GuardRemove,
}

/// The pages of the largest possible file: offsets are signed (Linux's `loff_t`).
const OFFSETS: u64 = 1 << (63 - PAGE_SHIFT);

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
        let range = address..end;
        if let Some(access) = populates(advice) {
            return self.populate_or_fail(range, access);
        }
        let covered = match flag_change(advice) {
            Some(change) => self.change_flags(range, advice, &change)?,
            None => self.each_region(range, |vma, part| self.advise_region(vma, part, advice))?,
        };
        if covered { Ok(()) } else { Err(AdviseError::Unmapped) }
    }

    /// Advises about a region's part of a range; returns how far it came before another thread
    /// changed the region.
    fn advise_region(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        range: Range<VirtAddr>,
        advice: Advice,
    ) -> Result<VirtAddr, AdviseError> {
        let end = range.end;
        if vma.is_sealed_against(advice) {
            return Err(AdviseError::Sealed);
        }
        match advice {
            Advice::WillNeed => self.bring_near(vma, range),
            Advice::Remove if vma.has(VmaFlags::PFNMAP) => return Err(AdviseError::OfDevice),
            Advice::Remove => self.remove(vma, range)?,
            // Both the content and its place belong to the device.
            _ if vma.has(VmaFlags::PFNMAP) => return Err(AdviseError::Unsuitable),
            Advice::GuardInstall => return self.install_guards(vma, range),
            Advice::GuardRemove => self.remove_guards(range),
            Advice::DontNeedLocked => return Ok(self.discard(vma, range)),
            _ if vma.has(VmaFlags::LOCKED) => return Err(AdviseError::Unsuitable),
            Advice::DontNeed => return Ok(self.discard(vma, range)),
            Advice::Free if vma.file.is_some() => return Err(AdviseError::Unsuitable),
            Advice::Free => return Ok(self.free_lazily(vma, range)),
            Advice::Cold => self.each_page(range, |frame| self.manager.make_cold(frame)),
            _ => self.each_page(range, |frame| self.manager.evict(frame)),
        }
        Ok(end)
    }

    /// Changes flags of every region in a range; returns whether the regions cover it. The caller's
    /// exclusive right keeps the flags stable between the check and the change.
    fn change_flags(
        self: &Arc<Self>,
        range: Range<VirtAddr>,
        advice: Advice,
        change: &FlagChange,
    ) -> Result<bool, AdviseError> {
        let exclusive: Exclusive<'_, M> = self.exclusive();
        self.each_region(range, |vma, part| {
            if vma.is_sealed_against(advice) {
                return Err(AdviseError::Sealed);
            }
            let is_private = !vma.has(VmaFlags::MAYSHARE);
            match change.of {
                Of::PrivateAnonymous if !is_private || vma.file.is_some() => {
                    return Err(AdviseError::Unsuitable);
                }
                Of::Memory if vma.has(VmaFlags::PFNMAP) => return Err(AdviseError::Unsuitable),
                Of::Private if !is_private || vma.has(VmaFlags::PFNMAP) => return Ok(part.end),
                _ => {}
            }
            let (end, flags) = (part.end, vma.flags.difference(change.off) | change.on);
            if flags != vma.flags {
                let reflagged = exclusive.reflag(vma, part, flags);
                reflagged.map_err(|_| AdviseError::TooManyRegions)?;
            }
            Ok(end)
        })
    }

    /// Reads pages that are in swap or not cached, within the limit of read-ahead; ignores errors.
    fn bring_near(self: &Arc<Self>, vma: &Vma<M>, range: Range<VirtAddr>) {
        let mut room = self.manager.most_ahead(u32::MAX);
        if let Some(file) = &vma.file {
            self.cache_some(file, vma, range.clone(), &mut room);
        }
        let mut from = range.start;
        while room > 0
            && let Some((address, entry)) = self.next_entry(from..range.end)
        {
            let _engaged = self.manager.engage();
            if let Entry::Swap(slot) = entry
                && slot != GUARD
                && let Ok(Some(frame)) = self.manager.find_or_read(slot)
            {
                self.manager.put(frame);
                room -= 1;
            }
            from = address + PAGE_SIZE;
        }
    }

    /// Reads pages of a file where a range has no entries, until the file ends or there is no room.
    fn cache_some(&self, file: &File<M>, vma: &Vma<M>, range: Range<VirtAddr>, room: &mut u32) {
        for page in Pages::new(&range, PAGE_SIZE) {
            let _engaged = self.manager.engage();
            let entry = self.existing_entries(page.clone()).map(|cursor| cursor.entry(page.start));
            if entry.is_some_and(|entry| !entry.is_none()) {
                continue;
            }
            if *room == 0 {
                return;
            }
            match file.page(vma.index_of(page.start)) {
                Ok(found) => self.manager.unlock_and_put(found.frame),
                Err(Refusal::Bus) => return,
                Err(_) => {}
            }
            *room -= 1;
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
        let end = start + (range.end - range.start) / PAGE_SIZE;
        // A region may extend past the last possible offset of a file.
        match OFFSETS {
            offsets if start >= offsets => Err(AdviseError::Unsuitable),
            offsets if end >= offsets => Err(AdviseError::TooFar),
            _ => file.punch(start..end).map_err(|_| AdviseError::NoHole),
        }
    }

    /// Lets reclaim discard private pages unless they are written again (J9); returns how far it
    /// came while the region was still in its tree.
    fn free_lazily(&self, vma: &Vma<M>, range: Range<VirtAddr>) -> VirtAddr {
        let mut gather = Gather::new(self);
        let reached = gather.each_entry(range, |gather, cursor, address, entry| {
            if !vma.is_alive() {
                return ControlFlow::Break(());
            }
            match entry {
                Entry::Swap(GUARD) => {}
                Entry::Swap(slot) => {
                    cursor.replace(address, Entry::None);
                    gather.free_later(self.manager.release_slot(slot));
                }
                Entry::Present { frame, protection, .. }
                    if self.is_lazily_freeable(frame, gather) =>
                {
                    cursor.replace(address, Entry::None);
                    // Read-only and clean, so that a store is noticed on every machine.
                    let protection = protection.read_only();
                    let entry = Entry::Present { frame, protection, accessed: false, dirty: false };
                    cursor.replace(address, entry);
                    gather.add(address, frame, Fate::Narrowed, After::Keep);
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        gather.settle();
        reached
    }

    /// Marks a page that only this entry uses; other users, or a device, may still need the
    /// content.
    fn is_lazily_freeable(&self, frame: Frame, gather: &mut Gather<'_, M>) -> bool {
        let manager = &self.manager;
        let Some(page) = manager.normal_page(frame) else { return false };
        let theirs = !page.is_anon() || page.is_pinned();
        if theirs || !page.try_lock(&*manager.machine) {
            return false;
        }
        let sole = manager.is_sole_owner(page, 0);
        if sole {
            gather.free_later(manager.leave_swap_cache(frame));
        }
        let free = sole && page.slot().is_none();
        if free {
            page.set(&*manager.machine, PageFlags::LAZY_FREE);
        }
        manager.unlock_page(frame);
        free
    }

    /// Calls `f` with every page of a range, with a reference and no lock.
    fn each_page(&self, range: Range<VirtAddr>, f: impl Fn(Frame)) {
        let mut from = range.start;
        loop {
            let _engaged = self.manager.engage();
            let Some((address, frame)) = self.hold_next(from..range.end) else { return };
            f(frame);
            self.manager.put(frame);
            from = address + PAGE_SIZE;
        }
    }

    /// The first page that an entry in a range names, with a reference, and its address.
    fn hold_next(&self, range: Range<VirtAddr>) -> Option<(VirtAddr, Frame)> {
        self.blocks(range).find_map(|block| {
            let cursor = self.existing_entries(block.clone())?;
            let mut at = block.start;
            while at < block.end
                && let Some(address) = cursor.next(at).filter(|address| *address < block.end)
            {
                let frame = cursor.entry(address).frame();
                if let Some(frame) = frame.filter(|frame| !self.manager.is_bare(*frame)) {
                    self.manager.page(frame).hold(&*self.manager.machine);
                    return Some((address, frame));
                }
                at = address + PAGE_SIZE;
            }
            None
        })
    }

    /// Brings every page in, or returns why not (`MADV_POPULATE_READ` and `_WRITE`).
    fn populate_or_fail(
        self: &Arc<Self>,
        range: Range<VirtAddr>,
        access: Access,
    ) -> Result<(), AdviseError> {
        let needed = if access == Access::Write { VmaFlags::WRITE } else { VmaFlags::READ };
        for page in Pages::new(&range, PAGE_SIZE) {
            self.fault_in_as(page.start, |vma| {
                let may = vma.has(needed) && !vma.has(VmaFlags::PFNMAP);
                if may { Ok(access) } else { Err(AdviseError::Denied) }
            })?;
        }
        Ok(())
    }
}

impl From<Refusal> for AdviseError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoRegion => Self::Unmapped,
            Refusal::Forbidden => Self::Denied,
            Refusal::Bus | Refusal::Guard => Self::NotAccessible,
            Refusal::OutOfMemory => Self::OutOfMemory,
        }
    }
}

/// How advice applies to the regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Every,
    /// It does not fit memory of a device.
    Memory,
    /// Others stay as they are.
    Private,
    /// It does not fit others.
    PrivateAnonymous,
}

/// Flags that advice clears in a region, and flags that it sets.
struct FlagChange {
    of: Of,
    off: VmaFlags,
    on: VmaFlags,
}

const fn flag_change(advice: Advice) -> Option<FlagChange> {
    let order = VmaFlags::SEQ_READ.union(VmaFlags::RAND_READ);
    let (off, on) = match advice {
        Advice::Normal => (order, VmaFlags::empty()),
        Advice::Random => (order, VmaFlags::RAND_READ),
        Advice::Sequential => (order, VmaFlags::SEQ_READ),
        Advice::DontFork => (VmaFlags::empty(), VmaFlags::DONTCOPY),
        Advice::DoFork => (VmaFlags::DONTCOPY, VmaFlags::empty()),
        Advice::WipeOnFork => (VmaFlags::empty(), VmaFlags::WIPEONFORK),
        Advice::KeepOnFork => (VmaFlags::WIPEONFORK, VmaFlags::empty()),
        Advice::DontDump => (VmaFlags::empty(), VmaFlags::DONTDUMP),
        Advice::DoDump => (VmaFlags::DONTDUMP, VmaFlags::empty()),
        Advice::Mergeable => (VmaFlags::empty(), VmaFlags::MERGEABLE),
        Advice::Unmergeable => (VmaFlags::MERGEABLE, VmaFlags::empty()),
        Advice::HugePage => (VmaFlags::NOHUGEPAGE, VmaFlags::HUGEPAGE),
        Advice::NoHugePage => (VmaFlags::HUGEPAGE, VmaFlags::NOHUGEPAGE),
        _ => return None,
    };
    let of = match advice {
        Advice::WipeOnFork => Of::PrivateAnonymous,
        Advice::DoFork | Advice::DoDump => Of::Memory,
        Advice::Mergeable => Of::Private,
        _ => Of::Every,
    };
    Some(FlagChange { of, off, on })
}

const fn populates(advice: Advice) -> Option<Access> {
    match advice {
        Advice::PopulateRead => Some(Access::Read),
        Advice::PopulateWrite => Some(Access::Write),
        _ => None,
    }
}
