//! What a computer has done so far.

use core::sync::atomic::{AtomicU64, Ordering};

/// Counts since the computer was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames allocated by the memory manager.
    pub allocations: u64,
    /// Frames freed by the memory manager.
    pub frees: u64,
    /// Accesses that a TLB translated.
    pub tlb_hits: u64,
    /// Accesses that were translated by a walk.
    pub tlb_misses: u64,
    /// Page faults.
    pub faults: u64,
    /// Page faults raised by a stale translation where the table allowed the access (spec B5).
    pub stale_faults: u64,
    /// Calls of [`Machine::flush`](pagefault_machine::Machine::flush) that named a page.
    pub flushes: u64,
    /// Pages named by those calls.
    pub flushed_pages: u64,
    /// Interrupts sent to other CPUs for those calls.
    pub interrupts: u64,
    /// Roots loaded.
    pub switches: u64,
    /// Times an interrupt made a CPU leave a space that it kept only lazily.
    pub lazy_leaves: u64,
    /// Pages translated ahead of need.
    pub prefetches: u64,
    /// Top-level entries copied from the reference table (spec A4).
    pub synchronisations: u64,
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// The running form of [`Stats`].
        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64),*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counters!(
    allocations,
    frees,
    tlb_hits,
    tlb_misses,
    faults,
    stale_faults,
    flushes,
    flushed_pages,
    interrupts,
    switches,
    lazy_leaves,
    prefetches,
    synchronisations
);

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
