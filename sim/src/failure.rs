//! Operations that fail when told to.

use core::sync::atomic::{AtomicU64, Ordering};

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
