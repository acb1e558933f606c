//! Locks on futexes, usable inside a signal handler: no heap, no thread-local state, no destructor.
//!
//! A lock is a word or two of memory whose zero state is "unlocked", so that a table of locks can
//! stand in memory that the host hands out zeroed.

use core::hint::spin_loop;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use lock_api::{GuardSend, RawMutex, RawRwLock};
use rustix::thread::futex;

/// How often a lock spins before it sleeps: critical sections are shorter than a sleep.
const SPINS: u32 = 100;

/// Sleeps while `word` holds `value`; may return early for no reason.
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

/// Somebody sleeps: newcomers sleep too, and whoever frees the lock wakes all.
const PARKED: u32 = 1 << 31;
/// A writer holds the lock.
const WRITER: u32 = 1 << 30;

/// A readers-writer lock in one futex word.
///
/// Once somebody sleeps, newcomers do not overtake: a stream of readers cannot keep a writer out.
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

#[cfg(test)]
mod tests;
