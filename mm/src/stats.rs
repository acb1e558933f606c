//! Event counters, in shards so that threads do not contend.

use crate::event::{Correction, Weight};
use crate::machine::Machine;
use crate::page::PageFlags;
use crate::word::Word;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

const SHARDS: usize = 8;

/// A counter cut into shards.
#[derive(Default)]
pub(crate) struct Counter([Shard; SHARDS]);

#[derive(Default)]
#[repr(align(64))]
struct Shard(AtomicU64);

/// The shard that the calling context adds to.
#[inline]
fn mine(machine: &impl Machine) -> usize {
    // A sole context need not ask for its number.
    if machine.is_sole() { 0 } else { machine.context().0 as usize % SHARDS }
}

impl Counter {
    #[inline]
    pub(crate) fn add(&self, machine: &impl Machine, n: u64) {
        self.0[mine(machine)].0.add_by(machine, n, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        // One thread may add and another subtract: a single shard may be below zero.
        let shards = self.0.iter().map(|shard| shard.0.load(Ordering::Relaxed));
        shards.fold(0, u64::wrapping_add)
    }

    /// Like [`add`](Self::add), but sequentially consistent.
    #[inline]
    pub(crate) fn add_ordered(&self, machine: &impl Machine, n: u64) {
        self.0[mine(machine)].0.add_by(machine, n, Ordering::SeqCst);
    }

    /// Like [`read`](Self::read), but sequentially consistent.
    pub(crate) fn read_ordered(&self) -> u64 {
        self.0.iter().map(|shard| shard.0.load(Ordering::SeqCst)).sum()
    }
}

/// One shard of an event counter.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// What the calling context has added, and those that share its shard.
    #[inline]
    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn add(&self, machine: &impl Machine, n: u64) {
        self.0.add_by(machine, n, Ordering::Relaxed);
    }
}

/// The live event counters of a manager.
#[derive(Default)]
pub(crate) struct Stats([Row; SHARDS]);

impl Stats {
    /// The shard that the calling context adds to.
    #[inline]
    pub(crate) fn of(&self, machine: &impl Machine) -> &Row {
        &self.0[mine(machine)]
    }

    /// The events of a kind so far.
    pub(crate) fn sum(&self, count: impl Fn(&Row) -> &Count) -> u64 {
        self.0.iter().map(|row| count(row).read()).sum()
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// The event counters of one shard. They lie side by side: a fault adds to three or four of them.
        #[derive(Default)]
        #[repr(align(64))]
        pub(crate) struct Row {
            $(pub(crate) $name: Count,)+
        }

        /// The work of a manager so far.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Stats {
            pub(crate) fn read(&self) -> Counters {
                Counters { $($name: self.sum(|row| &row.$name),)+ }
            }
        }

        impl Counters {
            /// Calls `f` with the name and value of every counter, in the order of this type.
            pub fn visit(&self, mut f: impl FnMut(&'static str, u64)) {
                $(f(stringify!($name), self.$name);)+
            }
        }
    };
}

counters! {
    /// Faults corrected with a fresh page of zeros.
    anonymous,
    /// Faults corrected with the shared frame of zeros.
    zero,
    /// Faults corrected with a page of a file.
    file,
    /// Faults corrected through a nonlinear entry.
    nonlinear,
    /// Faults corrected with memory of a device.
    device,
    /// Faults corrected by bringing a page back from swap.
    swap_in,
    /// Faults corrected by a private copy.
    copy_on_write,
    /// Faults corrected by letting the sole owner write.
    reuse,
    /// Faults corrected by restoring the rights that reclaim had taken from an entry.
    standby,
    /// Faults that found nothing to correct.
    spurious,
    /// Corrected faults without I/O.
    minor,
    /// Corrected faults that waited for I/O.
    major,
    /// Faults answered with a signal or worse.
    refused,
    /// Pages mapped around a faulting one.
    around,
    /// Pages of files read before they were touched.
    file_read_ahead,
    /// Pages brought back from swap before they were touched.
    read_ahead,
    /// Of these, pages that were used later.
    read_ahead_used,
    /// Of these, pages that were evicted without a sign of use.
    read_ahead_wasted,
    /// Pages of zeros given to anonymous memory before they were touched.
    populated_ahead,
    /// Of these, pages that were used later.
    populated_ahead_used,
    /// Of these, pages that were evicted without a sign of use.
    populated_ahead_wasted,
    /// Pages read from swap.
    swap_reads,
    /// Pages written to swap.
    swap_writes,
    /// Pages read from backings.
    file_reads,
    /// Pages written to backings.
    file_writes,
    /// Frames freed by reclaim.
    evicted,
    /// Frames given back to the machine, by reclaim or because their last use ended.
    freed,
    /// Pages that were used while on standby, and stayed.
    rescued,
    /// Pages that reclaim looked at.
    scanned,
    /// Reclaim passes by a faulting thread.
    direct_passes,
    /// Reclaim passes ahead of need.
    background_passes,
    /// Flushes of stale translations.
    flushes,
    /// Reads or writes of a device that failed.
    io_errors,
}

impl Row {
    pub(crate) fn corrected(&self, machine: &impl Machine, correction: Correction, weight: Weight) {
        let counter = match correction {
            Correction::Anonymous => &self.anonymous,
            Correction::Zero => &self.zero,
            Correction::File => &self.file,
            Correction::Nonlinear => &self.nonlinear,
            Correction::Device => &self.device,
            Correction::SwapIn => &self.swap_in,
            Correction::CopyOnWrite => &self.copy_on_write,
            Correction::Reuse => &self.reuse,
            Correction::Standby => &self.standby,
            Correction::Spurious => &self.spurious,
        };
        counter.add(machine, 1);
        match weight {
            Weight::Minor => self.minor.add(machine, 1),
            Weight::Major => self.major.add(machine, 1),
        }
    }
}

/// The live counts of pages by kind.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) anonymous: Counter,
    pub(crate) mapped: Counter,
    pub(crate) cached: AtomicI64,
    pub(crate) dirty: AtomicI64,
}

impl Counts {
    /// A page with these flags came into the page cache.
    pub(crate) fn cached(&self, flags: PageFlags) {
        self.cached.fetch_add(1, Ordering::Relaxed);
        self.dirty.fetch_add(flags.contains(PageFlags::DIRTY).into(), Ordering::Relaxed);
    }

    /// A page with these flags left a cache.
    pub(crate) fn uncached(&self, flags: PageFlags) {
        if flags.contains(PageFlags::PAGE_CACHE) {
            self.cached.fetch_sub(1, Ordering::Relaxed);
            self.dirty.fetch_sub(flags.contains(PageFlags::DIRTY).into(), Ordering::Relaxed);
        }
    }
}
