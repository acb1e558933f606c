//! The runtime's locks.

use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

pub struct Raw(AtomicBool);

// SAFETY: temporary.
unsafe impl lock_api::RawMutex for Raw {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = lock_api::GuardSend;
    fn lock(&self) {
        while !self.try_lock() {
            core::hint::spin_loop();
        }
    }
    fn try_lock(&self) -> bool {
        self.0.compare_exchange(false, true, Acquire, Relaxed).is_ok()
    }
    unsafe fn unlock(&self) {
        self.0.store(false, Release);
    }
}

/// A mutual-exclusion lock.
pub type Mutex<T> = lock_api::Mutex<Raw, T>;
