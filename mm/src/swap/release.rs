//! Gives up slots of entries, and of pages in the swap cache (spec F11).
//!
//! Besides the entries that name a slot, the cache has a reference to it. The thread that drops the
//! last reference gets an [`UnusedSlot`]. It frees the slot where the device may be slow: after
//! releasing the cursor ([`Manager::free_slots`]).

use crate::cache::Key;
use crate::machine::{Frame, Machine, SwapSlot};
use crate::manager::Manager;
use crate::page::Page;
use crate::swap::area::{Released, UnusedSlot};

impl<M: Machine> Manager<M> {
    /// Whether a locked anonymous page has one entry as its only user; the entry names the page or
    /// still names its slot. `passing` counts the caller's own references (spec B15).
    ///
    /// A pinned page had one entry when it was pinned, and is never shared afterwards (J6): further
    /// references are pins and passing users.
    #[inline]
    pub(crate) fn is_sole_owner(&self, page: &Page, passing: u32) -> bool {
        let alone = || page.refs() == page.maps() + page.cache_refs() + passing;
        self.entries_of(page) == 1 && (page.is_pinned() || alone())
    }

    /// How many entries name a locked anonymous page or its slot.
    #[inline]
    pub(crate) fn entries_of(&self, page: &Page) -> u32 {
        page.maps() + page.slot().map_or(0, |slot| self.swap.count(slot).saturating_sub(1))
    }

    /// Discards slots without references, so that they can be used again. The device may be slow.
    #[inline]
    pub(crate) fn free_slots(&self, unused: impl IntoIterator<Item = UnusedSlot<M::Mutex>>) {
        for slot in unused {
            self.order.assert_may_sleep();
            slot.free();
        }
    }

    /// Drops a reference to a slot, where the device may be slow.
    pub(crate) fn release_and_free(&self, slot: SwapSlot) {
        self.free_slots(self.swap.release(slot).unused);
    }

    /// Takes a locked page out of the swap cache and gives up its slot, whose content is no longer
    /// needed.
    #[inline]
    pub(crate) fn leave_swap_cache(&self, frame: Frame) -> Option<UnusedSlot<M::Mutex>> {
        let slot = self.page(frame).slot()?;
        self.give_up_slot(frame, slot)
    }

    fn give_up_slot(&self, frame: Frame, slot: SwapSlot) -> Option<UnusedSlot<M::Mutex>> {
        if !self.cache.remove(&self.counts, &self.pages, &self.order, frame, None) {
            return None;
        }
        self.mark_dirty(self.page(frame));
        let unused = self.swap.release(slot).unused;
        self.put(frame);
        unused
    }

    /// Drops an entry's reference to a slot. If nothing else needs the slot, its cached page goes
    /// too (spec F11). Never waits.
    pub(crate) fn release_slot(&self, slot: SwapSlot) -> Option<UnusedSlot<M::Mutex>> {
        let Released { left, unused } = self.swap.release(slot);
        if left != 1 {
            return unused;
        }
        let frame = self.cache.find(&self.pages, &self.order, Key::Swap(slot))?;
        let unused = self.try_drop_cached(frame, slot);
        self.put(frame);
        unused.flatten()
    }

    /// Drops the reference to a page that was copied, and takes the page out of the swap cache if
    /// nothing needs it there. Waits for no lock.
    pub(crate) fn put_copied(&self, frame: Frame) {
        let page = self.page(frame);
        if page.maps() == 0
            && let Some(slot) = page.slot()
        {
            self.free_slots(self.try_drop_cached(frame, slot).flatten());
        }
        self.put(frame);
    }

    /// Like [`drop_if_only_cached`](Self::drop_if_only_cached), if no thread has the page locked.
    pub(crate) fn try_drop_cached(
        &self,
        frame: Frame,
        slot: SwapSlot,
    ) -> Option<Option<UnusedSlot<M::Mutex>>> {
        if !self.page(frame).try_lock(&*self.machine) {
            return None;
        }
        let dropped = self.drop_if_only_cached(frame, slot);
        self.unlock_page(frame);
        dropped
    }

    /// Takes a locked page out of the swap cache, if it is unmapped and no entry names its slot.
    /// The caller has one reference to the page. Returns whether it did, and the slot if this
    /// dropped its last reference.
    pub(crate) fn drop_if_only_cached(
        &self,
        frame: Frame,
        slot: SwapSlot,
    ) -> Option<Option<UnusedSlot<M::Mutex>>> {
        let page = self.page(frame);
        let unused = page.slot() == Some(slot) && page.maps() == 0 && self.swap.count(slot) == 1;
        if !unused || !self.cache.remove(&self.counts, &self.pages, &self.order, frame, Some(2)) {
            return None;
        }
        self.mark_dirty(page);
        let unused = self.swap.release(slot).unused;
        self.put(frame);
        Some(unused)
    }
}
