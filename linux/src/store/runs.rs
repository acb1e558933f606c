//! Giving room back to the file system: slots are counted in runs, and an empty run is punched out.

use super::Mutex;
use crate::lock;
use crate::reserve::{ReserveError, Table};
use core::ops::Range;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU16, AtomicU32};

/// The slots of a run: 256 KiB.
const RUN: u32 = 64;

/// How many locks the runs are spread over.
const SHARDS: usize = 16;

/// In a run's count: a hole is being punched, and no slot may be written.
const PUNCHED: u16 = 1 << 15;

/// How many slots of each run are in use.
pub(super) struct Runs {
    counts: Table<AtomicU16>,
    shards: [Shard; SHARDS],
}

struct Shard {
    /// Held for a change of a count, not while a hole is punched: that is I/O.
    lock: Mutex<()>,
    /// Changes when a hole is done.
    done: AtomicU32,
}

impl Runs {
    /// No slot of `slots` is in use.
    pub fn new(slots: u32) -> Result<Self, ReserveError> {
        let shard = || Shard { lock: Mutex::new(()), done: AtomicU32::new(0) };
        Ok(Self {
            counts: Table::new(slots.div_ceil(RUN) as usize)?,
            shards: core::array::from_fn(|_| shard()),
        })
    }

    /// Counts a slot in, before it is written; waits while its run is punched out.
    pub fn enter(&self, slot: u32) {
        let (shard, count) = self.of(slot);
        loop {
            let seen = {
                let _locked = shard.lock.lock();
                if count.load(Relaxed) & PUNCHED == 0 {
                    count.fetch_add(1, Relaxed);
                    return;
                }
                shard.done.load(Acquire)
            };
            lock::wait(&shard.done, seen);
        }
    }

    /// Counts a slot out; `punch` is called with the slots of its run if it was the last one.
    pub fn leave(&self, slot: u32, punch: impl FnOnce(Range<u32>)) {
        let (shard, count) = self.of(slot);
        {
            let _locked = shard.lock.lock();
            let left = count.load(Relaxed) - 1;
            count.store(if left == 0 { PUNCHED } else { left }, Relaxed);
            if left > 0 {
                return;
            }
        }
        let start = slot / RUN * RUN;
        punch(start..start.saturating_add(RUN));
        {
            let _locked = shard.lock.lock();
            count.store(0, Relaxed);
            shard.done.fetch_add(1, Release);
        }
        lock::wake_all(&shard.done);
    }

    /// Counts all slots out, with no other call under way.
    pub fn forget_all(&self) {
        // SAFETY: zero is a value of the counters, and a call under way would merely miscount.
        unsafe { self.counts.release(0..self.counts.len() * size_of::<AtomicU16>()) };
    }

    fn of(&self, slot: u32) -> (&Shard, &AtomicU16) {
        let run = (slot / RUN) as usize;
        (&self.shards[run % SHARDS], &self.counts[run])
    }
}

#[cfg(test)]
mod tests;
