//! A sample of a tree's counters.

use pagefault_control::{Control, Kind, MOST_AREAS};

/// The corrections that are counted, in the order of the decision tree.
pub const COUNTED: [Kind; 8] = [
    Kind::Anonymous,
    Kind::Zero,
    Kind::File,
    Kind::SwapIn,
    Kind::CopyOnWrite,
    Kind::FirstStore,
    Kind::Standby,
    Kind::Spurious,
];

/// The counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Nanoseconds since the start.
    pub time: u64,
    /// Faults so far, by correction as in [`COUNTED`].
    pub faults: [u64; COUNTED.len()],
    /// Pages written to each swap area so far.
    pub pages_out: [u64; MOST_AREAS],
    /// Pages read from each swap area so far.
    pub pages_in: [u64; MOST_AREAS],
    /// Pages evicted so far.
    pub evicted: u64,
    /// The frames charged over the tree.
    pub charged: u64,
    /// The processes.
    pub processes: Vec<Holding>,
}

/// One process in a sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holding {
    /// Its slot.
    pub slot: u32,
    /// Its process ID in our namespace.
    pub pid: u32,
    /// Its resident pages, shared ones included.
    pub resident: u32,
    /// The pages that the tree's limit is charged for it.
    pub charged: u32,
    /// Whether the host manages its pages and handles its faults, because the tree has fitted its
    /// limit so far.
    pub passive: bool,
    /// Its pages in each swap area.
    pub stored: [u32; MOST_AREAS],
}

impl Sample {
    /// Reads all counters.
    pub fn take(control: &Control, time: u64) -> Self {
        let counters = &control.counters;
        let values = |counts: &[pagefault_control::Count; MOST_AREAS]| {
            std::array::from_fn(|area| counts[area].value())
        };
        Self {
            time,
            faults: [
                counters.anonymous.value(),
                counters.zero.value(),
                counters.file.value(),
                counters.swap_in.value(),
                counters.copy_on_write.value(),
                counters.first_store.value(),
                counters.standby.value(),
                counters.spurious.value(),
            ],
            pages_out: values(&counters.pages_out),
            pages_in: values(&counters.pages_in),
            evicted: counters.evicted.value(),
            charged: control.slots.charged(),
            processes: control
                .slots
                .all_taken()
                .map(|(number, slot)| Holding {
                    slot: number,
                    pid: slot.pid.load(std::sync::atomic::Ordering::Relaxed),
                    resident: slot.resident(),
                    charged: slot.charged(),
                    passive: slot.is_passive(),
                    stored: slot.stored(),
                })
                // The supervisor does not know it yet: it has just started.
                .filter(|held| held.pid != 0)
                .collect(),
        }
    }
}
