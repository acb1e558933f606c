//! Batches of stale translations (spec G1, G4).
//!
//! A [`Gather`] collects pages with changed entries, and frames whose references must be dropped,
//! until one flush covers them. Only then does it drop the references. Linux's `mmu_gather`.

use crate::machine::{Fate, Frame, Machine, Stale, VirtAddr};
use crate::manager::Manager;
use crate::mm::Mm;
use crate::pending::Noted;
use crate::swap::area::UnusedSlot;
use arrayvec::ArrayVec;

/// How many pages one flush covers. A batch lives on the stack, which in a signal handler or a
/// kernel is small.
const BATCH: usize = 64;

/// What happens to the page's reference after the flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The entry's reference is dropped.
    Drop,
    /// There is no reference to drop.
    Keep,
}

/// A batch for one address space.
pub(crate) struct Gather<'a, M: Machine> {
    pub(crate) mm: &'a Mm<M>,
    stale: ArrayVec<Stale, BATCH>,
    noted: Noted,
    /// The frames whose references are dropped after the flush.
    dropped: ArrayVec<Frame, BATCH>,
    /// Slots that became unused under a cursor: the device learns it after the cursor.
    unused: ArrayVec<UnusedSlot<M::Mutex>, BATCH>,
}

impl<'a, M: Machine> Gather<'a, M> {
    pub(crate) fn new(mm: &'a Mm<M>) -> Self {
        Self {
            mm,
            stale: ArrayVec::new(),
            noted: [0; 2],
            dropped: ArrayVec::new(),
            unused: ArrayVec::new(),
        }
    }

    /// Whether the batch must be flushed before more is added.
    pub(crate) const fn is_full(&self) -> bool {
        self.stale.is_full() || self.unused.is_full()
    }

    /// Whether the batch has room for this many more pages.
    pub(crate) const fn has_room_for(&self, pages: usize) -> bool {
        pages <= self.stale.remaining_capacity() && pages <= self.unused.remaining_capacity()
    }

    pub(crate) fn add(&mut self, address: VirtAddr, frame: Frame, fate: Fate, after: After) {
        self.mm.pending.note(&mut self.noted, address, &*self.mm.manager.machine);
        self.stale.push(Stale { address, frame, fate });
        if after == After::Drop {
            self.dropped.push(frame);
        }
    }

    /// Adds a translation of a page that lives on, and keeps the page until the flush.
    pub(crate) fn add_held(&mut self, address: VirtAddr, frame: Frame, fate: Fate) {
        let manager = &self.mm.manager;
        if manager.is_bare(frame) {
            self.add(address, frame, fate, After::Keep);
        } else {
            manager.page(frame).hold(&*manager.machine);
            self.add(address, frame, fate, After::Drop);
        }
    }

    /// Frees a slot, if there is one, with the next flush, when no cursor is held.
    pub(crate) fn free_later(&mut self, unused: Option<UnusedSlot<M::Mutex>>) {
        self.unused.extend(unused);
    }

    /// Flushes if there is no room for more.
    pub(crate) fn flush_if_full(&mut self) {
        if self.is_full() {
            self.flush();
        }
    }

    /// Flushes, and waits until earlier changes of other threads are flushed too.
    pub(crate) fn settle(&mut self) {
        self.flush();
        self.mm.await_flushes();
    }

    /// Flushes, then drops the references and frees the slots. The caller holds no cursor and no
    /// shorter lock.
    pub(crate) fn flush(&mut self) {
        let manager: &Manager<M> = &self.mm.manager;
        manager.free_slots(self.unused.drain(..));
        if self.stale.is_empty() {
            return;
        }
        manager.order.assert_may_sleep();
        manager.machine.flush(&self.mm.space, &self.stale);
        let pages = self.stale.iter().map(|stale| stale.address);
        self.mm.pending.flushed(core::mem::take(&mut self.noted), pages, &*manager.machine);
        manager.stats.of(&*manager.machine).flushes.add(&*manager.machine, 1);
        for frame in self.dropped.drain(..) {
            manager.put(frame);
        }
        self.stale.clear();
    }
}

impl<M: Machine> Drop for Gather<'_, M> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl<M: Machine> Mm<M> {
    /// Waits until every entry that other threads changed before is flushed (Linux:
    /// `flush_tlb_batched_pending`, `mm_tlb_flush_nested`).
    ///
    /// Reclaim and other verbs change entries first and flush them together later. So a thread that
    /// finds an entry empty, swapped out or read-only may conclude only after this wait that no
    /// processor uses the page or stores to it. The caller has flushed its own changes and holds no
    /// cursor.
    pub(crate) fn await_flushes(&self) {
        self.pending.wait(&self.manager.order, &*self.manager.machine);
    }

    /// Waits until every change of the entry of `page` is flushed, for an engaged fault.
    ///
    /// Call this before one page replaces another, with the new page locked or known only to the
    /// caller. Otherwise a processor could read the old page after a store to the new one. Another
    /// thread's batch of other pages does not concern the fault.
    #[inline]
    pub(crate) fn await_flushes_of(&self, page: VirtAddr) {
        if self.pending.is_any_of(page) {
            let _blocked = self.manager.block();
            self.pending.wait_for_page(page, &self.manager.order, &*self.manager.machine);
        }
    }
}
