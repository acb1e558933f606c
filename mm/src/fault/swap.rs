//! Bringing a page back from swap (spec B14, B15).

use crate::cache::Key;
use crate::entries::{GUARD, PageCursor};
use crate::error::Refusal;
use crate::event::{Ahead, Correction, Weight};
use crate::fault::{Fault, Purpose, Step, page_range};
use crate::machine::{Access, Cursor, Entry, Frame, Machine, SwapSlot};
use crate::mm::{Kind, Mm};
use crate::page::{Owner, Page, PageFlags};
use crate::swap::area::Released;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;

impl<M: Machine> Mm<M> {
    /// Maps the page of a slot, reading it if it is not in the swap cache.
    pub(super) fn swap_in(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
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
        if self.awaits_store_to(vma, fault, slot)
            && let Some(claim) = manager.swap.claim(slot)
        {
            return self.swap_in_alone(vma, fault, claim);
        }
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
        if step == Ok(Step::Again)
            && let Some(unused) = manager.drop_if_only_cached(frame, slot)
        {
            // This read was wasted: another fault had already brought the page back.
            manager.free_slots(unused);
        }
        manager.unlock_and_put(frame);
        step
    }

    /// Maps a locked page, if it still belongs to the slot and the entry still names the slot.
    fn map_swapped(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        slot: SwapSlot,
        frame: Frame,
    ) -> Result<Step, Refusal> {
        let manager = &self.manager;
        let page = manager.page(frame);
        if page.slot() != Some(slot) {
            return Ok(Step::Again);
        }
        // Processors may still read the frame that was evicted. The slot's page is locked, so the
        // entry cannot have changed to a page and back.
        self.await_flushes_of(fault.page);
        let mut cursor = self.entries(page_range(fault.page))?;
        if !vma.is_alive() || cursor.entry(fault.page) != Entry::Swap(slot) {
            return Ok(Step::Again);
        }
        if !page.has(PageFlags::UPTODATE) {
            drop(cursor);
            // The slot may be readable next time; this unread page is useless.
            manager.free_slots(manager.leave_swap_cache(frame));
            return Err(Refusal::Bus);
        }
        let Some(family) = &vma.anon else { return Ok(Step::Again) };
        // Only the cache and the caller may know the page, and no other entry the slot.
        let sole = manager.is_sole_owner(page, 1);
        if page.owner() == Owner::None {
            // Relatives may still name the slot: the page belongs to the family that all share,
            // unless there are none.
            let all = if sole { family } else { vma.ancestors.first().unwrap_or(family) };
            page.set_owner(Owner::Anon(all.id), vma.index_of(fault.page));
        }
        self.count_in_place_of_slot(page, slot);
        if fault.purpose != Purpose::Access {
            manager.mark_guessed(frame, Ahead::Swapped);
        }
        if sole && self.awaits_store_to(vma, fault, slot) {
            self.reuse(vma, fault, &mut cursor, frame);
            return Ok(Step::Done(Correction::SwapIn));
        }
        self.enter_read_only(vma, fault, &mut cursor, frame);
        Ok(match fault.access {
            Access::Write => Step::Partly(Correction::SwapIn),
            _ => Step::Done(Correction::SwapIn),
        })
    }

    /// Counts the entry that is about to name a page, and no longer its slot.
    #[inline]
    fn count_in_place_of_slot(&self, page: &Page, slot: SwapSlot) {
        let manager = &self.manager;
        page.hold(&*manager.machine);
        manager.count_mapping(page);
        self.count_rss(Kind::Anon, 1);
        // The cache has a reference too, so that this is not the last.
        let Released { left, unused } = manager.swap.release(slot);
        debug_assert!(left > 0 && unused.is_none(), "{slot:?} was cached without a reference");
    }

    /// Enters a page that keeps its slot as long as it stays clean; none if slots are scarce.
    #[inline]
    fn enter_read_only(
        &self,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        cursor: &mut PageCursor<'_, M>,
        frame: Frame,
    ) {
        let manager = &self.manager;
        let accessed = fault.purpose == Purpose::Access;
        let protection = vma.page_protection().read_only();
        let entry = Entry::Present { frame, protection, accessed, dirty: false };
        cursor.replace(fault.page, entry);
        if manager.swap.is_more_than_half_full() && manager.is_sole_owner(manager.page(frame), 1) {
            // A free slot is worth more than avoiding a write later (spec B14 (7)).
            fault.unused = manager.leave_swap_cache(frame);
            let entry = Entry::Present { frame, protection, accessed, dirty: true };
            cursor.replace(fault.page, entry);
        }
    }
}

impl<M: Machine> Mm<M> {
    /// Whether a page that comes back is being stored to, or will probably be soon, on a machine where
    /// the store would fault again.
    fn awaits_store_to(&self, vma: &Vma<M>, fault: &Fault<M>, slot: SwapSlot) -> bool {
        let manager = &self.manager;
        let expects_store = || manager.foresight.expects_store(slot, manager.passes.turn());
        fault.access == Access::Write
            || !manager.machine.capabilities().dirty && vma.has(VmaFlags::WRITE) && expects_store()
    }
}
