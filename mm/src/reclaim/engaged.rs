//! Who is at work with pages in hand, and which passes are under way: what those who need room have
//! to know of each other (see `room.rs`).

use crate::machine::Machine;
use crate::manager::Manager;
use crate::reclaim::passes::{Standing, Yield};
use core::sync::atomic::{AtomicU32, Ordering};

/// Says that the caller may have pages in hand, until it is dropped.
pub(crate) struct Engaged<'a, M: Machine>(&'a Manager<M>);

impl<M: Machine> Drop for Engaged<'_, M> {
    fn drop(&mut self) {
        self.0.order.note_free();
        self.0.passes.ended.add_ordered(&*self.0.machine, 1);
        self.0.tell_waiters();
    }
}

/// Says that an engaged caller waits for a lock, until it is dropped.
pub(crate) struct Blocked<'a>(&'a AtomicU32);

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Says that an engaged caller needs room, until it is dropped: he is at work again then.
pub(super) struct Aside<'a, M: Machine>(&'a Manager<M>);

impl<M: Machine> Drop for Aside<'_, M> {
    fn drop(&mut self) {
        self.0.passes.begun.add_ordered(&*self.0.machine, 1);
        self.0.passes.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<M: Machine> Manager<M> {
    /// Notes that the caller may have pages in hand from now on. Nobody is engaged twice when he
    /// needs room.
    pub(crate) fn engage(&self) -> Engaged<'_, M> {
        self.order.note_engaged();
        self.passes.begun.add_ordered(&*self.machine, 1);
        Engaged(self)
    }

    /// Notes that the caller, who is engaged, is about to wait for a lock.
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

    /// Whether the caller, who saw no hope in this turn, is the first who did.
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
        let freed = self.stats.freed.read();
        let worked = passes.worked.load(Ordering::SeqCst);
        let running = passes.running.load(Ordering::SeqCst);
        let blocked = passes.blocked.load(Ordering::SeqCst);
        // In this order: who is counted as engaged was so after the first was read, and if nobody
        // is, there was a moment between the two at which nobody was.
        let ended = passes.ended.read_ordered();
        let begun = passes.begun.read_ordered();
        let engaged = begun.wrapping_sub(ended);
        Standing { freed, worked, running, begun, engaged, blocked }
    }

    /// Makes a pass that the others know of.
    pub(super) fn counted(&self, pass: impl FnOnce() -> Yield) -> Yield {
        let passes = &self.passes;
        passes.running.fetch_add(1, Ordering::SeqCst);
        let own = pass();
        if own.worked {
            passes.worked.fetch_add(1, Ordering::SeqCst);
        }
        let others = passes.running.fetch_sub(1, Ordering::SeqCst) - 1;
        // Who waits looked for passes under way after it had read the turn: the last of them takes
        // another turn, unless they wait for someone who is engaged too. One that had nothing need
        // not wake those who wait for others.
        if own.worked || others == 0 && !self.standing().is_busy() {
            self.take_turn();
        }
        own
    }
}
