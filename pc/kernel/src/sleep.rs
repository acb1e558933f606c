//! A mutex whose waiters sleep: it may be held across a wait for a device.

use crate::{cpu, scheduler};
use core::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
const WANTED: u32 = 2;

/// The raw lock.
pub struct Sleep(AtomicU32);

// SAFETY: whoever changes the word from `FREE` in one atomic exchange has the lock alone; the
// exchange acquires what the store of `FREE` in `unlock` releases.
unsafe impl lock_api::RawMutex for Sleep {
    #[allow(clippy::declare_interior_mutable_const, reason = "the form the trait asks for")]
    const INIT: Self = Self(AtomicU32::new(FREE));
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        cpu::assert_may_sleep();
        if self.try_lock() {
            return;
        }
        while self.0.swap(WANTED, Ordering::Acquire) != FREE {
            scheduler::wait(&self.0, WANTED);
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        if self.0.swap(FREE, Ordering::Release) == WANTED {
            scheduler::wake(&self.0);
        }
    }
}

/// A value behind a [`Sleep`] lock.
pub type SleepMutex<T> = lock_api::Mutex<Sleep, T>;
