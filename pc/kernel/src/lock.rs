//! The kernel's spin locks.
//!
//! The kernel is not preempted, and interrupt handlers take no lock that is taken with interrupts
//! enabled; so a lock's holder is running on another CPU or does not exist. Each CPU counts the locks
//! that it holds: with one of them nothing may be waited for, or the others would spin until the wait
//! is over, which may never be ([`cpu::assert_may_sleep`]).

use crate::cpu;
use core::sync::atomic::{AtomicBool, Ordering};

/// A mutual-exclusion lock of one byte, for short times.
pub struct Spin(AtomicBool);

// SAFETY: `lock` and `try_lock` return with the lock taken only after they alone changed `false` to
// `true` in one atomic exchange, which acquires what the store of `false` in `unlock` releases.
unsafe impl lock_api::RawMutex for Spin {
    #[allow(clippy::declare_interior_mutable_const, reason = "the form the trait asks for")]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            while self.0.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
    }

    fn try_lock(&self) -> bool {
        let taken = !self.0.swap(true, Ordering::Acquire);
        if taken {
            cpu::count_lock();
        }
        taken
    }

    unsafe fn unlock(&self) {
        cpu::count_unlock();
        self.0.store(false, Ordering::Release);
    }
}

/// A value behind a [`Spin`] lock.
pub type Mutex<T> = lock_api::Mutex<Spin, T>;

/// The guard of a [`Mutex`].
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, Spin, T>;

/// A lock that many may hold to read, or one to write. A reader enters though a writer waits.
pub struct SpinMany(spin::RwLock<()>);

// SAFETY: all of it is the inner lock's; beside it, only a count is kept.
unsafe impl lock_api::RawRwLock for SpinMany {
    #[allow(clippy::declare_interior_mutable_const, reason = "the form the trait asks for")]
    const INIT: Self = Self(spin::RwLock::new(()));
    type GuardMarker = lock_api::GuardNoSend;

    #[inline]
    fn lock_shared(&self) {
        lock_api::RawRwLock::lock_shared(&self.0);
        cpu::count_lock();
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        let taken = lock_api::RawRwLock::try_lock_shared(&self.0);
        if taken {
            cpu::count_lock();
        }
        taken
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        cpu::count_unlock();
        // SAFETY: by the caller's contract.
        unsafe { lock_api::RawRwLock::unlock_shared(&self.0) };
    }

    #[inline]
    fn lock_exclusive(&self) {
        lock_api::RawRwLock::lock_exclusive(&self.0);
        cpu::count_lock();
    }

    #[inline]
    fn try_lock_exclusive(&self) -> bool {
        let taken = lock_api::RawRwLock::try_lock_exclusive(&self.0);
        if taken {
            cpu::count_lock();
        }
        taken
    }

    #[inline]
    unsafe fn unlock_exclusive(&self) {
        cpu::count_unlock();
        // SAFETY: by the caller's contract.
        unsafe { lock_api::RawRwLock::unlock_exclusive(&self.0) };
    }
}

/// A value behind a [`SpinMany`] lock.
pub type RwLock<T> = lock_api::RwLock<SpinMany, T>;

/// The guard of a [`RwLock`] that is held to read.
pub type ReadGuard<'a, T> = lock_api::RwLockReadGuard<'a, SpinMany, T>;
