//! All locks in one module, and in debug builds a check of their order.
//!
//! All locks of the memory manager are made here. Their raw types come from the machine, so that a
//! model checker or a simulated computer can substitute its own.

use crate::machine::{ContextId, Machine};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

/// A lock's place in the order: a thread of control that holds one may only take higher ones.
///
/// The order is explained in `mm.rs`; the page's own lock bit comes between [`Rank::Layout`] and
/// [`Rank::FileRegions`] and is not checked, because reclaim holds several by `try`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Rank {
    /// `Mm::layout`: serialises changes of one address space; held across waits for page locks.
    Layout = 0,
    /// `Mapping::regions`: the regions over a file.
    FileRegions = 1,
    /// `AnonVma::regions`: the regions that may hold an anonymous page.
    AnonRegions = 2,
    /// `Mm::regions`: the tree of regions, for look-ups and short edits.
    Regions = 3,
    /// A cursor over page-table entries.
    Entries = 4,
    /// One chain of the page cache.
    Cache = 5,
    /// One shard of the replacement queues.
    Queue = 6,
    /// A registry of objects by number.
    Registry = 7,
    /// `Mapping::reading`: the order in which a file's pages are touched.
    Reading = 8,
}

impl Rank {
    /// Whether a lock of this rank may be taken while locks of the given ranks are held. Two
    /// cursors may nest under exclusive use of both spaces (spec B2).
    const fn may_follow(self, held: u32) -> bool {
        let bit = 1 << self as u32;
        let is_nested = matches!(self, Self::Entries) && held & bit != 0;
        held < bit || (is_nested && held < bit << 1)
    }
}

/// The part of a thread of control's word that holds its ranks; the rest counts how often it is
/// engaged.
const RANKS: u32 = 0xffff;
const ENGAGED: u32 = RANKS + 1;

/// Remembers, in debug builds, which ranks each thread of control holds, and whether it is engaged.
pub(crate) struct LockOrder<M> {
    machine: Arc<M>,
    held: Vec<AtomicU32>,
}

impl<M: Machine> LockOrder<M> {
    pub(crate) fn new(machine: Arc<M>) -> Self {
        let contexts = if cfg!(debug_assertions) { ContextId::LIMIT } else { 0 };
        Self { machine, held: (0..contexts).map(|_| AtomicU32::new(0)).collect() }
    }

    /// The machine whose contexts take the locks.
    #[inline]
    pub(crate) fn machine(&self) -> &M {
        &self.machine
    }

    /// Notes that the caller is about to take a lock of `rank`.
    #[inline]
    pub(crate) fn enter(&self, rank: Rank) -> Held<'_> {
        let Some(word) = self.mine() else { return Held::NOTHING };
        let bit = 1 << rank as u32;
        let before = word.fetch_or(bit, Ordering::Relaxed) & RANKS;
        assert!(
            rank.may_follow(before),
            "lock order: {rank:?} taken while holding ranks {before:#b}"
        );
        // A nested cursor leaves the mark to the outer one.
        Held::new(word, bit & !before)
    }

    /// Panics in debug builds if the caller holds a lock: used before I/O and before waiting.
    pub(crate) fn assert_may_sleep(&self) {
        if let Some(word) = self.mine() {
            let short = word.load(Ordering::Relaxed) & RANKS & !(1 << Rank::Layout as u32);
            assert!(short == 0, "about to sleep while holding ranks {short:#b}");
        }
    }

    /// Notes that the caller may have pages in hand.
    pub(crate) fn note_engaged(&self) {
        if let Some(word) = self.mine() {
            word.fetch_add(ENGAGED, Ordering::Relaxed);
        }
    }

    /// Undoes [`note_engaged`](Self::note_engaged).
    pub(crate) fn note_free(&self) {
        if let Some(word) = self.mine() {
            word.fetch_sub(ENGAGED, Ordering::Relaxed);
        }
    }

    /// Panics in debug builds unless the caller is engaged: used before waiting for a page lock.
    pub(crate) fn assert_engaged(&self) {
        if let Some(word) = self.mine() {
            assert!(word.load(Ordering::Relaxed) >= ENGAGED, "not engaged");
        }
    }

    /// Panics in debug builds unless the caller is engaged once: used where it may step aside.
    pub(crate) fn assert_engaged_once(&self) {
        if let Some(word) = self.mine() {
            let times = word.load(Ordering::Relaxed) / ENGAGED;
            assert!(times == 1, "engaged {times} times");
        }
    }

    #[inline]
    fn mine(&self) -> Option<&AtomicU32> {
        if !cfg!(debug_assertions) {
            return None;
        }
        self.held.get(self.machine.context().0 as usize)
    }
}

/// A noted lock; leaving its scope notes the release. Empty in release builds.
#[cfg(debug_assertions)]
pub(crate) struct Held<'a> {
    word: Option<&'a AtomicU32>,
    bit: u32,
}

#[cfg(debug_assertions)]
impl<'a> Held<'a> {
    const NOTHING: Self = Self { word: None, bit: 0 };

    const fn new(word: &'a AtomicU32, bit: u32) -> Self {
        Self { word: Some(word), bit }
    }
}

#[cfg(debug_assertions)]
impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(word) = self.word {
            word.fetch_and(!self.bit, Ordering::Relaxed);
        }
    }
}

/// Release builds note no locks.
#[cfg(not(debug_assertions))]
pub(crate) struct Held<'a>(core::marker::PhantomData<&'a AtomicU32>);

#[cfg(not(debug_assertions))]
impl<'a> Held<'a> {
    const NOTHING: Self = Self(core::marker::PhantomData);

    const fn new(_: &'a AtomicU32, _: u32) -> Self {
        Self::NOTHING
    }
}

/// A mutex with a rank.
pub(crate) struct Mutex<M: Machine, T> {
    rank: Rank,
    inner: lock_api::Mutex<M::Mutex, T>,
}

impl<M: Machine, T> Mutex<M, T> {
    pub(crate) const fn new(rank: Rank, value: T) -> Self {
        Self { rank, inner: lock_api::Mutex::new(value) }
    }

    #[inline]
    pub(crate) fn lock<'a>(&'a self, order: &'a LockOrder<M>) -> MutexGuard<'a, M, T> {
        let held = order.enter(self.rank);
        MutexGuard { guard: self.inner.lock(), _held: held }
    }
}

/// The guard of a [`Mutex`].
pub(crate) struct MutexGuard<'a, M: Machine, T> {
    guard: lock_api::MutexGuard<'a, M::Mutex, T>,
    _held: Held<'a>,
}

impl<M: Machine, T> Deref for MutexGuard<'_, M, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<M: Machine, T> DerefMut for MutexGuard<'_, M, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A readers-writer lock with a rank.
pub(crate) struct RwLock<M: Machine, T> {
    rank: Rank,
    inner: lock_api::RwLock<M::RwLock, T>,
}

impl<M: Machine, T> RwLock<M, T> {
    pub(crate) const fn new(rank: Rank, value: T) -> Self {
        Self { rank, inner: lock_api::RwLock::new(value) }
    }

    /// Runs `f` with the value shared; `f` is short and takes no lock.
    #[inline]
    pub(crate) fn read<R>(&self, order: &LockOrder<M>, f: impl FnOnce(&T) -> R) -> R {
        let _held = order.enter(self.rank);
        f(&self.inner.read())
    }

    /// Runs `f` with exclusive access to the value; `f` is short and takes no lock.
    pub(crate) fn write<R>(&self, order: &LockOrder<M>, f: impl FnOnce(&mut T) -> R) -> R {
        let _held = order.enter(self.rank);
        f(&mut self.inner.write())
    }
}

/// A mutex without content whose waiters sleep: it may be held across I/O.
#[derive(Default)]
pub(crate) struct SleepLock {
    /// 0 free, 1 held, 2 held and waited for.
    word: AtomicU32,
}

impl SleepLock {
    pub(crate) const fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    pub(crate) fn lock<'a, M: Machine>(
        &'a self,
        order: &'a LockOrder<M>,
        rank: Rank,
    ) -> SleepGuard<'a, M> {
        let held = order.enter(rank);
        self.acquire(order);
        SleepGuard { lock: self, order, _held: held }
    }

    /// Takes the lock of an object that no other thread knows yet, outside the order.
    pub(crate) fn lock_unranked<'a, M: Machine>(
        &'a self,
        order: &'a LockOrder<M>,
    ) -> SleepGuard<'a, M> {
        self.acquire(order);
        SleepGuard { lock: self, order, _held: Held::NOTHING }
    }

    fn acquire<M: Machine>(&self, order: &LockOrder<M>) {
        let exchange = |from, to| {
            self.word.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        if !exchange(0, 1) {
            while self.word.swap(2, Ordering::Acquire) != 0 {
                order.machine.wait(&self.word, 2);
            }
        }
    }
}

/// The guard of a [`SleepLock`].
pub(crate) struct SleepGuard<'a, M: Machine> {
    lock: &'a SleepLock,
    order: &'a LockOrder<M>,
    _held: Held<'a>,
}

impl<M: Machine> Drop for SleepGuard<'_, M> {
    fn drop(&mut self) {
        if self.lock.word.swap(0, Ordering::Release) == 2 {
            self.order.machine.wake(&self.lock.word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rank;

    const fn bits<const N: usize>(ranks: [Rank; N]) -> u32 {
        let (mut bits, mut at) = (0, 0);
        while at < N {
            bits |= 1 << ranks[at] as u32;
            at += 1;
        }
        bits
    }

    #[test]
    fn b2_locks_are_taken_in_their_order() {
        assert!(Rank::Layout.may_follow(0));
        assert!(Rank::Entries.may_follow(bits([Rank::Layout, Rank::FileRegions])));
        assert!(Rank::Queue.may_follow(bits([Rank::Entries, Rank::Cache])));
        assert!(!Rank::Entries.may_follow(bits([Rank::Cache])));
        assert!(!Rank::Layout.may_follow(bits([Rank::Regions])));
        assert!(!Rank::Registry.may_follow(bits([Rank::Reading])));
    }

    #[test]
    fn b2_only_cursors_nest() {
        assert!(Rank::Entries.may_follow(bits([Rank::Layout, Rank::Entries])));
        assert!(!Rank::Entries.may_follow(bits([Rank::Entries, Rank::Queue])));
        for rank in [Rank::Layout, Rank::Regions, Rank::Cache, Rank::Queue] {
            assert!(!rank.may_follow(bits([rank])), "{rank:?}");
        }
    }
}
