//! Waiting for room, and knowing when there will be none (spec F22, F23).
//!
//! A pass that finds nothing to evict proves little while others are at work: all pages may be in
//! the batches of other passes, or in the hands of faults that have taken a frame and not queued it
//! yet, or that hold a page for a moment. So a futile pass counts only if it was *quiet*: nobody was
//! or became *engaged* meanwhile, nobody else's pass was under way or ended with pages in hand, and
//! nobody gave a frame back. Whoever may have pages in hand is engaged, until he needs room himself:
//! then he steps aside. Of several who see no hope at the same time one is told so; the others look
//! again when he has let go of what he held.
//!
//! Who finds others at work sleeps until one of them is done. One who is engaged may himself wait
//! for a lock that a thread in need of room holds; he says so, and nobody sleeps for his sake.

use crate::error::OutOfMemory;
use crate::machine::{Machine, OutOfFrames};
use crate::manager::Manager;
use crate::reclaim::batch::Force;
use crate::stats::Counter;
use core::sync::atomic::{AtomicU32, Ordering};

/// How many quiet passes in a row may find nothing before the caller is told that there is no memory.
const FUTILE_PASSES: u32 = 4;

/// How many passes that were not quiet may free nothing, one after the other, if it takes
/// [`PATIENCE`] too or nobody is left to sleep for: those who disturb may do so for ever.
const DISTURBED_PASSES: u32 = 256;

/// How long in nanoseconds others are waited for at least before they are given up.
const PATIENCE: u64 = 1_000_000_000;

/// Who is at work, and what passes were and are under way.
#[derive(Default)]
pub(crate) struct Passes {
    /// How often anyone became engaged, and ceased to be.
    begun: Counter,
    ended: Counter,
    /// How many of the engaged wait for a lock.
    blocked: AtomicU32,
    /// How many stepped aside because they need room.
    waiters: AtomicU32,
    /// How many passes are under way.
    running: AtomicU32,
    /// How many ended that had pages in hand.
    worked: AtomicU32,
    /// Changes when something happens that those who need room may wait for.
    turn: AtomicU32,
    /// How many sleep until it does, or are about to.
    sleepers: AtomicU32,
}

impl Passes {
    /// A number that changes from time to time.
    pub(crate) fn turn(&self) -> u32 {
        self.turn.load(Ordering::Relaxed)
    }
}

/// What a pass achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Yield {
    /// How many pages were freed.
    pub(super) freed: usize,
    /// Whether there were any that looked as if they could be.
    pub(super) worked: bool,
}

/// How things stand at one moment.
#[derive(Clone, Copy)]
struct Standing {
    freed: u64,
    worked: u32,
    running: u32,
    begun: u64,
    /// How many are engaged, or more.
    engaged: u64,
    blocked: u32,
}

impl Standing {
    /// Whether someone is at work who will say when he is done.
    fn is_busy(&self) -> bool {
        self.running > 0 || self.engaged > u64::from(self.blocked)
    }

    /// Whether nothing but the caller's own pass happened since `before`.
    fn is_quiet_since(&self, before: &Self, own: Yield) -> bool {
        let undisturbed = self.engaged == 0 && before.engaged == 0 && self.begun == before.begun;
        let passes = before.worked.wrapping_add(u32::from(own.worked));
        undisturbed && self.running == 0 && self.worked == passes
    }
}

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
struct Aside<'a, M: Machine>(&'a Manager<M>);

impl<M: Machine> Drop for Aside<'_, M> {
    fn drop(&mut self) {
        self.0.passes.begun.add_ordered(&*self.0.machine, 1);
        self.0.passes.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The passes in a row that freed nothing.
#[derive(Default)]
struct Search {
    quiet: u32,
    disturbed: u32,
    /// When the first of them ended.
    since: Option<u64>,
}

impl<M: Machine> Manager<M> {
    /// Runs `take`, which needs a frame, evicting pages until it succeeds or nothing more can be
    /// evicted (spec F23). The caller is engaged.
    pub(crate) fn with_room<R>(
        &self,
        mut take: impl FnMut() -> Result<R, OutOfFrames>,
    ) -> Result<R, OutOfMemory> {
        self.order.assert_engaged_once();
        self.keep_ahead();
        match take() {
            Ok(taken) => Ok(taken),
            Err(OutOfFrames) => self.make_room(take),
        }
    }

    #[cold]
    fn make_room<R>(
        &self,
        mut take: impl FnMut() -> Result<R, OutOfFrames>,
    ) -> Result<R, OutOfMemory> {
        self.order.assert_may_sleep();
        let aside = self.step_aside();
        let mut search = Search::default();
        loop {
            let before = self.standing();
            if let Ok(taken) = take() {
                return Ok(taken);
            }
            self.stats.direct_passes.add(&*self.machine, 1);
            // Who finds nothing spares nothing any more: a processor may use a page again and again
            // between two looks, and needs nobody for it.
            let force = if search.since.is_none() { Force::Polite } else { Force::Urgent };
            let own = self.counted(|| self.pass(self.machine.direct_batch().max(1), force));
            // Read before the standing, so that what changes afterwards ends the wait below.
            let turn = self.passes.turn.load(Ordering::SeqCst);
            let after = self.standing();
            if own.freed > 0 || after.freed != before.freed {
                search = Search::default();
                continue;
            }
            if after.is_quiet_since(&before, own) {
                search.quiet += 1;
            } else {
                search.quiet = 0;
                search.disturbed += 1;
            }
            if search.quiet >= FUTILE_PASSES {
                // At work again before anyone else can be told the same.
                let engaged = self.engage();
                if self.is_first_in(turn) {
                    drop(aside);
                    drop(engaged);
                    return Err(OutOfMemory);
                }
            }
            let since = *search.since.get_or_insert_with(|| self.machine.now());
            let patient = after.is_busy() && self.machine.now() - since < PATIENCE;
            if search.disturbed >= DISTURBED_PASSES && !patient {
                return Err(OutOfMemory);
            }
            if after.is_busy() {
                // Said before the turn is looked at: who takes a turn looks afterwards.
                self.passes.sleepers.fetch_add(1, Ordering::SeqCst);
                self.machine.wait(&self.passes.turn, turn);
                self.passes.sleepers.fetch_sub(1, Ordering::SeqCst);
            } else {
                // Who waited for a lock may have it by now, and needs a processor.
                self.machine.pause();
            }
        }
    }

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

    fn step_aside(&self) -> Aside<'_, M> {
        self.passes.waiters.fetch_add(1, Ordering::SeqCst);
        self.passes.ended.add_ordered(&*self.machine, 1);
        self.tell_waiters();
        Aside(self)
    }

    /// Whether the caller, who saw no hope in this turn, is the first who did.
    fn is_first_in(&self, turn: u32) -> bool {
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

    fn standing(&self) -> Standing {
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

    /// Evicts up to `pages` pages and returns how many were freed.
    pub fn reclaim(&self, pages: usize) -> usize {
        self.counted(|| self.pass(pages, Force::Polite)).freed
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
