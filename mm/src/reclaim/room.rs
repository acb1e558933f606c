//! Waiting for room, and knowing when there will be none (spec F22, F23).
//!
//! A pass that finds nothing to evict proves little while others reclaim too: all pages may be in
//! their batches, perhaps being written to a slow device, and about to be freed. So a futile pass
//! counts only if nobody else's was under way at its end or ended during it with pages in hand, and
//! nobody gave a frame back.

use crate::error::OutOfMemory;
use crate::machine::{Machine, OutOfFrames};
use crate::manager::Manager;
use crate::reclaim::batch::Batch;
use core::sync::atomic::{AtomicU32, Ordering};

/// How often a pass that counts may find nothing before the caller is told that there is no memory.
const FUTILE_PASSES: u32 = 4;

/// How many passes, of anybody, may have pages in hand and free none of them, one after the other:
/// passes that always overlap would wait for one another for ever.
const BARREN_PASSES: u32 = 256;

/// What passes were and are under way.
#[derive(Default)]
pub(crate) struct Passes {
    /// How many are under way.
    running: AtomicU32,
    /// How many ended that had pages in hand.
    worked: AtomicU32,
    /// Changes when a pass with pages in hand or the last one under way ends; who found nothing
    /// to reclaim waits on it.
    turn: AtomicU32,
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

/// How things stood when a pass began.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Standing {
    freed: u64,
    worked: u32,
}

impl<M: Machine> Manager<M> {
    /// Runs `take`, which needs a frame, evicting pages until it succeeds or nothing more can be
    /// evicted (spec F23).
    pub(crate) fn with_room<R>(
        &self,
        mut take: impl FnMut() -> Result<R, OutOfFrames>,
    ) -> Result<R, OutOfMemory> {
        let mut futile = 0;
        let mut barren: Option<Standing> = None;
        loop {
            if self.machine.free_frames() < self.watermarks.low {
                self.wake_background();
            }
            if let Ok(taken) = take() {
                return Ok(taken);
            }
            self.order.assert_may_sleep();
            self.stats.direct_passes.add(self.machine.context(), 1);
            let before = self.standing();
            let own = self.counted_pass(Batch::<M>::SIZE);
            let turn = self.passes.turn.load(Ordering::Acquire);
            let alone = self.passes.running.load(Ordering::Acquire) == 0;
            let after = self.standing();
            if own.freed > 0 || after.freed != before.freed {
                (futile, barren) = (0, None);
                continue;
            }
            let first = *barren.get_or_insert(before);
            let worked = before.worked.wrapping_add(u32::from(own.worked));
            if alone && after.worked == worked {
                futile += 1;
            }
            if futile == FUTILE_PASSES
                || after.worked.wrapping_sub(first.worked) >= BARREN_PASSES
                    && after.freed == first.freed
            {
                return Err(OutOfMemory);
            }
            if !alone {
                self.machine.wait(&self.passes.turn, turn);
            }
        }
    }

    fn standing(&self) -> Standing {
        let worked = self.passes.worked.load(Ordering::Acquire);
        Standing { freed: self.stats.freed.read(), worked }
    }

    /// Evicts up to `pages` pages and returns how many were freed.
    pub fn reclaim(&self, pages: usize) -> usize {
        self.counted_pass(pages).freed
    }

    /// Makes a pass that the others know of.
    fn counted_pass(&self, pages: usize) -> Yield {
        let passes = &self.passes;
        passes.running.fetch_add(1, Ordering::AcqRel);
        let own = self.pass(pages);
        if own.worked {
            passes.worked.fetch_add(1, Ordering::AcqRel);
        }
        let others = passes.running.fetch_sub(1, Ordering::AcqRel) - 1;
        // Who waits looked for passes under way after it had read the turn: the last of them takes
        // another turn in any case. One that had nothing need not wake those who wait for others.
        if own.worked || others == 0 {
            passes.turn.fetch_add(1, Ordering::AcqRel);
            self.machine.wake(&passes.turn);
        }
        own
    }
}
