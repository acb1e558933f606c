//! Bringing a page back from swap (spec B14, B15).

use crate::cache::Key;
use crate::event::{Correction, Event, Weight};
use crate::fault::{Fault, Refusal, Step, page_range};
use crate::machine::{Access, Cursor, Entry, Frame, IoError, Machine, SwapSlot};
use crate::manager::Manager;
use crate::map::guard::GUARD;
use crate::mm::{Kind, Mm};
use crate::page::{Owner, Page, PageFlags};
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

impl<M: Machine> Mm<M> {
    /// Maps the page of a slot, reading it if it is not in the swap cache.
    pub(super) fn swap_in(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault,
        slot: SwapSlot,
    ) -> Result<Step, Refusal> {
        if slot == GUARD {
            return Err(Refusal::Guard);
        }
        if vma.anon.is_none() {
            // Only a dead region can be seen with a swapped page and without a family.
            return Ok(Step::Again);
        }
        let manager = &self.manager;
        let key = Key::Swap(slot);
        let frame = match manager.cache.find(&manager.pages, &manager.order, key) {
            Some(frame) => frame,
            None => {
                let Some(frame) = manager.read_into_swap_cache(slot)? else {
                    return Ok(Step::Again);
                };
                fault.weight = Weight::Major;
                frame
            }
        };
        manager.lock_page(frame);
        let step = self.map_swapped(vma, fault, slot, frame);
        if step == Ok(Step::Again) {
            // It may have been read in vain, after another fault had brought the page back.
            manager.drop_if_only_cached(frame, slot);
        }
        manager.unlock_and_put(frame);
        step
    }

    /// Maps a locked page, if it is still the slot's and the entry still names the slot.
    fn map_swapped(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &Fault,
        slot: SwapSlot,
        frame: Frame,
    ) -> Result<Step, Refusal> {
        let manager = &self.manager;
        let page = manager.page(frame);
        if page.slot() != Some(slot) {
            return Ok(Step::Again);
        }
        let mut cursor = self.entries(page_range(fault.page))?;
        if !vma.is_alive() || cursor.entry(fault.page) != Entry::Swap(slot) {
            return Ok(Step::Again);
        }
        if !page.has(PageFlags::UPTODATE) {
            drop(cursor);
            // The slot may be readable next time: the page that is not is of no use to anyone.
            manager.leave_swap_cache(frame);
            return Err(Refusal::Bus);
        }
        let Some(family) = &vma.anon else { return Ok(Step::Again) };
        // Besides the cache and the caller nobody may know the page, and no other entry the slot.
        let sole = manager.is_sole_owner(page, 1);
        if page.owner() == Owner::None {
            // Relatives may still name the slot: the page belongs to the family that all share,
            // unless there are none.
            let all = if sole { family } else { vma.ancestors.first().unwrap_or(family) };
            page.set_owner(Owner::Anon(all.id), vma.index_of(fault.page));
        }
        page.hold();
        page.maps.fetch_add(1, Ordering::AcqRel);
        self.count_rss(Kind::Anon, 1);
        manager.swap.release(slot);
        let done = Step::Done(Correction::SwapIn);
        if sole && (fault.access == Access::Write || manager.expects_store(vma, slot)) {
            self.reuse(vma, fault, &mut cursor, frame);
            return Ok(done);
        }
        let protection = vma.page_protection().read_only();
        let entry = Entry::Present { frame, protection, accessed: true, dirty: false };
        cursor.replace(fault.page, entry);
        if manager.swap.is_more_than_half_full() && manager.is_sole_owner(page, 1) {
            // The slot is worth more than a free write later (spec B14 (7)).
            manager.leave_swap_cache(frame);
            let entry = Entry::Present { frame, protection, accessed: true, dirty: true };
            cursor.replace(fault.page, entry);
        }
        Ok(if fault.access == Access::Write { Step::Partly(Correction::SwapIn) } else { done })
    }
}

impl<M: Machine> Manager<M> {
    /// Whether the only user of a locked anonymous page is one entry: one that names the page, or
    /// one that still names its slot. `passing` counts the caller's own references (spec B15).
    ///
    /// A pinned page was alone with its entry when it was pinned and is never shared afterwards
    /// (J6): other references are the pins and passers-by.
    #[inline]
    pub(crate) fn is_sole_owner(&self, page: &Page, passing: u32) -> bool {
        let alone = || page.refs() == page.maps() + page.cache_refs() + passing;
        self.entries_of(page) == 1 && (page.is_pinned() || alone())
    }

    /// How many entries name a locked anonymous page or the slot that it is cached for.
    #[inline]
    pub(crate) fn entries_of(&self, page: &Page) -> u32 {
        page.maps()
            + page.slot().map_or(0, |slot| u32::from(self.swap.count(slot)).saturating_sub(1))
    }

    /// Whether a page that comes back for a load will soon be stored to, on a machine where the
    /// store would be another fault.
    fn expects_store(&self, vma: &Vma<M>, slot: SwapSlot) -> bool {
        let turn = self.passes.turn();
        !self.machine.capabilities().dirty
            && vma.has(VmaFlags::WRITE)
            && self.foresight.expects_store(slot, turn)
    }

    /// Takes a locked page out of the swap cache and gives up its slot: what the slot holds will
    /// not be needed again.
    #[inline]
    pub(crate) fn leave_swap_cache(&self, frame: Frame) {
        if let Some(slot) = self.page(frame).slot() {
            self.give_up_slot(frame, slot);
        }
    }

    fn give_up_slot(&self, frame: Frame, slot: SwapSlot) {
        let page = self.page(frame);
        if self.cache.remove(&self.pages, &self.order, frame, None) {
            page.set(PageFlags::DIRTY);
            self.swap.release(slot);
            self.put(frame);
        }
    }

    /// Drops an entry's reference to a slot, and the cached page with the slot if nobody else
    /// needs them (spec F11). Never waits.
    pub(crate) fn release_slot(&self, slot: SwapSlot) {
        if self.swap.release(slot) != 1 {
            return;
        }
        let key = Key::Swap(slot);
        let Some(frame) = self.cache.find(&self.pages, &self.order, key) else { return };
        if self.page(frame).try_lock() {
            self.drop_if_only_cached(frame, slot);
            self.unlock_page(frame);
        }
        self.put(frame);
    }

    /// Drops the reference to a page that was copied, and takes it out of the swap cache if nobody
    /// needs it there any more. Never waits.
    pub(crate) fn put_copied(&self, frame: Frame) {
        let page = self.page(frame);
        if page.maps() == 0
            && let Some(slot) = page.slot()
            && page.try_lock()
        {
            self.drop_if_only_cached(frame, slot);
            self.unlock_page(frame);
        }
        self.put(frame);
    }

    /// Takes a locked page, to which the caller has one reference, out of the swap cache if it is
    /// mapped nowhere and no entry names its slot. Returns whether it did.
    pub(crate) fn drop_if_only_cached(&self, frame: Frame, slot: SwapSlot) -> bool {
        let page = self.page(frame);
        let unused = page.slot() == Some(slot) && page.maps() == 0 && self.swap.count(slot) == 1;
        if !unused || !self.cache.remove(&self.pages, &self.order, frame, Some(2)) {
            return false;
        }
        page.set(PageFlags::DIRTY);
        self.swap.release(slot);
        self.put(frame);
        true
    }

    /// Reads a slot into a new page of the swap cache (spec F8); the page is returned with a
    /// reference, unlocked. `None`: the slot was freed, look again.
    pub(crate) fn read_into_swap_cache(&self, slot: SwapSlot) -> Result<Option<Frame>, Refusal> {
        let frame = self.allocate()?;
        self.lock_page(frame);
        if self.swap.duplicate(slot).is_err() {
            self.unlock_and_put(frame);
            return Ok(None);
        }
        let key = Key::Swap(slot);
        if let Err(there) = self.cache.insert(&self.pages, &self.order, key, frame) {
            self.release_slot(slot);
            self.unlock_and_put(frame);
            return Ok(Some(there));
        }
        // An error leaves the page in the cache without its content: whoever maps it gets SIGBUS.
        match self.read_slot(frame, slot) {
            Ok(()) => {
                self.page(frame).set(PageFlags::UPTODATE);
            }
            Err(_) => {
                self.page(frame).set(PageFlags::ERROR);
            }
        }
        self.enqueue(frame, Some(key.hash()));
        self.unlock_page(frame);
        Ok(Some(frame))
    }

    /// Reads a slot's content into a locked page.
    pub(crate) fn read_slot(&self, frame: Frame, slot: SwapSlot) -> Result<(), IoError> {
        self.order.assert_may_sleep();
        let context = self.machine.context();
        self.stats.swap_reads.add(context, 1);
        let read = self.machine.fill(frame, |bytes| self.swap.read(slot, bytes));
        match read {
            Ok(()) => self.observe(|| Event::SwapRead { frame, slot }),
            Err(_) => self.stats.io_errors.add(context, 1),
        }
        read
    }
}
