//! Changed entries that still wait for their flush.

use crate::machine::{Machine, PAGE_SIZE, VirtAddr};
use crate::sync::{LockOrder, SleepLock};
use crate::word::Word;
use core::sync::atomic::{AtomicU32, Ordering};

/// How many changed entries of an address space still wait for their flush, in two phases.
///
/// A change is noted under its entry's cursor, in the current phase. A waiter for the changes made
/// so far switches to the other phase and waits until the old one is empty. So later changes cannot
/// delay it.
///
/// A fault waits only for changes of pages that hash to the place of its own.
pub(crate) struct Pending {
    counts: [AtomicU32; 2],
    /// The same changes by the place of their page, without phases; and [`AWAITED`].
    places: [AtomicU32; PLACES],
    /// The phase in which changes are noted.
    phase: AtomicU32,
    /// The number of waiters for a phase to become empty.
    waiters: AtomicU32,
    /// Held by the thread that switches the phase and waits.
    turning: SleepLock,
}

/// The number of places, many times that of pages that wait for a flush at the same time.
const PLACES: usize = 256;

/// A fault waits until no change of the place is left.
const AWAITED: u32 = 1 << 31;

/// How often a fault waits for a place. Later changes there may delay it so often, and no more.
const PATIENCE: usize = 4;

/// The number of changes in each phase.
pub(crate) type Noted = [u32; 2];

impl Default for Pending {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            places: [const { AtomicU32::new(0) }; PLACES],
            phase: AtomicU32::new(0),
            waiters: AtomicU32::new(0),
            turning: SleepLock::default(),
        }
    }
}

impl Pending {
    /// Notes a change of the entry of `page`; the caller holds its cursor.
    #[inline]
    pub(crate) fn note(&self, noted: &mut Noted, page: VirtAddr, machine: &impl Machine) {
        let phase = self.phase.load(Ordering::SeqCst) as usize;
        self.counts[phase].add_by(machine, 1, Ordering::SeqCst);
        self.place(page).add_by(machine, 1, Ordering::SeqCst);
        noted[phase] += 1;
    }

    /// Notes that the changes of `pages` were flushed.
    pub(crate) fn flushed(
        &self,
        noted: Noted,
        pages: impl Iterator<Item = VirtAddr>,
        machine: &impl Machine,
    ) {
        for page in pages {
            let place = self.place(page);
            let was_last = place.sub_by(machine, 1, Ordering::SeqCst) == AWAITED + 1;
            let end = || place.compare_exchange(AWAITED, 0, Ordering::SeqCst, Ordering::SeqCst);
            // If it fails, a later change is there, and its flush wakes.
            if was_last && end().is_ok() {
                machine.wake(place);
            }
        }
        for (count, flushed) in self.counts.iter().zip(noted) {
            // A waiter registers before it reads the count.
            let is_last =
                flushed > 0 && count.sub_by(machine, flushed, Ordering::SeqCst) == flushed;
            if is_last && self.waiters.load(Ordering::SeqCst) > 0 {
                machine.wake(count);
            }
        }
    }

    fn place(&self, page: VirtAddr) -> &AtomicU32 {
        &self.places[(page.value() / PAGE_SIZE) as usize % PLACES]
    }

    /// Whether a change of `page` may have been noted and not be flushed yet.
    #[inline]
    pub(crate) fn is_any_of(&self, page: VirtAddr) -> bool {
        self.place(page).load(Ordering::SeqCst) & !AWAITED != 0
    }

    /// Waits until all changes of `page` noted before are flushed.
    pub(crate) fn wait_for_page<M: Machine>(
        &self,
        page: VirtAddr,
        order: &LockOrder<M>,
        machine: &M,
    ) {
        let place = self.place(page);
        for _ in 0..PATIENCE {
            let now = place.load(Ordering::SeqCst);
            if now & !AWAITED == 0 {
                return;
            }
            let awaited = now | AWAITED;
            if place.compare_exchange(now, awaited, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                machine.wait(place, awaited);
            }
        }
        if !self.is_any_of(page) {
            return;
        }
        self.wait(order, machine);
    }

    /// Waits until all changes noted before are flushed.
    pub(crate) fn wait<M: Machine>(&self, order: &LockOrder<M>, machine: &M) {
        if self.counts.iter().all(|count| count.load(Ordering::SeqCst) == 0) {
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
