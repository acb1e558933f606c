//! Statistics of a memory.

use super::Shared;
use super::build::Device;
use crate::stats::MachineStats;
use crate::store::CompressedStats;
use pagefault::Counters;
use pagefault::machine::PAGE_SIZE;

/// The counters of a memory so far, and its contents.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// The limit on resident bytes.
    pub limit_bytes: u64,
    /// The bytes resident now: mapped, parked, or reserved for that.
    pub resident_bytes: u64,
    /// The most bytes of frames that were in use at once.
    pub peak_bytes: u64,
    /// The memory manager's counters: faults by correction, pages in and out.
    pub manager: Counters,
    /// The machine's counters.
    pub machine: MachineStats,
    /// The swap areas, in the order in which they fill.
    pub swap: Vec<SwapStats>,
}

/// The contents of a swap area.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SwapStats {
    /// Pages in it.
    pub pages: u64,
    /// Pages written to it so far.
    pub writes: u64,
    /// Pages read from it so far.
    pub reads: u64,
    /// For compressed RAM: the state of its compression.
    pub compressed: Option<CompressedStats>,
}

impl Shared {
    pub(super) fn stats(&self) -> Stats {
        let (machine, manager) = (self.runtime.machine(), self.runtime.manager());
        let counters = machine.counters();
        let areas = manager.swap_areas().statistics();
        let swap = areas.map(|area| SwapStats {
            pages: u64::from(area.in_use),
            writes: area.writes,
            reads: area.reads,
            compressed: match self.stores.get(usize::from(area.area)) {
                Some(Device::Ram(ram)) => Some(ram.stats()),
                _ => None,
            },
        });
        Stats {
            limit_bytes: self.limit,
            resident_bytes: counters.resident() * PAGE_SIZE,
            peak_bytes: u64::from(machine.peak_frames()) * PAGE_SIZE,
            manager: manager.counters(),
            machine: counters,
            swap: swap.collect(),
        }
    }
}
