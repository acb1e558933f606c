//! The control memory that `pagefault run`, its supervisor and the programs of the tree share.
//!
//! | module | what it holds |
//! |---|---|
//! | `boot` | the boot block: what a runtime needs to start |
//! | `config` | the configuration of the memory manager |
//! | `offload` | pages on their way into compressed memory, which the supervisor's compressor compresses |
//! | `message` | the messages to the supervisor |
//! | `pool`, `areas` | the compressed memory of the tree; its swap files |
//! | `spans` | the parts of both, and which process holds which |
//! | `shares` | frames that several processes of the tree share after a fork |
//! | `slots` | the processes of the tree, and each one's charge |
//! | `outside` | an access to another process's memory, which that process makes |
//! | `events` | the rings of events, for `--report` and `--trace` |
//! | `histogram`, `text` | durations and text in shared memory |
//! | `mapped` | the command's side: makes the shared memory and maps it |
//! | `departed` | the supervisor's side: frees what a dead process held |
//!
//! The memory is a memfd that every process maps. Each process writes its statistics there at once, so they
//! are complete however a program ends. All sides are built from this package and share its layout;
//! [`Control::LAYOUT`] identifies it.
//!
//! Everything in it is atomic, since any number of processes may use it at once. At worst, a
//! hostile process can falsify the figures. Without the feature `std` the package needs no
//! operating system; without `alloc` it needs no heap.

#![cfg_attr(not(test), no_std)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(all(feature = "std", not(test)))]
extern crate std;

mod areas;
mod boot;
mod config;
#[cfg(feature = "std")]
mod departed;
mod events;
mod histogram;
#[cfg(feature = "std")]
mod mailboxes;
#[cfg(feature = "std")]
mod mapped;
mod message;
mod offload;
pub mod outside;
mod pool;
mod shares;
mod slots;
mod spans;
mod text;

pub use areas::{EXTENT, EXTENT_PAGES, FilePlan};
pub use boot::Boot;
pub use config::{Calls, Delivery, MOST_AREAS, TooLong};
#[cfg(feature = "alloc")]
pub use config::{Config, Storage, SwapSpec};
#[cfg(feature = "std")]
pub use departed::{Departed, PunchExtent};
pub use events::{Happening, Kind, Next, RECORDS, Ring};
pub use histogram::Histogram;
#[cfg(feature = "std")]
pub use mailboxes::Mailboxes;
#[cfg(feature = "std")]
pub use mapped::{AttachError, Mapped, MappedRing, NAME};
pub use message::{Message, RECLAIM_SIGNAL, RECLAIM_VALUE, SERVE_VALUE};
pub use offload::{Job, Mailbox, Offload, PLACE, PLACES};
pub use pool::{PoolUse, SPAN};
pub use shares::{Plan, Shares};
pub use slots::{Birth, Disposition, Keeper, MOST_PROCESSES, Slot, Slots, Ticket, ask};
pub use spans::{Holder, Spans};
pub use text::Text;

#[cfg(feature = "alloc")]
use alloc::string::String;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// The bytes of a page.
const PAGE: u64 = 4096;
/// The pages that a machine keeps resident beside its frames (`pagefault_linux::Config::OVERHEAD`).
pub const OVERHEAD: u64 = 128;

/// The exit status of a program that its memory manager stopped.
pub const STATUS_FAILED: i32 = 125;

/// The shared memory.
#[repr(C)]
pub struct Control {
    /// [`Control::LAYOUT`] once the configuration is written.
    layout: AtomicU64,
    config: config::Shared,
    /// Why the program that the user started could not continue.
    own_failure: Failure,
    /// The first failure of another process.
    failure: Failure,
    /// 1 while there is a reader of events.
    observed: AtomicU32,
    /// The number of the process that the user started, which waits for the program.
    pub launcher: AtomicU32,
    /// The number of the process that is the program.
    pub program: AtomicU32,
    /// The counters of all processes.
    pub counters: Counters,
    /// A futex: the state of the tree, one of [`tree`].
    pub tree: AtomicU32,
    /// The usage of the tree's compressed memory.
    pub pool: PoolUse,
    /// The usage of the tree's swap files, in whole extents.
    pub files: PoolUse,
    /// The compressor of the tree's processes.
    pub offload: Offload,
    /// An access to another process's memory.
    pub outside: outside::Outside,
    /// The processes of the tree.
    pub slots: Slots,
}

/// The values of [`Control::tree`].
pub mod tree {
    /// The program runs, or the supervisor has not seen its end.
    pub const RUNS: u32 = 0;
    /// The program has ended, but other processes of the tree have not: the supervisor stays.
    pub const OUTLIVES: u32 = 1;
    /// No process is left: the supervisor ends.
    pub const GONE: u32 = 2;
    /// The supervisor was killed, and a process that needed it has stopped itself.
    pub const UNKEPT: u32 = 3;
}

impl Control {
    /// Names this layout: a word of our own and the size of the whole.
    pub const LAYOUT: u64 = 0x7066_6374_0006_0000 ^ size_of::<Self>() as u64;

    /// The tree's current limit in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.config.limit_bytes()
    }

    /// How system calls enter the runtime.
    pub fn calls(&self) -> Calls {
        self.config.calls()
    }

    /// The addresses that a process reserves at once for its tables, in bytes.
    pub fn room_bytes(&self) -> u64 {
        self.config.room_bytes()
    }

    /// The frames that the tree may be charged now: each machine's resident overhead counts too.
    pub fn frames(&self) -> u64 {
        (self.limit_bytes() / PAGE).saturating_sub(OVERHEAD)
    }

    /// Changes the limit, up to the maximum.
    pub fn set_limit(&self, bytes: u64) {
        self.config.set_limit(bytes);
    }

    /// The maximum of the limit.
    pub fn most_bytes(&self) -> u64 {
        self.config.most_bytes()
    }

    /// Whether there is a reader of events, and so there are rings.
    pub fn is_observed(&self) -> bool {
        self.observed.load(Relaxed) != 0
    }

    /// Notes that there is a reader of events.
    #[cfg(feature = "std")]
    pub fn begin_observing(&self) {
        self.observed.store(1, Relaxed);
    }

    /// Notes that there is no reader of events any more.
    #[cfg(feature = "std")]
    pub fn stop_observing(&self) {
        self.observed.store(0, Relaxed);
    }

    /// The layout of the shared file.
    pub fn plan(&self) -> Plan {
        let ram = (0..MOST_AREAS).filter_map(|area| self.config.ram_bytes(area));
        let pages = core::array::from_fn(|area| self.config.file_pages(area));
        Plan::new(self.most_bytes(), ram.sum(), pages)
    }

    /// The most bytes of compressed memory of an area; `None` if it is another kind.
    pub fn ram_bytes(&self, area: usize) -> Option<u64> {
        self.config.ram_bytes(area)
    }

    /// How faults are delivered, or `None` if the configuration is damaged.
    pub fn delivery(&self) -> Option<Delivery> {
        self.config.delivery()
    }

    /// The configuration, or `None` if it is damaged.
    #[cfg(feature = "alloc")]
    pub fn config(&self) -> Option<Config> {
        self.config.load()
    }

    /// Writes the configuration and marks the memory as ready for programs.
    #[cfg(feature = "alloc")]
    pub fn publish(&self, config: &Config) -> Result<(), TooLong> {
        self.config.store(config)?;
        self.layout.store(Self::LAYOUT, Release);
        Ok(())
    }

    /// Whether the memory was published with this layout.
    pub fn is_ready(&self) -> bool {
        self.layout.load(Acquire) == Self::LAYOUT
    }

    /// Leaves a message that says why a manager cannot continue. The program's is kept, and the first of other
    /// processes.
    ///
    /// Returns whether this one is kept, and the command will show it.
    pub fn fail(&self, process: u32, message: &str) -> bool {
        let is_own = process == self.program.load(Relaxed);
        let place = if is_own { &self.own_failure } else { &self.failure };
        place.store(process, message)
    }

    /// Why the program's manager could not continue.
    #[cfg(feature = "alloc")]
    pub fn own_failure(&self) -> Option<String> {
        self.own_failure.load().map(|(_, message)| message)
    }

    /// Why another process's manager could not continue, and its number.
    #[cfg(feature = "alloc")]
    pub fn failure(&self) -> Option<(u32, String)> {
        self.failure.load()
    }
}

/// The failure of a manager.
#[repr(C)]
struct Failure {
    /// 0 none, 1 being written, 2 written.
    state: AtomicU32,
    process: AtomicU32,
    message: text::Text<512>,
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

    #[cfg(feature = "alloc")]
    fn load(&self) -> Option<(u32, String)> {
        if self.state.load(Acquire) != 2 {
            return None;
        }
        let message = String::from_utf8_lossy(&self.message.load()).into_owned();
        Some((self.process.load(Relaxed), message))
    }
}

/// A counter shared by all processes.
#[derive(Default)]
#[repr(transparent)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Pages that were brought before they were touched.
#[derive(Default)]
#[repr(C)]
pub struct Ahead {
    /// The number of pages.
    pub brought: Count,
    /// How many of these were used, each of which saved a fault.
    pub used: Count,
    /// How many of these were evicted without a sign of use.
    pub wasted: Count,
}

/// The counters of all processes of a run, in pages or faults.
#[repr(C)]
pub struct Counters {
    /// Program images that started under a manager: programs executed.
    pub programs: Count,
    /// Processes forked from one that has a manager.
    pub forks: Count,
    /// Faults that gave a page of zeros to anonymous memory.
    pub anonymous: Count,
    /// Of these, faults by a load, which read only zeros.
    pub zero: Count,
    /// Faults that gave a page of a file.
    pub file: Count,
    /// Faults that read a page back from swap.
    pub swap_in: Count,
    /// Faults that copied a shared page for its writer.
    pub copy_on_write: Count,
    /// Faults by the first store to a page that its sole owner may write.
    pub first_store: Count,
    /// Faults that restored the rights that an entry had lost to show whether its page is used.
    pub standby: Count,
    /// Faults that found nothing to correct.
    pub spurious: Count,
    /// Faults answered without reading from a store.
    pub minor: Count,
    /// Faults that read from a store.
    pub major: Count,
    /// Pages read back from swap before they were touched.
    pub read_ahead: Ahead,
    /// Pages of zeros given to memory before it was touched.
    pub populated_ahead: Ahead,
    /// Processes whose pages were taken over from the host.
    pub takeovers: Count,
    /// The pages that were.
    pub taken_over: Count,
    /// Calls that the runtime refused because it cannot support them.
    pub refused: Count,
    /// Pages written to each swap area.
    pub pages_out: [Count; MOST_AREAS],
    /// Pages read from each swap area.
    pub pages_in: [Count; MOST_AREAS],
    /// The bytes of pages that went into compressed RAM, and their compressed bytes.
    pub uncompressed_bytes: Count,
    /// See [`Counters::uncompressed_bytes`].
    pub compressed_bytes: Count,
    /// The compressed pages that the supervisor compressed.
    pub offloaded: Count,
    /// Pages that were evicted.
    pub evicted: Count,
    /// The durations of faults, in nanoseconds.
    pub fault_time: Histogram,
}
