//! Changed entries that still wait for their flush.

use crate::machine::Machine;
use crate::sync::{LockOrder, SleepLock};
use crate::word::Word;
use core::sync::atomic::{AtomicU32, Ordering};

/// How many changed entries of an address space still wait for their flush, in two phases.
///
/// A change is noted under its entry's cursor, in the current phase. A waiter for the changes made
/// so far switches to the other phase and waits until the old one is empty. So later changes cannot
/// delay it.
#[derive(Default)]
pub(crate) struct Pending {
    counts: [AtomicU32; 2],
    /// The phase in which changes are noted.
    phase: AtomicU32,
    /// The number of waiters for a phase to become empty.
    waiters: AtomicU32,
    /// Held by the thread that switches the phase and waits.
    turning: SleepLock,
}

/// The number of changes in each phase.
pub(crate) type Noted = [u32; 2];

impl Pending {
    /// Notes a change of an entry; the caller holds its cursor.
    #[inline]
    pub(crate) fn note(&self, noted: &mut Noted, machine: &impl Machine) {
        let phase = self.phase.load(Ordering::SeqCst) as usize;
        self.counts[phase].add_by(machine, 1, Ordering::SeqCst);
        noted[phase] += 1;
    }

    /// Notes that changes were flushed.
    pub(crate) fn flushed(&self, noted: Noted, machine: &impl Machine) {
        for (count, flushed) in self.counts.iter().zip(noted) {
            // A waiter registers before it reads the count.
            let is_last =
                flushed > 0 && count.sub_by(machine, flushed, Ordering::SeqCst) == flushed;
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

    /// Waits until all changes noted before are flushed.
    pub(crate) fn wait<M: Machine>(&self, order: &LockOrder<M>, machine: &M) {
        if !self.is_any() {
            return;
        }
        let _turning = self.turning.lock_unranked(order);
        let now = self.phase.load(Ordering::SeqCst);
        // Only changes that read the phase before its last switch are noted there.
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
