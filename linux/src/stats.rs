//! The machine's counters, without contention.

use crate::{context, lock};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// A counter.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    Delivered,
    Absorbed,
    Installed,
    Reprotected,
    Pulled,
    Parked,
    Dropped,
    Copied,
    Flushes,
    MovedIn,
    MovedOut,
}

const KINDS: usize = 11;
const SHARDS: usize = 16;

#[repr(align(128))]
struct Shard([AtomicU64; KINDS]);

impl MachineStats {
    /// The pages of host memory that hold content, or are kept for it.
    pub const fn resident(&self) -> u64 {
        self.installed.saturating_sub(self.dropped) + self.buffers_resident as u64
    }
}

/// Counters spread over threads.
pub(crate) struct Counters([Shard; SHARDS]);

/// The work of a machine so far, in pages unless stated otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineStats {
    /// Faults that the host reported.
    pub delivered: u64,
    /// Of these, faults answered from our own page table without the memory manager.
    pub absorbed: u64,
    /// Pages put into the host's page table.
    pub installed: u64,
    /// Pages whose right to store was given or taken while they were mapped.
    pub reprotected: u64,
    /// Pages moved over from another address that shares the frame.
    pub pulled: u64,
    /// Pages moved from the host's page table to a buffer.
    pub parked: u64,
    /// Pages removed from the host's page table.
    pub dropped: u64,
    /// Frames copied.
    pub copied: u64,
    /// Calls of flush.
    pub flushes: u64,
    /// Of the pages put into the host's page table, those that were moved there and not copied.
    pub moved_in: u64,
    /// Of the pages moved to a buffer, those whose memory itself moved.
    pub moved_out: u64,
    /// Buffers that hold host memory now.
    pub buffers_resident: u32,
}

impl Counters {
    pub fn new() -> Self {
        Self([const { Shard([const { AtomicU64::new(0) }; KINDS]) }; SHARDS])
    }

    pub fn add(&self, counter: Counter, count: u64) {
        // A thread that is alone need not ask for its number.
        let number = if lock::is_sole() { 0 } else { context::current() as usize % SHARDS };
        lock::add(&self.0[number].0[counter as usize], count);
    }

    pub fn sum(&self) -> MachineStats {
        let of = |c: Counter| self.0.iter().map(|shard| shard.0[c as usize].load(Relaxed)).sum();
        MachineStats {
            delivered: of(Counter::Delivered),
            absorbed: of(Counter::Absorbed),
            installed: of(Counter::Installed),
            reprotected: of(Counter::Reprotected),
            pulled: of(Counter::Pulled),
            parked: of(Counter::Parked),
            dropped: of(Counter::Dropped),
            copied: of(Counter::Copied),
            flushes: of(Counter::Flushes),
            moved_in: of(Counter::MovedIn),
            moved_out: of(Counter::MovedOut),
            buffers_resident: 0,
        }
    }
}
