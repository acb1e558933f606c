//! What is counted of passes, and of those who are at work.

use crate::stats::Counter;
use core::sync::atomic::{AtomicU32, Ordering};

/// Who is at work, and what passes were and are under way.
#[derive(Default)]
pub(crate) struct Passes {
    /// How often anyone became engaged, and ceased to be.
    pub(super) begun: Counter,
    pub(super) ended: Counter,
    /// How many of the engaged wait for a lock.
    pub(super) blocked: AtomicU32,
    /// How many stepped aside because they need room.
    pub(super) waiters: AtomicU32,
    /// How many passes are under way.
    pub(super) running: AtomicU32,
    /// How many ended that had pages in hand.
    pub(super) worked: AtomicU32,
    /// Changes when something happens that those who need room may wait for.
    pub(super) turn: AtomicU32,
    /// How many sleep until it does, or are about to.
    pub(super) sleepers: AtomicU32,
    /// How many callers in a row found that almost nothing can leave.
    pub(super) worn_out: AtomicU32,
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
pub(super) struct Standing {
    pub(super) freed: u64,
    pub(super) worked: u32,
    pub(super) running: u32,
    pub(super) begun: u64,
    /// How many are engaged, or more.
    pub(super) engaged: u64,
    pub(super) blocked: u32,
}

impl Standing {
    /// Whether someone is at work who will say when he is done.
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
