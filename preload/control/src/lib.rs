//! The memory that `pagefault run` and the programs under it share: configuration goes in,
//! statistics come out.
//!
//! It is a memfd that the waiting command holds and every program maps. Statistics are written
//! where they happen, so that they are complete however a program ends. Both sides are built
//! together, from this package, so that the layout is one; [`Control::attach`] still checks it.
//!
//! Everything is an atomic, for any number of processes may use it at once, and a hostile one can
//! at worst make the figures wrong.

mod config;
mod histogram;
mod shared;

pub use config::{Config, MOST_AREAS, Storage, SwapSpec, TooLong};
pub use histogram::Histogram;
pub use shared::{AttachError, Mapped};

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// The environment variable that names the shared memory to a program.
pub const VARIABLE: &str = "PAGEFAULT_CONTROL";

/// The status with which a program ends that its manager had to stop.
pub const STATUS_FAILED: i32 = 125;

/// The shared memory.
#[repr(C)]
pub struct Control {
    /// [`Control::LAYOUT`] once the configuration is written.
    layout: AtomicU64,
    config: config::Shared,
    failure: Failure,
    /// What happened, over all processes.
    pub counters: Counters,
}

impl Control {
    /// Names this layout: a word of our own and the size of the whole.
    const LAYOUT: u64 = 0x7066_6374_0001_0000 ^ size_of::<Self>() as u64;

    /// The configuration, or `None` where it has been damaged.
    pub fn config(&self) -> Option<Config> {
        self.config.load()
    }

    /// Writes the configuration and marks the memory as ready for programs.
    pub fn publish(&self, config: &Config) -> Result<(), TooLong> {
        self.config.store(config)?;
        self.layout.store(Self::LAYOUT, Release);
        Ok(())
    }

    /// Whether the memory was published with this layout.
    fn is_ready(&self) -> bool {
        self.layout.load(Acquire) == Self::LAYOUT
    }

    /// Leaves a message saying why a manager cannot go on; only the first is kept.
    ///
    /// Returns whether this one was the first, so that it will be shown by the command.
    pub fn fail(&self, process: u32, message: &str) -> bool {
        self.failure.store(process, message)
    }

    /// Why a manager could not go on, and in which process.
    pub fn failure(&self) -> Option<(u32, String)> {
        self.failure.load()
    }
}

/// The first failure of a manager.
#[repr(C)]
struct Failure {
    /// 0 none, 1 being written, 2 written.
    state: AtomicU32,
    process: AtomicU32,
    message: shared::Text<512>,
}

impl Failure {
    fn store(&self, process: u32, message: &str) -> bool {
        if self.state.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
            return false;
        }
        self.process.store(process, Relaxed);
        self.message.store_clipped(message.as_bytes());
        self.state.store(2, Release);
        true
    }

    fn load(&self) -> Option<(u32, String)> {
        if self.state.load(Acquire) != 2 {
            return None;
        }
        let message = String::from_utf8_lossy(&self.message.load()).into_owned();
        Some((self.process.load(Relaxed), message))
    }
}

/// Counts of one kind of thing, shared by all processes.
#[derive(Default)]
#[repr(transparent)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Raises the count to `n` where it is lower: for peaks.
    pub fn raise(&self, n: u64) {
        self.0.fetch_max(n, Relaxed);
    }

    /// The count.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What happened, over all processes of a run. Counts are of pages or of faults.
#[repr(C)]
pub struct Counters {
    /// Program images that started under a manager: programs executed.
    pub programs: Count,
    /// Processes forked from one that has a manager.
    pub forks: Count,
    /// Faults that gave a page of zeros to anonymous memory.
    pub anonymous: Count,
    /// Of these, by a load: nothing but zeros was read.
    pub zero: Count,
    /// Faults that gave a page of a file.
    pub file: Count,
    /// Faults that read a page back from swap.
    pub swap_in: Count,
    /// Faults that copied a shared page for its writer.
    pub copy_on_write: Count,
    /// Faults by the first store to a page that its sole owner may write.
    pub first_store: Count,
    /// Faults that found everything in order already.
    pub spurious: Count,
    /// Faults answered without reading from a store.
    pub minor: Count,
    /// Faults that read from a store.
    pub major: Count,
    /// Pages read back from swap before they were touched, each of which saved a fault if it was.
    pub read_ahead: Count,
    /// Pages of zeros given before they were touched, each of which saved a fault if it was.
    pub populated_ahead: Count,
    /// Pages written to each swap area.
    pub pages_out: [Count; MOST_AREAS],
    /// Pages read from each swap area.
    pub pages_in: [Count; MOST_AREAS],
    /// The bytes of pages that went into compressed RAM, and the bytes they were compressed to.
    pub uncompressed_bytes: Count,
    /// See [`Counters::uncompressed_bytes`].
    pub compressed_bytes: Count,
    /// The most pages that one process had resident.
    pub peak_resident: Count,
    /// How long faults took, in nanoseconds.
    pub fault_time: Histogram,
}
