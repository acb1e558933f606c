//! Batches of stale translations (spec G1, G4).
//!
//! A [`Gather`] collects the pages whose entries were changed, and the frames whose references are
//! to be dropped, until one flush covers them; only then are the references dropped. Linux's
//! `mmu_gather`.

use crate::machine::{Fate, Frame, Machine, Stale, VirtAddr};
use crate::manager::Manager;
use crate::mm::Mm;
use crate::swap::area::UnusedSlot;
use crate::sync::{LockOrder, SleepLock};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU32, Ordering};

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

/// How many changed entries of an address space still wait for their flush, in two phases.
///
/// A change is noted under its entry's cursor, in the phase of that moment. Who waits for the changes
/// made so far turns to the other phase and waits until the one before is empty: changes that go on
/// being made meanwhile cannot keep him.
#[derive(Default)]
pub(crate) struct Pending {
    counts: [AtomicU32; 2],
    /// The phase in which changes are noted.
    phase: AtomicU32,
    /// How many wait for a phase to become empty.
    waiters: AtomicU32,
    /// Who turns the phase and waits.
    turning: SleepLock,
}

/// So many changes in each phase.
pub(crate) type Noted = [u32; 2];

impl Pending {
    /// Notes a change of an entry, whose cursor the caller holds.
    pub(crate) fn note(&self, noted: &mut Noted) {
        let phase = self.phase.load(Ordering::SeqCst) as usize;
        self.counts[phase].fetch_add(1, Ordering::SeqCst);
        noted[phase] += 1;
    }

    /// Notes that changes were flushed.
    pub(crate) fn flushed(&self, noted: Noted, machine: &impl Machine) {
        for (count, flushed) in self.counts.iter().zip(noted) {
            // Who waits says so before he looks at the count.
            let is_last = flushed > 0 && count.fetch_sub(flushed, Ordering::SeqCst) == flushed;
            if is_last && self.waiters.load(Ordering::SeqCst) > 0 {
                machine.wake(count);
            }
        }
    }

    /// Whether a change was noted and is not flushed yet.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.counts.iter().any(|count| count.load(Ordering::SeqCst) != 0)
    }

    /// Waits until all that was noted before is flushed.
    pub(crate) fn wait<M: Machine>(&self, order: &LockOrder<M>, machine: &M) {
        if !self.is_any() {
            return;
        }
        let _turning = self.turning.lock_unranked(order);
        let now = self.phase.load(Ordering::SeqCst);
        // Only those are noted there that looked at the phase before it was turned the last time.
        self.wait_for(1 - now, machine);
        self.phase.store(1 - now, Ordering::SeqCst);
        self.wait_for(now, machine);
    }

    fn wait_for(&self, phase: u32, machine: &impl Machine) {
        let count = &self.counts[phase as usize];
        self.waiters.fetch_add(1, Ordering::SeqCst);
        loop {
            match count.load(Ordering::SeqCst) {
                0 => break,
                pending => machine.wait(count, pending),
            }
        }
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }
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
        self.mm.pending.note(&mut self.noted);
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
            manager.page(frame).hold();
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
