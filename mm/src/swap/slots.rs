//! The slots of one swap area: the references of each, and the next one to give out.
//!
//! Linux's `swap_map` and `scan_swap_map` (spec F4, F5). Counts change without a lock, because
//! every fork, unmap and swap-in changes them. Giving out and freeing a slot hold one short lock.
//! Nothing is allocated after construction.
//!
//! A slot whose last reference is dropped is not free at once: its content must be discarded before
//! another page is written there. Until then its count reads 0 and it is not given out.
//!
//! A slot that is given out is *reserved* until its first content is written: a thread that saw the slot in
//! an entry long ago gets no reference to it, and so never reads what is not there yet.
//!
//! All counts start as zeros. If the heap's zeros cost nothing, a count takes memory only once its
//! neighbourhood is used; the lowest slots are given out first.

use super::zeroed;
use crate::error::OutOfMemory;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use lock_api::{Mutex, RawMutex};

/// The saturated count: too many references to count, so the last one cannot be recognised. The
/// slot stays used, and its area cannot be removed.
///
/// No machine gets there: so many entries fill 8 TiB of page tables. R24 counts to 0x7fff and has
/// swapoff guess (spec F4); Linux 6 continues the count elsewhere, so that it stays exact too.
pub(crate) const STICKY: u32 = 0x7fff_ffff;

/// The count of an unusable slot (spec F1).
const BAD: u32 = 0x8000_0000;

/// The count of a slot whose content is being discarded after its last reference.
const FREEING: u32 = 0xffff_ffff;

/// The count of a slot that was given out, and whose content is not written yet.
const RESERVED: u32 = 0xffff_fffe;

/// How many adjacent slots are given out before the search for the next place (spec F5).
pub(crate) const RUN: u32 = 256;

/// Why a reference to a slot cannot be taken or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotError {
    /// There is no such area, or the area is smaller.
    Missing,
    /// Nothing references the slot.
    Free,
    /// The slot is the area's header or marked bad.
    Bad,
}

/// A slot's state after dropping a reference.
#[must_use = "a slot without references must be freed"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The slot has this many references left; [`STICKY`] stays [`STICKY`].
    Remaining(u32),
    /// It was the last reference: the caller discards the content and then calls [`Slots::free`].
    Last,
}

/// A fault that [`Slots::check`] found (spec I6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotsFault {
    /// The number of used slots recorded is not the number of slots with a count.
    InUse {
        /// The recorded number.
        recorded: u32,
        /// The number by its counts.
        counted: u32,
    },
    /// The number of usable slots has changed.
    Good,
    /// A free slot lies outside the bounds of the search for free slots.
    OutOfBounds(u32),
    /// The slot's last reference was dropped, and it was never freed.
    NotFreed(u32),
    /// The slot was given out, and neither written nor given back.
    NotWritten(u32),
}

/// How many slots the active areas have together, and how many of them are free.
#[derive(Debug, Default)]
pub(crate) struct Room {
    total: AtomicU64,
    free: AtomicU64,
}

impl Room {
    /// The usable slots of all active areas.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Those of them that are free.
    pub(crate) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }
}

/// The slots of one area.
pub(crate) struct Slots<M: RawMutex> {
    counts: Box<[AtomicU32]>,
    /// The usable slots.
    good: u32,
    /// The slots with a count, reserved, or being freed. Changed only under the search lock.
    in_use: AtomicU32,
    search: Mutex<M, Search>,
    /// Shared by all areas. This area's part is in it while the area is open, and changed under the
    /// search lock, so that it is exact.
    room: Arc<Room>,
}

/// The state of the search for free slots.
struct Search {
    admission: Admission,
    /// No slot below is free.
    lowest: u32,
    /// No slot above is free; below `lowest` when none is.
    highest: u32,
    /// Where the current run continues (Linux: `cluster_next`).
    next: u32,
    /// How many slots the current run has left (Linux: `cluster_nr`).
    run_left: u32,
}

impl Search {
    /// Notes that a free slot was given out.
    fn pass(&mut self, slot: u32) {
        self.next = slot + 1;
        self.lowest += u32::from(slot == self.lowest);
        self.highest -= u32::from(slot == self.highest);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Admission {
    Open,
    Closed,
}

impl<M: RawMutex> Slots<M> {
    /// The slots of an area of `slots` pages, of which slot 0 and those in `bad` are never used.
    ///
    /// The area starts closed. Numbers in `bad` beyond the area are ignored.
    pub(crate) fn new(slots: u32, bad: &[u32], room: Arc<Room>) -> Result<Self, OutOfMemory> {
        let mut counts: Box<[AtomicU32]> = zeroed(slots as usize)?;
        let mut good = slots;
        for slot in bad.iter().chain(&[0]) {
            if let Some(count) = counts.get_mut(*slot as usize) {
                good -= u32::from(*count.get_mut() != BAD);
                *count.get_mut() = BAD;
            }
        }
        let highest = slots.saturating_sub(1);
        let admission = Admission::Closed;
        let search = Search { admission, lowest: 1, highest, next: 1, run_left: 0 };
        let in_use = AtomicU32::new(0);
        Ok(Self { counts, good, in_use, search: Mutex::new(search), room })
    }

    /// Takes a free slot, and lets others refer to it at once.
    #[cfg(test)]
    pub(crate) fn allocate(&self) -> Option<u32> {
        let mut slot = None;
        self.reserve_some(1, |taken| slot = Some(taken));
        slot.inspect(|slot| self.publish(*slot))
    }

    /// Reserves up to `wanted` free slots, and hands each to `take`; returns how many there were. A closed
    /// area has none.
    ///
    /// The caller has the only reference to a reserved slot. It writes the content and then calls
    /// [`Slots::publish`], or drops the reference.
    pub(crate) fn reserve_some(&self, wanted: usize, mut take: impl FnMut(u32)) -> usize {
        let mut search = self.search.lock();
        let free = match search.admission {
            Admission::Open => self.good - self.in_use(),
            Admission::Closed => 0,
        };
        let mut taken = 0;
        while taken < free.min(wanted as u32)
            && let Some(slot) = self.next_free(&mut search)
        {
            search.pass(slot);
            self.counts[slot as usize].store(RESERVED, Ordering::Release);
            take(slot);
            taken += 1;
        }
        if taken > 0 {
            // Changed under the lock of the search alone.
            self.in_use.store(self.in_use() + taken, Ordering::Relaxed);
            self.room.free.fetch_sub(u64::from(taken), Ordering::Relaxed);
        }
        taken as usize
    }

    /// Lets others refer to a reserved slot, whose content is written now. The caller keeps its reference.
    ///
    /// A slot in any other state stays as it is.
    pub(crate) fn publish(&self, slot: u32) {
        if let Ok(count) = self.slot(slot) {
            exchange(count, RESERVED, 1);
        }
    }

    /// Adds a reference to a used slot (Linux: `swap_duplicate`).
    pub(crate) fn duplicate(&self, slot: u32) -> Result<(), SlotError> {
        let more = |count| match count {
            0 | RESERVED | FREEING | BAD => None,
            STICKY => Some(STICKY),
            count => Some(count + 1),
        };
        match self.slot(slot)?.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(()),
            Err(count) => Err(unused(count)),
        }
    }

    /// Drops a reference (the first half of Linux's `swap_free`).
    pub(crate) fn drop_reference(&self, slot: u32) -> Result<Dropped, SlotError> {
        let less = |count| match count {
            0 | FREEING | BAD => None,
            STICKY => Some(STICKY),
            1 | RESERVED => Some(FREEING),
            count => Some(count - 1),
        };
        match self.slot(slot)?.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) {
            Ok(1 | RESERVED) => Ok(Dropped::Last),
            Ok(STICKY) => Ok(Dropped::Remaining(STICKY)),
            Ok(count) => Ok(Dropped::Remaining(count - 1)),
            Err(count) => Err(unused(count)),
        }
    }

    /// Adds a reference to a slot that has exactly one; returns whether it did.
    pub(crate) fn claim(&self, slot: u32) -> bool {
        self.slot(slot).is_ok_and(|count| exchange(count, 1, 2))
    }

    /// Drops the last two references at once, the claimed slot's own and the claim's; returns
    /// whether there were no others. If so, the caller discards the content and then calls
    /// [`Slots::free`].
    pub(crate) fn drop_claimed(&self, slot: u32) -> bool {
        self.slot(slot).is_ok_and(|count| exchange(count, 2, FREEING))
    }

    /// Frees a slot whose last reference was dropped, so that it can be given out again.
    ///
    /// A slot in any other state stays as it is.
    pub(crate) fn free(&self, slot: u32) {
        let Ok(count) = self.slot(slot) else { return };
        let mut search = self.search.lock();
        if !exchange(count, FREEING, 0) {
            return;
        }
        search.lowest = search.lowest.min(slot);
        search.highest = search.highest.max(slot);
        self.in_use.store(self.in_use() - 1, Ordering::Relaxed);
        if search.admission == Admission::Open {
            self.room.free.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many references a slot has; 0 if it is free, reserved, bad or missing.
    pub(crate) fn count(&self, slot: u32) -> u32 {
        match self.slot(slot).map_or(0, |count| count.load(Ordering::Acquire)) {
            RESERVED | FREEING | BAD => 0,
            count => count,
        }
    }

    /// The number of slots, usable or not.
    pub(crate) fn len(&self) -> u32 {
        self.counts.len() as u32
    }

    /// The number of slots that can be used.
    pub(crate) fn good(&self) -> u32 {
        self.good
    }

    /// The number of slots that are not free.
    pub(crate) fn in_use(&self) -> u32 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// The used slots in ascending order; concurrent changes may or may not show.
    #[cfg(test)]
    pub(crate) fn used(&self) -> impl Iterator<Item = u32> {
        (1..self.len()).filter(|slot| self.count(*slot) > 0)
    }

    /// Allows slots to be given out, and counts them in the [`Room`] of all areas.
    pub(crate) fn open(&self) {
        let mut search = self.search.lock();
        if search.admission == Admission::Closed {
            search.admission = Admission::Open;
            self.room.total.fetch_add(u64::from(self.good), Ordering::Relaxed);
            self.room.free.fetch_add(u64::from(self.good - self.in_use()), Ordering::Relaxed);
        }
    }

    /// Stops giving out slots; used slots stay valid (spec F12).
    pub(crate) fn close(&self) {
        let mut search = self.search.lock();
        if search.admission == Admission::Open {
            search.admission = Admission::Closed;
            self.room.total.fetch_sub(u64::from(self.good), Ordering::Relaxed);
            self.room.free.fetch_sub(u64::from(self.good - self.in_use()), Ordering::Relaxed);
        }
    }

    /// Walks all counts, while nothing changes them (spec I6).
    pub(crate) fn check(&self) -> Result<(), SlotsFault> {
        let search = self.search.lock();
        let (mut counted, mut good) = (0, 0);
        for (slot, count) in (0..).zip(self.counts.iter()) {
            let count = count.load(Ordering::Acquire);
            match count {
                FREEING => return Err(SlotsFault::NotFreed(slot)),
                RESERVED => return Err(SlotsFault::NotWritten(slot)),
                0 if slot < search.lowest || slot > search.highest => {
                    return Err(SlotsFault::OutOfBounds(slot));
                }
                _ => {}
            }
            good += u32::from(count != BAD);
            counted += u32::from(count != BAD && count != 0);
        }
        let recorded = self.in_use();
        if good != self.good {
            Err(SlotsFault::Good)
        } else if recorded != counted {
            Err(SlotsFault::InUse { recorded, counted })
        } else {
            Ok(())
        }
    }

    /// The free slot to give out next (spec F5).
    fn next_free(&self, search: &mut Search) -> Option<u32> {
        if search.run_left == 0 {
            search.run_left = RUN;
            search.next = self.free_run(search).unwrap_or(search.lowest);
        }
        search.run_left -= 1;
        let next = search.next.max(search.lowest);
        if next <= search.highest && self.is_free(next) {
            return Some(next);
        }
        let first_free = |from: u32| (from..=search.highest).find(|slot| self.is_free(*slot));
        first_free(next).or_else(|| first_free(search.lowest))
    }

    /// The first of the lowest [`RUN`] adjacent free slots.
    ///
    /// Checks each candidate from its end, so that a used slot rules out all candidates up to it. A
    /// crowded area costs about one check in a hundred slots.
    fn free_run(&self, search: &Search) -> Option<u32> {
        if self.good - self.in_use() < RUN {
            return None;
        }
        let mut start = search.lowest;
        loop {
            let last = start.checked_add(RUN - 1).filter(|last| *last <= search.highest)?;
            match (start..=last).rev().find(|slot| !self.is_free(*slot)) {
                None => return Some(start),
                Some(used) => start = used + 1,
            }
        }
    }

    fn is_free(&self, slot: u32) -> bool {
        self.counts[slot as usize].load(Ordering::Acquire) == 0
    }

    fn slot(&self, slot: u32) -> Result<&AtomicU32, SlotError> {
        self.counts.get(slot as usize).ok_or(SlotError::Missing)
    }
}

fn exchange(count: &AtomicU32, from: u32, to: u32) -> bool {
    count.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Why a slot with this count has no references.
fn unused(count: u32) -> SlotError {
    if count == BAD { SlotError::Bad } else { SlotError::Free }
}

#[cfg(test)]
mod tests;
