//! fork (spec E1–E3): a copy of an address space that shares its pages until someone writes.

use crate::address_space::AddressSpace;
use crate::entries::GUARD;
use crate::entries::PageCursor;
use crate::error::ForkError;
use crate::fault::page_range;
use crate::limits::Limits;
use crate::machine::{Cursor, Entry, Fate, Frame, Machine, PAGE_SIZE, Protection, VirtAddr};
use crate::mm::{Kind, Mm};
use crate::page::PageFlags;
use crate::rmap::AnonVma;
use crate::tlb::{After, Gather};
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use core::ops::Range;

/// How far copying the entries has come.
enum Copied {
    /// Everything below this address is done.
    UpTo(VirtAddr),
    /// Another thread has the page at this address locked; a reference to it was taken.
    Busy(VirtAddr, Frame),
    /// The page at this address is pinned; a reference to it was taken. The device and the parent
    /// keep it, and the child gets a copy.
    Pinned(VirtAddr, Frame),
}

/// A region of the parent and the child's copy of it.
struct Pair<'a, M: Machine> {
    ours: &'a Vma<M>,
    theirs: &'a Vma<M>,
}

impl<M: Machine> AddressSpace<M> {
    /// Copies the address space: the child sees what the parent holds now, and neither sees the
    /// other's later stores to private memory.
    ///
    /// Other threads may go on faulting in the parent. On an error the child is taken apart again,
    /// and the parent is as before.
    pub fn fork(&self) -> Result<Self, ForkError> {
        let manager = self.manager();
        let space = manager.new_space()?;
        self.fork_into(space)
    }

    /// Like [`fork`](Self::fork), into a page table that the machine made.
    pub fn fork_into(&self, space: M::Space) -> Result<Self, ForkError> {
        let limits: Limits = self.limits.copy();
        let child = Self::with_space(self.manager(), self.layout.clone(), limits, space);
        let parent = self.exclusive();
        child.heap.be_like(&self.heap);
        let into = child.exclusive_of_new();
        for vma in self.overlapping(self.layout.range.clone()) {
            if vma.has(VmaFlags::DONTCOPY) {
                continue;
            }
            if vma.has(VmaFlags::ACCOUNT) {
                manager_charge(self, &vma)?;
            }
            let copy = child_region(self, &vma);
            into.enter(copy.clone());
            if let Some(file) = &vma.file {
                file.opened();
            }
            let copies = vma.written_family().is_some()
                || vma.has(VmaFlags::NONLINEAR.union(VmaFlags::PFNMAP));
            if copies && !vma.has(VmaFlags::WIPEONFORK) {
                self.copy_entries(&child, &Pair { ours: &vma, theirs: &copy })?;
            }
        }
        drop(into);
        drop(parent);
        Ok(child)
    }
}

fn manager_charge<M: Machine>(mm: &Mm<M>, vma: &Vma<M>) -> Result<(), ForkError> {
    mm.manager.charge(vma.pages()).map_err(|_| ForkError::CommitLimit)
}

/// The child's region: not locked, with a family of its own beside its ancestors' (J7).
fn child_region<M: Machine>(mm: &Mm<M>, vma: &Arc<Vma<M>>) -> Arc<Vma<M>> {
    let mut copy = vma.part(mm.manager.vma_id(), vma.range());
    copy.flags.remove(VmaFlags::LOCKS);
    copy.anon = None;
    copy.unwritten = false;
    copy.guests.clear();
    if let Some(family) = vma.written_family().filter(|_| !vma.has(VmaFlags::WIPEONFORK)) {
        copy.ancestors.push(family.clone());
        copy.ancestors.extend(vma.guests.iter().cloned());
        copy.anon = Some(AnonVma::new(&mm.manager));
    }
    if vma.has(VmaFlags::WIPEONFORK) {
        copy.ancestors.clear();
    }
    Arc::new(copy)
}

impl<M: Machine> Mm<M> {
    /// Copies the entries of a region (`copy_page_range`), and flushes the parent's entries that
    /// became read-only before it goes on (spec E1).
    fn copy_entries(&self, child: &Self, pair: &Pair<'_, M>) -> Result<(), ForkError> {
        let mut gather = Gather::new(self);
        for chunk in self.blocks(pair.ours.range()) {
            let mut from = chunk.start;
            while from < chunk.end {
                let range = from..chunk.end;
                let first = self.existing_entries(range.clone()).and_then(|c| c.next(from));
                let Some(first) = first else { break };
                let _engaged = self.manager.engage();
                drop(child.entries(range.clone()).map_err(|_| ForkError::OutOfMemory)?);
                let copied = self.copy_some(child, pair.ours, first..chunk.end, &mut gather);
                gather.flush();
                from = match copied {
                    Copied::UpTo(address) => address,
                    Copied::Busy(address, frame) => {
                        self.manager.lock_page(frame);
                        self.manager.unlock_and_put(frame);
                        address
                    }
                    Copied::Pinned(address, frame) => {
                        let copied = self.copy_pinned(child, pair, address, frame);
                        self.manager.put(frame);
                        copied?;
                        address
                    }
                };
            }
        }
        // An entry that was read-only already may still be waiting for its flush.
        gather.settle();
        Ok(())
    }

    fn copy_some(
        &self,
        child: &Self,
        vma: &Vma<M>,
        range: Range<VirtAddr>,
        gather: &mut Gather<'_, M>,
    ) -> Copied {
        let all = Copied::UpTo(range.end);
        let Some(mut ours) = self.existing_entries(range.clone()) else { return all };
        let Some(mut theirs) = child.existing_entries(range.clone()) else { return all };
        let mut from = range.start;
        while from < range.end {
            if gather.is_full() {
                return Copied::UpTo(from);
            }
            let Some(address) = ours.next(from) else { return all };
            if !theirs.entry(address).is_none() {
                // The copy of a pinned page.
                from = address + PAGE_SIZE;
                continue;
            }
            if let Some(frame) = self.pinned(vma, &ours.entry(address)) {
                self.manager.page(frame).hold(&*self.manager.machine);
                return Copied::Pinned(address, frame);
            }
            if let Some(frame) = self.being_written(vma, &ours.entry(address)) {
                self.manager.page(frame).hold(&*self.manager.machine);
                return Copied::Busy(address, frame);
            }
            let copy = self.copy_entry(child, vma, &mut ours, address, gather);
            theirs.replace(address, copy);
            from = address + PAGE_SIZE;
        }
        all
    }

    /// The page of an entry, if the kernel may be storing to it under the page lock without
    /// checking the entry again: if shared now, it would show the store in the child.
    fn being_written(&self, vma: &Vma<M>, entry: &Entry) -> Option<Frame> {
        let frame = entry.frame().filter(|_| vma.is_cow() && entry.is_writable())?;
        self.manager.pages.get(frame)?.has(PageFlags::LOCKED).then_some(frame)
    }

    /// The page of an entry, if it is the region's own and a device uses it.
    fn pinned(&self, vma: &Vma<M>, entry: &Entry) -> Option<Frame> {
        let frame = entry.frame().filter(|_| vma.is_cow())?;
        let page = self.manager.pages.get(frame)?;
        (page.is_anon() && page.is_pinned()).then_some(frame)
    }

    /// Gives the child a copy of a pinned page (spec E3), unless the entry has changed meanwhile.
    /// Stores by the device or the parent's threads during the copy may or may not show in it: the
    /// fork has not returned.
    fn copy_pinned(
        &self,
        child: &Self,
        pair: &Pair<'_, M>,
        address: VirtAddr,
        pinned: Frame,
    ) -> Result<(), ForkError> {
        let manager = &self.manager;
        let frame = manager.allocate().map_err(|_| ForkError::OutOfMemory)?;
        manager.machine.copy(pinned, frame);
        manager.page(frame).set(&*manager.machine, PageFlags::UPTODATE);
        manager.enqueue(frame, None);
        let range = page_range(address);
        if let Some(ours) = self.existing_entries(range.clone())
            && self.pinned(pair.ours, &ours.entry(address)) == Some(pinned)
            && let Some(mut theirs) = child.existing_entries(range)
        {
            let protection = pair.theirs.written_protection();
            let entry = Entry::Present { frame, protection, accessed: false, dirty: true };
            child.add_new_anon(&mut theirs, pair.theirs, address, entry);
        } else {
            manager.put(frame);
        }
        Ok(())
    }

    /// The child's counterpart of an entry; references are taken before the entry is visible (spec
    /// E3).
    fn copy_entry(
        &self,
        child: &Self,
        vma: &Vma<M>,
        ours: &mut PageCursor<'_, M>,
        address: VirtAddr,
        gather: &mut Gather<'_, M>,
    ) -> Entry {
        let entry = ours.entry(address);
        let Entry::Present { frame, protection, .. } = entry else {
            if let Entry::Swap(slot) = entry
                && slot != GUARD
            {
                // The parent's own reference keeps the slot from being free.
                let duplicated = self.manager.swap.duplicate(slot);
                debug_assert!(duplicated.is_ok(), "entry names a free slot");
            }
            return entry;
        };
        if self.manager.is_bare(frame) {
            let protection = self.manager.honest(protection, false);
            return Entry::Present { frame, protection, accessed: false, dirty: false };
        }
        let mut dirty = false;
        let mut given = protection;
        if vma.is_cow() {
            given = protection.read_only();
            let old = ours.protect(address, given);
            dirty = matches!(old, Entry::Present { dirty: true, .. });
            if protection.contains(Protection::WRITE) {
                gather.add(address, frame, Fate::Narrowed, After::Keep);
            }
        }
        let page = self.manager.page(frame);
        page.hold(&*self.manager.machine);
        self.manager.count_mapping(page);
        child.count_rss(if page.is_anon() { Kind::Anon } else { Kind::File }, 1);
        let given = self.manager.honest(given, dirty);
        Entry::Present { frame, protection: given, accessed: false, dirty }
    }
}
