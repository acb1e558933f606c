//! A store through an entry that forbids it: copy on write, reuse by a sole owner, and the first
//! store to a shared page (spec B15–B18).

use crate::entries::PageCursor;
use crate::error::Refusal;
use crate::event::Correction;
use crate::fault::{Fault, Purpose, Step, page_range};
use crate::machine::{Cursor, Entry, Fate, Frame, Machine, OutOfFrames, Stale};
use crate::mm::{Kind, Mm};
use crate::page::{Owner, PageFlags};
use crate::rmap::family::Stores;
use crate::tlb::{After, Gather};
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;

/// What to do about a write-protected page.
enum Plan {
    Reused,
    AwaitedStore(Frame),
    /// A device uses the page: its owner keeps it, once the page lock is free.
    Wait(Frame),
    Copy(Frame),
}

/// What happened to the entry for which a copy was made.
enum Replaced {
    /// It had changed meanwhile, and stays.
    No,
    /// It names the copy, read-only until the stale translations are flushed.
    ReadOnly,
    /// It names the copy, and nothing is stale.
    Writable,
}

impl<M: Machine> Mm<M> {
    /// Decides under the entry's lock, then acts (`do_wp_page`). The entry names `frame`, read-only.
    pub(super) fn write_protected(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        mut cursor: PageCursor<'_, M>,
        frame: Frame,
    ) -> Result<Step, Refusal> {
        if !vma.is_alive() {
            return Ok(Step::Again);
        }
        if !vma.has(VmaFlags::SHARED) && vma.written_family().is_none() {
            drop(cursor);
            self.prepare_family(vma, Stores::Begin);
            return Ok(Step::Again);
        }
        let plan = self.decide_write(vma, fault, &mut cursor, frame);
        drop(cursor);
        match plan {
            // A wider permission needs no flush: a processor with the old translation faults again.
            Plan::Reused => Ok(Step::Done(Correction::Reuse)),
            Plan::AwaitedStore(frame) => {
                let step = self.awaited_store(vma, fault, frame);
                self.manager.put(frame);
                step
            }
            Plan::Wait(frame) => {
                self.manager.lock_page(frame);
                self.manager.unlock_and_put(frame);
                Ok(Step::Again)
            }
            Plan::Copy(frame) => {
                let new = self.manager.allocate_free();
                let step = new.map(|new| self.copy(vma, fault, frame, new));
                if !self.manager.is_bare(frame) {
                    self.manager.put_copied(frame);
                }
                step.or_else(|OutOfFrames| self.await_room(frame))
            }
        }
    }

    /// Reuses the page if that can be decided at once; otherwise takes a reference to the page.
    fn decide_write(
        &self,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        cursor: &mut PageCursor<'_, M>,
        frame: Frame,
    ) -> Plan {
        let manager = &self.manager;
        let Some(page) = manager.normal_page(frame) else {
            if vma.has(VmaFlags::SHARED) && manager.is_device(frame) {
                Self::reuse_device(vma, fault, cursor, frame);
                return Plan::Reused;
            }
            return Plan::Copy(frame);
        };
        if page.is_anon() {
            if self.reuse_if_sole(vma, fault, cursor, frame) {
                return Plan::Reused;
            }
            if page.is_pinned() {
                page.hold(&*manager.machine);
                return Plan::Wait(frame);
            }
        } else if vma.flags.contains(VmaFlags::SHARED | VmaFlags::WRITE) {
            page.hold(&*manager.machine);
            return Plan::AwaitedStore(frame);
        }
        page.hold(&*manager.machine);
        Plan::Copy(frame)
    }

    /// Lets the sole owner of an anonymous page write it, if that can be decided at once: the page
    /// lock comes before the entry's, so this can only try it (spec B16).
    pub(super) fn reuse_if_sole(
        &self,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        cursor: &mut PageCursor<'_, M>,
        frame: Frame,
    ) -> bool {
        let manager = &self.manager;
        let page = manager.page(frame);
        // A second entry settles it without the lock: a page may always be copied.
        if page.maps() > 1 || !page.try_lock(&*manager.machine) {
            return false;
        }
        let reuse = manager.is_sole_owner(page, 0);
        if reuse {
            self.reuse(vma, fault, cursor, frame);
        }
        manager.unlock_page(frame);
        reuse
    }

    /// Lets the sole owner of a locked anonymous page write it (spec B17).
    #[inline]
    pub(super) fn reuse(
        &self,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        cursor: &mut PageCursor<'_, M>,
        frame: Frame,
    ) {
        let manager = &self.manager;
        fault.unused = manager.leave_swap_cache(frame);
        let page = manager.page(frame);
        page.clear(&*manager.machine, PageFlags::LAZY_FREE);
        if let Some(family) = &vma.anon {
            page.set_owner(Owner::Anon(family.id), vma.index_of(fault.page));
        }
        let protection = vma.written_protection();
        let accessed = fault.purpose == Purpose::Access;
        cursor.replace(fault.page, Entry::Present { frame, protection, accessed, dirty: true });
    }

    /// The first store to a page of a shared file since it was last cleaned (spec B16, B17).
    fn awaited_store(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &Fault<M>,
        frame: Frame,
    ) -> Result<Step, Refusal> {
        let manager = &self.manager;
        let Some(mapping) = &vma.file else { return Ok(Step::Again) };
        manager.lock_page(frame);
        let page = manager.page(frame);
        if page.owner() != Owner::File(mapping.id) || !page.has(PageFlags::PAGE_CACHE) {
            // Truncated meanwhile.
            manager.unlock_page(frame);
            return Ok(Step::Again);
        }
        let step = mapping.first_store(frame).map(|()| {
            let Some(mut cursor) = self.existing_entries(page_range(fault.page)) else {
                return Step::Again;
            };
            let entry = cursor.entry(fault.page);
            if !vma.is_alive() || entry.frame() != Some(frame) {
                return Step::Again;
            }
            manager.mark_dirty(page);
            let protection = vma.written_protection();
            cursor.replace(
                fault.page,
                Entry::Present { frame, protection, accessed: true, dirty: true },
            );
            Step::Done(Correction::Reuse)
        });
        manager.unlock_page(frame);
        step
    }

    /// Puts a copy in the page's place (spec B18).
    ///
    /// If other processors may know the old page, the copy is entered read-only. Their stale
    /// translations are flushed while both pages are equal and neither is writable. Only then does
    /// the copy become writable. Thus no processor reads the old page after another has written the
    /// new one.
    fn copy(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        old: Frame,
        new: Frame,
    ) -> Step {
        let manager = &self.manager;
        if manager.is_zero_frame(old) {
            manager.machine.zero(new);
        } else {
            // The thread that took the right to store away, such as reclaim, may not have flushed
            // yet.
            self.await_flushes_of(fault.page);
            manager.machine.copy(old, new);
        }
        manager.page(new).set(&*manager.machine, PageFlags::UPTODATE);
        manager.enqueue(new, None);
        let mut gather = Gather::new(self);
        match self.replace_with_copy(vma, fault, old, new, &mut gather) {
            Replaced::No => {
                manager.put(new);
                return Step::Again;
            }
            Replaced::Writable => {
                if !manager.is_bare(old) {
                    // The entry's reference: no translation needs it any more.
                    manager.put(old);
                }
                return Step::Done(Correction::CopyOnWrite);
            }
            Replaced::ReadOnly => gather.flush(),
        }
        if self.let_write(vma, fault, new) {
            Step::Done(Correction::CopyOnWrite)
        } else {
            Step::Partly(Correction::CopyOnWrite)
        }
    }

    /// Waits until there is a frame for the copy of a page, or no need for one: reclaim or another
    /// fault kept the owner from reusing the page, and may release it.
    ///
    /// There may never be a second frame, so the caller has dropped its reference: this page may be
    /// the one that can leave, and the references of several waiters would keep each of them from
    /// reusing it.
    fn await_room(&self, old: Frame) -> Result<Step, Refusal> {
        let manager = &self.manager;
        let is_reusable = || {
            // By now the frame may hold another page: then the entry has changed too.
            let page = manager.normal_page(old);
            page.is_some_and(|page| page.is_anon() && manager.is_sole_owner(page, 0))
        };
        if let Some(frame) = manager.allocate_unless(is_reusable)? {
            manager.put(frame);
        }
        Ok(Step::Again)
    }

    /// Makes a copy writable, if it is still in its place and still has a sole owner.
    fn let_write(&self, vma: &Arc<Vma<M>>, fault: &mut Fault<M>, copy: Frame) -> bool {
        let Some(mut cursor) = self.existing_entries(page_range(fault.page)) else { return false };
        let entry = cursor.entry(fault.page);
        vma.is_alive()
            && entry.frame() == Some(copy)
            && !entry.is_writable()
            && self.reuse_if_sole(vma, fault, &mut cursor, copy)
    }

    fn replace_with_copy(
        &self,
        vma: &Arc<Vma<M>>,
        fault: &Fault<M>,
        old: Frame,
        new: Frame,
        gather: &mut Gather<'_, M>,
    ) -> Replaced {
        let Some(mut cursor) = self.existing_entries(page_range(fault.page)) else {
            return Replaced::No;
        };
        let entry = cursor.entry(fault.page);
        if !vma.is_alive() || entry.frame() != Some(old) || entry.is_writable() {
            return Replaced::No;
        }
        let manager = &self.manager;
        let page = manager.normal_page(old);
        // Pinned since the copy was decided on: the device and the program stay together.
        if page.is_some_and(|page| page.is_anon() && page.is_pinned()) {
            return Replaced::No;
        }
        cursor.replace(fault.page, Entry::None);
        if let Some(page) = page {
            manager.count_unmapping(page);
            self.count_rss(if page.is_anon() { Kind::Anon } else { Kind::File }, -1);
        }
        let stale = Stale { address: fault.page, frame: old, fate: Fate::Kept };
        let is_flushed = manager.machine.flush_here(&self.space, stale);
        let protection = if is_flushed {
            manager.stats.of(&*manager.machine).flushes.add(&*manager.machine, 1);
            vma.written_protection()
        } else {
            // The entry's reference is dropped after the flush; the caller keeps its own.
            let after = if page.is_none() { After::Keep } else { After::Drop };
            gather.add(fault.page, old, Fate::Kept, after);
            vma.page_protection().read_only()
        };
        let copy = Entry::Present { frame: new, protection, accessed: true, dirty: true };
        self.add_new_anon(&mut cursor, vma, fault.page, copy);
        if is_flushed { Replaced::Writable } else { Replaced::ReadOnly }
    }
}
