//! Waits for a free frame, and decides that there will be none (spec F22, F23).
//!
//! A pass that frees nothing proves little while other threads are at work. All pages may be in the batches of other
//! passes. Or faults have them: a new frame that is not queued yet, or a page that is held for a moment. A thread that
//! may have such pages is *engaged*. When it needs a frame itself, it steps *aside* and is engaged no more.
//!
//! So a pass that frees nothing counts only if it was *quiet*: no other thread was or became engaged, no other pass
//! ran or ended with pages in its batch, and no thread freed a frame. If several threads find nothing at the same
//! time, one of them fails for lack of memory. The others retry when it has released what it holds.
//!
//! A thread that finds others at work sleeps until one of them is done. An engaged thread may wait for a lock whose
//! holder needs a frame. It is then marked as waiting, and no thread sleeps until it is done.

use crate::error::OutOfMemory;
use crate::machine::{Machine, OutOfFrames};
use crate::manager::Manager;
use crate::reclaim::batch::Batch;
use crate::reclaim::passes::Standing;
use crate::reclaim::queue::Sight;
use crate::reclaim::victim::Force;
use core::sync::atomic::Ordering;

/// How many quiet passes in a row may find nothing before the caller is told that there is no memory.
const FUTILE_PASSES: u32 = 4;

/// How many passes in a row may free nothing although they were not quiet. The caller then gives up, once
/// [`PATIENCE`] is over or no thread is left to sleep for: the other threads might never become quiet.
const DISTURBED_PASSES: u32 = 256;

/// After this many callers in a row that could evict only pages that programs run from, memory is out.
const WORN_OUT: u32 = 64;

/// How long a caller waits at least for other threads that have pages in hand, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// The passes in a row that freed nothing.
#[derive(Default)]
struct Search {
    quiet: u32,
    disturbed: u32,
    /// When the first of them ended.
    since: Option<u64>,
}

impl Search {
    /// What the next pass may evict. After a pass that freed nothing, even pages in use leave: a processor may use a
    /// page again and again between two passes, without a fault that would be at work.
    const fn force(&self) -> Force {
        if self.since.is_none() { Force::Polite } else { Force::Urgent }
    }

    /// A pass has freed nothing.
    const fn add(&mut self, is_quiet: bool) {
        if is_quiet {
            self.quiet += 1;
        } else {
            self.quiet = 0;
            self.disturbed += 1;
        }
    }

    /// Whether so many passes were disturbed that waiting for those who disturb makes no sense any more.
    fn is_endless(&mut self, now: u64, standing: &Standing) -> bool {
        let since = *self.since.get_or_insert(now);
        let patient = standing.is_busy() && now.saturating_sub(since) < PATIENCE;
        self.disturbed >= DISTURBED_PASSES && !patient
    }
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
        if self.is_worn_out() {
            return Err(OutOfMemory);
        }
        let mut search = Search::default();
        loop {
            let before = self.standing();
            if let Ok(taken) = take() {
                return Ok(taken);
            }
            self.stats.of(&*self.machine).direct_passes.add(&*self.machine, 1);
            let own = self.counted(|| self.direct_pass(search.force()));
            // Read before the standing, so that what changes afterwards ends the wait below.
            let turn = self.passes.turn.load(Ordering::SeqCst);
            let after = self.standing();
            if own.freed > 0 || after.freed != before.freed {
                search = Search::default();
                continue;
            }
            search.add(after.is_quiet_since(&before, own));
            if search.quiet >= FUTILE_PASSES {
                // At work again before anyone else can be told the same.
                let engaged = self.engage();
                if self.is_first_in(turn) {
                    drop(aside);
                    drop(engaged);
                    return Err(OutOfMemory);
                }
            }
            if search.is_endless(self.machine.now(), &after) {
                return Err(OutOfMemory);
            }
            self.await_others(&after, turn);
        }
    }

    /// Lets the others who are at work go on: sleeps until the turn changes, or yields the CPU.
    fn await_others(&self, standing: &Standing, turn: u32) {
        if standing.is_busy() {
            // Counted before the turn is compared: a thread that takes a turn reads the count afterwards.
            self.passes.sleepers.fetch_add(1, Ordering::SeqCst);
            self.machine.wait(&self.passes.turn, turn);
            self.passes.sleepers.fetch_sub(1, Ordering::SeqCst);
        } else {
            // A thread that waited for a lock may have it by now, and needs the CPU.
            self.machine.pause();
        }
    }

    /// Whether only the last few pages, which programs run from, have been able to leave for some time,
    /// because page tables hold the rest.
    ///
    /// Each such page comes back with the next instruction. Reclaim would free something every time, whether
    /// swap has room or not, and no program would make progress. One look proves little, because other passes
    /// have pages in hand. A machine that does not see every use does not manage code.
    fn is_worn_out(&self) -> bool {
        let looks = &self.passes.worn_out;
        if !self.is_little_left() {
            looks.store(0, Ordering::Relaxed);
            return false;
        }
        let is_proven = looks.fetch_add(1, Ordering::Relaxed) >= WORN_OUT;
        if is_proven {
            looks.store(0, Ordering::Relaxed);
        }
        is_proven
    }

    /// Whether no more pages can leave than the last few, which programs run from.
    pub(super) fn is_little_left(&self) -> bool {
        self.queues.sight() == Sight::Bits
            && self.queues.lengths(&self.order).all() <= self.watermarks.files
    }

    /// Has frames kept free by the background thread, if there is one and it is time.
    pub(crate) fn keep_ahead(&self) {
        if self.background_threads.load(Ordering::SeqCst) > 0
            && self.machine.free_frames() < self.watermarks.low
        {
            self.wake_background();
        }
    }

    /// Asks the background thread to look for work.
    pub fn wake_background(&self) {
        self.background.fetch_add(1, Ordering::AcqRel);
        self.machine.wake(&self.background);
    }

    /// Evicts up to `pages` pages of any address space and returns how many were freed, as a write to
    /// `memory.reclaim` of a cgroup does. Fewer if the rest is in use, locked or pinned, or there is no
    /// room for it in swap. Waits for I/O; call it without a lock.
    pub fn reclaim(&self, pages: usize) -> usize {
        let pages = pages.min(self.queues.lengths(&self.order).all() as usize);
        // One more batch at most restores standby: a fault may wait for this.
        let most = pages + Batch::<M>::SIZE;
        self.counted(|| self.pass(pages, pages..=most, Force::Polite)).freed
    }
}
