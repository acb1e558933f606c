//! The bounds of an address space's heap (spec C15).

use core::sync::atomic::{AtomicU64, Ordering};

/// Where the heap begins and ends. Changed with the exclusive right.
#[derive(Default)]
pub(crate) struct Heap {
    pub(crate) start: AtomicU64,
    pub(crate) end: AtomicU64,
    /// The bytes of the program's own data, which also count towards the limit.
    pub(crate) data: AtomicU64,
}

impl Heap {
    /// Takes over the parent's heap in a fork; the caller holds the exclusive right to the parent.
    pub(crate) fn be_like(&self, other: &Self) {
        let Self { start, end, data } = other;
        for (own, other) in [(&self.start, start), (&self.end, end), (&self.data, data)] {
            own.store(other.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}
