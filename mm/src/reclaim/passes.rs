//! Counts of passes and of engaged threads.

use crate::stats::Counter;
use core::sync::atomic::{AtomicU32, Ordering};

/// The engaged threads, and past and running passes.
#[derive(Default)]
pub(crate) struct Passes {
    /// How often threads became engaged, and ceased to be.
    pub(super) begun: Counter,
    pub(super) ended: Counter,
    /// How many of the engaged wait for a lock.
    pub(super) blocked: AtomicU32,
    /// How many of the engaged stepped aside because they need room.
    pub(super) waiters: AtomicU32,
    /// The number of running passes.
    pub(super) running: AtomicU32,
    /// How many passes have ended that had pages in hand.
    pub(super) worked: AtomicU32,
    /// Changes with every event for which threads that need room may wait.
    pub(super) turn: AtomicU32,
    /// How many threads sleep until it changes, or are about to.
    pub(super) sleepers: AtomicU32,
    /// How many callers in a row found almost nothing to evict.
    pub(super) worn_out: AtomicU32,
    /// How often pages may go on standby in place of used ones before a pass evicts again.
    refills: AtomicU32,
}

/// The most refills of standby between two passes that evict. A program most of whose pages are used again, such as
/// a hash of perl's that nearly fits, takes one for two passes.
const REFILLS: u32 = 4;

impl Passes {
    /// A number that changes from time to time.
    pub(crate) fn turn(&self) -> u32 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Notes that a pass evicted.
    pub(super) fn allow_refills(&self) {
        // Most passes of a thread find it as the last one left it.
        if self.refills.load(Ordering::Relaxed) != REFILLS {
            self.refills.store(REFILLS, Ordering::Relaxed);
        }
    }

    /// Whether standby may be refilled once more. A race adds or loses a refill, nothing else.
    pub(super) fn take_refill(&self) -> bool {
        let refills = self.refills.load(Ordering::Relaxed);
        if refills > 0 {
            self.refills.store(refills - 1, Ordering::Relaxed);
        }
        refills > 0
    }
}

/// The result of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Yield {
    /// How many pages were freed.
    pub(super) freed: usize,
    /// Whether any page looked evictable.
    pub(super) worked: bool,
}

impl Yield {
    /// Adds what a further batch yielded.
    pub(super) const fn add(&mut self, more: Self) {
        self.freed += more.freed;
        self.worked |= more.worked;
    }
}

/// The counts at one moment.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    pub(super) freed: u64,
    pub(super) worked: u32,
    pub(super) running: u32,
    pub(super) begun: u64,
    /// How many threads are engaged; may be too high.
    pub(super) engaged: u64,
    pub(super) blocked: u32,
}

impl Standing {
    /// Whether a thread is at work that will announce its end.
    pub(super) fn is_busy(&self) -> bool {
        self.running > 0 || self.engaged > u64::from(self.blocked)
    }

    /// Whether nothing but the caller's own pass happened since `before`.
    pub(super) fn is_quiet_since(&self, before: &Self, own: Yield) -> bool {
        let undisturbed = self.engaged == 0 && before.engaged == 0 && self.begun == before.begun;
        let passes = before.worked.wrapping_add(u32::from(own.worked));
        undisturbed && self.running == 0 && self.worked == passes
    }
}
