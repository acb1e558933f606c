//! Counts the threads with pages in hand and the running passes, which threads that need room must
//! know (see `room.rs`).

use crate::machine::Machine;
use crate::manager::Manager;
use crate::reclaim::passes::{Standing, Yield};
use core::sync::atomic::{AtomicU32, Ordering};

/// Declares that the caller may have pages in hand, until it is dropped.
pub(crate) struct Engaged<'a, M: Machine>(&'a Manager<M>);

impl<M: Machine> Drop for Engaged<'_, M> {
    fn drop(&mut self) {
        self.0.order.note_free();
        self.0.passes.ended.add_ordered(&*self.0.machine, 1);
        self.0.tell_waiters();
    }
}

/// Declares that an engaged caller waits for a lock, until it is dropped.
pub(crate) struct Blocked<'a>(&'a AtomicU32);

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Declares that an engaged caller needs room, until it is dropped and the caller is at work again.
pub(super) struct Aside<'a, M: Machine>(&'a Manager<M>);

impl<M: Machine> Drop for Aside<'_, M> {
    fn drop(&mut self) {
        self.0.passes.begun.add_ordered(&*self.0.machine, 1);
        self.0.passes.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<M: Machine> Manager<M> {
    /// Notes that the caller may have pages in hand from now on. A caller that needs room must be
    /// engaged only once.
    pub(crate) fn engage(&self) -> Engaged<'_, M> {
        self.order.note_engaged();
        self.passes.begun.add_ordered(&*self.machine, 1);
        Engaged(self)
    }

    /// Notes that the engaged caller is about to wait for a lock.
    pub(crate) fn block(&self) -> Blocked<'_> {
        self.passes.blocked.fetch_add(1, Ordering::SeqCst);
        self.tell_waiters();
        Blocked(&self.passes.blocked)
    }

    pub(super) fn step_aside(&self) -> Aside<'_, M> {
        self.passes.waiters.fetch_add(1, Ordering::SeqCst);
        self.passes.ended.add_ordered(&*self.machine, 1);
        self.tell_waiters();
        Aside(self)
    }

    /// Whether the caller is the first that found nothing to evict in this turn.
    pub(super) fn is_first_in(&self, turn: u32) -> bool {
        let (word, next) = (&self.passes.turn, turn.wrapping_add(1));
        word.compare_exchange(turn, next, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn tell_waiters(&self) {
        if self.passes.waiters.load(Ordering::SeqCst) > 0 {
            self.take_turn();
        }
    }

    fn take_turn(&self) {
        self.passes.turn.fetch_add(1, Ordering::SeqCst);
        if self.passes.sleepers.load(Ordering::SeqCst) > 0 {
            self.machine.wake(&self.passes.turn);
        }
    }

    pub(super) fn standing(&self) -> Standing {
        let passes = &self.passes;
        let freed = self.stats.sum(|row| &row.freed);
        let worked = passes.worked.load(Ordering::SeqCst);
        let running = passes.running.load(Ordering::SeqCst);
        let blocked = passes.blocked.load(Ordering::SeqCst);
        // The order matters: a thread counted as engaged became so after the first read. If the
        // count is zero, there was a moment between the two reads at which no thread was engaged.
        let ended = passes.ended.read_ordered();
        let begun = passes.begun.read_ordered();
        let engaged = begun.wrapping_sub(ended);
        Standing { freed, worked, running, begun, engaged, blocked }
    }

    /// Runs a pass that the other threads can see.
    pub(super) fn counted(&self, pass: impl FnOnce() -> Yield) -> Yield {
        let passes = &self.passes;
        passes.running.fetch_add(1, Ordering::SeqCst);
        let own = pass();
        if own.worked {
            passes.worked.fetch_add(1, Ordering::SeqCst);
        }
        let others = passes.running.fetch_sub(1, Ordering::SeqCst) - 1;
        // A waiter reads the turn before it looks for running passes. So the last pass takes a new
        // turn, unless the waiters also wait for an engaged thread. A pass that had no pages need
        // not wake the waiters for others.
        if own.worked || others == 0 && !self.standing().is_busy() {
            self.take_turn();
        }
        own
    }
}
