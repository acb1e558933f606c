//! Batches of stale translations (spec G1, G4).
//!
//! A [`Gather`] collects the pages whose entries were changed, and the frames whose references are
//! to be dropped, until one flush covers them; only then are the references dropped. Linux's
//! `mmu_gather`.

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
    /// Slots that became unused under a cursor: their device is told after it.
    unused: ArrayVec<UnusedSlot, BATCH>,
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

    /// Whether the batch takes so many more pages.
    pub(crate) const fn has_room_for(&self, pages: usize) -> bool {
        pages <= self.stale.remaining_capacity() && pages <= self.unused.remaining_capacity()
    }

    pub(crate) fn add(&mut self, address: VirtAddr, frame: Frame, fate: Fate, after: After) {
        self.mm.pending.note(&mut self.noted, &*self.mm.manager.machine);
        self.stale.push(Stale { address, frame, fate });
        if after == After::Drop {
            self.dropped.push(frame);
        }
    }

    /// Adds a translation of a page that lives on, and keeps the page until the flush.
    pub(crate) fn add_held(&mut self, address: VirtAddr, frame: Frame, fate: Fate) {
        let manager = &self.mm.manager;
        if manager.is_zero_frame(frame) {
            self.add(address, frame, fate, After::Keep);
        } else {
            manager.page(frame).hold(&*manager.machine);
            self.add(address, frame, fate, After::Drop);
        }
    }

    /// Frees a slot, if it is one, when no cursor is held any more: with the next flush.
    pub(crate) fn free_later(&mut self, unused: Option<UnusedSlot>) {
        self.unused.extend(unused);
    }

    /// Flushes if there is no room for more.
    pub(crate) fn flush_if_full(&mut self) {
        if self.is_full() {
            self.flush();
        }
    }

    /// Flushes, and waits until what others changed before is flushed too.
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
        self.mm.pending.flushed(core::mem::take(&mut self.noted), &*manager.machine);
        manager.stats.flushes.add(&*manager.machine, 1);
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
    /// Waits until every entry that others had changed is flushed (Linux:
    /// `flush_tlb_batched_pending`, `mm_tlb_flush_nested`).
    ///
    /// Whoever finds an entry empty, swapped out or read-only may conclude that no processor uses
    /// the page, or stores to it, only after this: reclaim and other verbs change entries first and
    /// flush them together later. The caller has flushed its own and holds no cursor.
    pub(crate) fn await_flushes(&self) {
        self.pending.wait(&self.manager.order, &*self.manager.machine);
    }

    /// Like [`await_flushes`](Self::await_flushes), for a fault, which is engaged.
    ///
    /// To be called before a page takes the place of another, with the new page locked or known to the
    /// caller alone: else a processor could read the other after the new one was stored to.
    #[inline]
    pub(crate) fn await_flushes_in_fault(&self) {
        if self.pending.is_any() {
            let _blocked = self.manager.block();
            self.await_flushes();
        }
    }
}
