//! Locks on futexes, usable inside a signal handler: no heap, no thread-local state, no destructor.
//!
//! A lock is a word or two of memory whose zero state is "unlocked", so that zeroed memory of the
//! host can hold a table of locks.
//!
//! A fault takes about forty locks, and an atomic exchange costs as much as twenty plain
//! instructions. So the locks of machines and stores are [`SoleMutex`] and [`SoleRwLock`], which
//! use plain loads and stores as long as one thread is known to be their only user ([`set_sole`]).

use crate::context;
use core::hint::spin_loop;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use lock_api::{GuardSend, RawMutex, RawRwLock};
use rustix::thread::futex;

/// How often a lock spins before it sleeps: critical sections are shorter than a sleep.
const SPINS: u32 = 100;

/// Sleeps while `word` holds `value`; may return early.
pub fn wait(word: &AtomicU32, value: u32) {
    // An interrupted or refused wait is an early return, which every caller expects.
    let _ = futex::wait(word, futex::Flags::PRIVATE, value, None);
}

/// Wakes every sleeper on `word`.
pub fn wake_all(word: &AtomicU32) {
    // The only failure is a bad address, which a reference cannot be.
    let _ = futex::wake(word, futex::Flags::PRIVATE, i32::MAX as u32);
}

/// Wakes one sleeper on `word`.
pub fn wake_one(word: &AtomicU32) {
    // As in `wake_all`.
    let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
}

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// A mutual-exclusion lock in one futex word.
#[repr(transparent)]
pub struct FutexMutex(AtomicU32);

// SAFETY: a transparent word whose zero state is "free".
unsafe impl crate::reserve::Zeroed for FutexMutex {}

impl FutexMutex {
    /// Sleeps until the lock was free for a moment; it may be taken again by the return.
    pub fn wait_until_free(&self) {
        self.lock();
        // SAFETY: locked on the line before.
        unsafe { self.unlock() };
    }

    #[cold]
    fn lock_contended(&self) {
        if self.spin() == FREE && self.try_lock() {
            return;
        }
        while self.0.swap(CONTENDED, Acquire) != FREE {
            wait(&self.0, CONTENDED);
        }
    }

    /// Watches the lock for a short time and returns the state last seen.
    fn spin(&self) -> u32 {
        for _ in 0..SPINS {
            let state = self.0.load(Relaxed);
            if state != HELD {
                return state;
            }
            spin_loop();
        }
        self.0.load(Relaxed)
    }
}

// SAFETY: `HELD` or `CONTENDED` is stored only by the one thread whose exchange found `FREE`, and
// `FREE` only by `unlock`, so at most one thread holds the lock; Acquire and Release order the
// critical sections.
unsafe impl RawMutex for FutexMutex {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(AtomicU32::new(FREE));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        if !self.try_lock() {
            self.lock_contended();
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        if self.0.swap(FREE, Release) == CONTENDED {
            wake_one(&self.0);
        }
    }

    fn is_locked(&self) -> bool {
        self.0.load(Relaxed) != FREE
    }
}

/// A thread sleeps: newcomers sleep too, and the thread that frees the lock wakes all.
const PARKED: u32 = 1 << 31;
/// A writer holds the lock.
const WRITER: u32 = 1 << 30;

/// A readers-writer lock in one futex word.
///
/// Once a thread sleeps, newcomers do not overtake it: a stream of readers cannot starve a writer.
/// A thread must therefore not take a second shared lock while it holds one.
pub struct FutexRwLock(AtomicU32);

impl FutexRwLock {
    fn acquire(&self, conflict: u32, gain: u32) {
        let mut spins = 0;
        loop {
            let state = self.0.load(Relaxed);
            if state & conflict == 0 {
                if self.0.compare_exchange_weak(state, state + gain, Acquire, Relaxed).is_ok() {
                    return;
                }
            } else if spins < SPINS && state & PARKED == 0 {
                spins += 1;
                spin_loop();
            } else if state & PARKED != 0
                || self.0.compare_exchange(state, state | PARKED, Relaxed, Relaxed).is_ok()
            {
                wait(&self.0, state | PARKED);
            }
        }
    }

    fn try_acquire(&self, conflict: u32, gain: u32) -> bool {
        let mut state = self.0.load(Relaxed);
        while state & conflict == 0 {
            match self.0.compare_exchange_weak(state, state + gain, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }
}

// SAFETY: a writer enters only from the state 0 (no holder, nobody parked) and a reader only while
// no writer holds, both by compare-exchange on the one word; the counts are taken back exactly by
// the matching unlock.
unsafe impl RawRwLock for FutexRwLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(AtomicU32::new(0));
    type GuardMarker = GuardSend;

    fn lock_shared(&self) {
        self.acquire(WRITER | PARKED, 1);
    }

    fn try_lock_shared(&self) -> bool {
        self.try_acquire(WRITER | PARKED, 1)
    }

    unsafe fn unlock_shared(&self) {
        let before = self.0.fetch_sub(1, Release);
        if before == PARKED | 1 && self.0.compare_exchange(PARKED, 0, Relaxed, Relaxed).is_ok() {
            wake_all(&self.0);
        }
    }

    fn lock_exclusive(&self) {
        self.acquire(u32::MAX, WRITER);
    }

    fn try_lock_exclusive(&self) -> bool {
        self.try_acquire(u32::MAX, WRITER)
    }

    unsafe fn unlock_exclusive(&self) {
        if self.0.swap(0, Release) & PARKED != 0 {
            wake_all(&self.0);
        }
    }

    fn is_locked(&self) -> bool {
        self.0.load(Relaxed) & !PARKED != 0
    }

    fn is_locked_exclusive(&self) -> bool {
        self.0.load(Relaxed) & WRITER != 0
    }
}

/// Whether the reading thread is the only user of the locks below.
static SOLE: AtomicBool = AtomicBool::new(false);
/// In debug builds, the number of the thread that set it.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Sets whether the calling thread is the only user of the locks of machines and stores, so that
/// they need no atomic operations. The default is `false`.
///
/// # Safety
///
/// Between a call with `true` and the same thread's next call with `false`, no other thread takes,
/// releases or sleeps on a [`SoleMutex`] or [`SoleRwLock`]. The caller orders both calls with the
/// other threads' uses before and after.
pub unsafe fn set_sole(is_sole: bool) {
    if cfg!(debug_assertions) {
        OWNER.store(context::current(), Relaxed);
    }
    SOLE.store(is_sole, Relaxed);
}

/// Whether the calling thread is the only user of the locks of machines and stores.
#[inline]
pub fn is_sole() -> bool {
    let is_sole = SOLE.load(Relaxed);
    debug_assert!(!is_sole || OWNER.load(Relaxed) == context::current(), "a second thread");
    is_sole
}

/// Adds to a counter, wrapping around; a sole thread uses no atomic operation.
#[inline]
pub fn add(counter: &AtomicU64, n: u64) {
    if is_sole() {
        counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
    } else {
        counter.fetch_add(n, Relaxed);
    }
}

/// A [`FutexMutex`] that a sole thread takes and releases without an atomic operation.
#[repr(transparent)]
pub struct SoleMutex(FutexMutex);

// SAFETY: transparent over a lock that may be zeroed.
unsafe impl crate::reserve::Zeroed for SoleMutex {}

impl SoleMutex {
    /// Sleeps until the lock was free for a moment; it may be taken again by the return.
    pub fn wait_until_free(&self) {
        self.0.wait_until_free();
    }

    fn word(&self) -> &AtomicU32 {
        &self.0.0
    }

    #[inline(never)]
    fn lock_among_many(&self) {
        self.0.lock();
    }

    #[inline(never)]
    fn unlock_among_many(&self) {
        // SAFETY: the caller holds the lock.
        unsafe { self.0.unlock() }
    }
}

// SAFETY: among many threads a `FutexMutex`. A sole thread finds `FREE` and stores `HELD` with nobody to
// come between, as `set_sole` promises, which orders both ends too. A lock that is taken in one way may
// be given back in the other, as the states mean the same; a sleeper would be a second user.
unsafe impl RawMutex for SoleMutex {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(FutexMutex::INIT);
    type GuardMarker = GuardSend;

    #[inline]
    fn lock(&self) {
        if is_sole() && self.word().load(Relaxed) == FREE {
            self.word().store(HELD, Relaxed);
        } else {
            self.lock_among_many();
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        if !is_sole() {
            return self.0.try_lock();
        }
        let is_free = self.word().load(Relaxed) == FREE;
        if is_free {
            self.word().store(HELD, Relaxed);
        }
        is_free
    }

    #[inline]
    unsafe fn unlock(&self) {
        if is_sole() && self.word().load(Relaxed) == HELD {
            self.word().store(FREE, Release);
        } else {
            self.unlock_among_many();
        }
    }

    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

/// A [`FutexRwLock`] that a sole thread takes and releases without an atomic operation.
pub struct SoleRwLock(FutexRwLock);

impl SoleRwLock {
    /// As a sole thread, adds a holder's count; `false` if that needs an atomic operation.
    #[inline]
    fn enter(&self, conflict: u32, gain: u32) -> bool {
        let state = self.0.0.load(Relaxed);
        let may = is_sole() && state & conflict == 0;
        if may {
            self.0.0.store(state + gain, Relaxed);
        }
        may
    }

    /// As a sole thread, takes back a holder's count; `false` if that needs an atomic operation.
    #[inline]
    fn leave(&self, gain: u32) -> bool {
        let state = self.0.0.load(Relaxed);
        let may = is_sole() && state & PARKED == 0;
        if may {
            self.0.0.store(state - gain, Release);
        }
        may
    }
}

// SAFETY: among many threads a `FutexRwLock`; what a sole thread adds and takes back is the same, with
// nobody to come between, as `set_sole` promises.
unsafe impl RawRwLock for SoleRwLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(FutexRwLock::INIT);
    type GuardMarker = GuardSend;

    #[inline]
    fn lock_shared(&self) {
        if !self.enter(WRITER | PARKED, 1) {
            self.0.lock_shared();
        }
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        self.enter(WRITER | PARKED, 1) || self.0.try_lock_shared()
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        if !self.leave(1) {
            // SAFETY: the caller holds a shared lock.
            unsafe { self.0.unlock_shared() }
        }
    }

    #[inline]
    fn lock_exclusive(&self) {
        if !self.enter(u32::MAX, WRITER) {
            self.0.lock_exclusive();
        }
    }

    #[inline]
    fn try_lock_exclusive(&self) -> bool {
        self.enter(u32::MAX, WRITER) || self.0.try_lock_exclusive()
    }

    #[inline]
    unsafe fn unlock_exclusive(&self) {
        if !self.leave(WRITER) {
            // SAFETY: the caller holds the exclusive lock.
            unsafe { self.0.unlock_exclusive() }
        }
    }

    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    fn is_locked_exclusive(&self) -> bool {
        self.0.is_locked_exclusive()
    }
}

#[cfg(test)]
mod tests;
