//! Operations of devices: they fail on request, may be slow, and must be called without a lock.

use crate::lock;
use crate::schedule::yield_point;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use pagefault_machine::IoError;

/// How a device goes about its operations.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    /// How many times an operation yields to other threads before it completes.
    latency: AtomicU64,
    /// Callers may hold locks.
    tolerates_locks: AtomicBool,
}

impl Conduct {
    pub(crate) fn set_latency(&self, steps: u64) {
        self.latency.store(steps, Ordering::Relaxed);
    }

    pub(crate) fn tolerate_locks(&self) {
        self.tolerates_locks.store(true, Ordering::Relaxed);
    }

    /// Counts an operation, and delays it or lets it fail.
    ///
    /// # Panics
    /// If the caller holds a lock of the computer, unless that is tolerated.
    pub(crate) fn begin(&self, operations: &AtomicU64, fail: &FailNth) -> Result<(), IoError> {
        self.take_time(operations);
        if fail.is_now() { Err(IoError::Device) } else { Ok(()) }
    }

    /// Counts an operation and delays it.
    ///
    /// # Panics
    /// If the caller holds a lock of the computer, unless that is tolerated.
    pub(crate) fn take_time(&self, operations: &AtomicU64) {
        self.expect_no_locks();
        operations.fetch_add(1, Ordering::Relaxed);
        for _ in 0..self.latency.load(Ordering::Relaxed) {
            yield_point();
        }
    }

    /// What every call of a device may count on, since it may sleep.
    ///
    /// # Panics
    /// If the caller holds a lock of the computer, unless that is tolerated.
    pub(crate) fn expect_no_locks(&self) {
        let held = lock::held();
        let tolerated = held == 0 || self.tolerates_locks.load(Ordering::Relaxed);
        assert!(tolerated, "the device was called by a thread that holds {held} locks");
    }
}

/// Counts operations down to the one that fails.
#[derive(Debug, Default)]
pub(crate) struct FailNth {
    left: AtomicU64,
}

impl FailNth {
    /// Makes the `nth` operation from now on fail, the next one being the first; 0 lets all
    /// succeed.
    pub(crate) fn set(&self, nth: u64) {
        self.left.store(nth, Ordering::SeqCst);
    }

    /// Counts one operation, and says whether it is the one that fails.
    pub(crate) fn is_now(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.left.try_update(Ordering::SeqCst, Ordering::SeqCst, one_less) == Ok(1)
    }

    /// Whether no operation is left that shall fail.
    pub(crate) fn is_spent(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}
