//! A mutual-exclusion lock on a futex word.
//!
//! Nothing is allocated and no thread-local state is touched, so it may be taken in a signal
//! handler, as long as that handler cannot interrupt a holder.

use core::sync::atomic::{AtomicU32, Ordering};
use rustix::thread::futex;

/// Nobody holds the lock.
const FREE: u32 = 0;
/// Somebody holds the lock and nobody waits.
const HELD: u32 = 1;
/// Somebody holds the lock and somebody may be waiting.
const CONTENDED: u32 = 2;

/// How often a lock is looked at again before its taker sleeps; holders keep it for well under a
/// microsecond, which is less than a sleep costs.
const SPINS: u32 = 100;

/// A raw futex lock of one word; all zero bytes are a free lock.
pub struct RawFutex(AtomicU32);

/// A value behind a futex lock.
pub type Mutex<T> = lock_api::Mutex<RawFutex, T>;

// SAFETY: the lock is held exactly while the word is HELD or CONTENDED, and the word leaves FREE
// only by the compare-exchange or the swap of the one thread that becomes the holder.
unsafe impl lock_api::RawMutex for RawFutex {
    const INIT: Self = Self(AtomicU32::new(FREE));
    type GuardMarker = lock_api::GuardSend;

    fn lock(&self) {
        if !self.try_lock() {
            self.lock_slow();
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        if self.0.swap(FREE, Ordering::Release) == CONTENDED {
            // A failed wake means that nobody waits any more.
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
        }
    }
}

impl RawFutex {
    #[cold]
    fn lock_slow(&self) {
        for _ in 0..SPINS {
            if self.0.load(Ordering::Relaxed) == FREE && lock_api::RawMutex::try_lock(self) {
                return;
            }
            core::hint::spin_loop();
        }
        while self.0.swap(CONTENDED, Ordering::Acquire) != FREE {
            // Every reason to return early is answered by looking again.
            let _ = futex::wait(&self.0, futex::Flags::PRIVATE, CONTENDED, None);
        }
    }
}
