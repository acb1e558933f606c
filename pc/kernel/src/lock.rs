//! The kernel's spin locks.
//!
//! The kernel is not preempted, and interrupt handlers take no lock that is taken with interrupts
//! enabled; so a lock's holder is running on another CPU or does not exist.

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
        !self.0.swap(true, Ordering::Acquire)
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A value behind a [`Spin`] lock.
pub type Mutex<T> = lock_api::Mutex<Spin, T>;

/// The guard of a [`Mutex`].
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, Spin, T>;
