//! A simulated computer for the pagefault memory manager.
//!
//! [`Sim`] is a [`Machine`](pagefault_machine::Machine): frames, address spaces whose page tables
//! are real x86-64 words in frames of the same pool, and CPUs that walk them. It is as
//! unforgiving as a real one: a TLB stays stale until it is flushed, CPUs set bits at surprising moments,
//! freed frames are scrambled, devices fail. It reports the memory manager's mistakes as
//! [`Violation`]s.
//!
//! ```
//! use pagefault_machine::{
//!     Cursor, Entry, ErrorCode, Fate, Machine, Mode, Protection, Space, Stale, VirtAddr,
//! };
//! use pagefault_sim::{Config, Sim};
//!
//! let sim = Sim::new(Config::calm());
//! let cpu = sim.cpu(0);
//! let space = sim.space()?;
//! let page = VirtAddr(0x40_0000);
//! let range = page..page + 4096;
//!
//! // Nothing is mapped: a user's store raises a fault with error code W | U.
//! let fault = cpu.store(&space, page, Mode::User, 7).unwrap_err();
//! assert_eq!(fault.address, page);
//! assert_eq!(fault.code, ErrorCode::WRITE | ErrorCode::USER);
//!
//! // Map a frame by hand, and the same store goes through.
//! let frame = sim.allocate()?;
//! sim.zero(frame);
//! let protection = Protection::READ | Protection::WRITE;
//! let entry = Entry::Present { frame, protection, accessed: false, dirty: false };
//! space.lock(range.clone())?.replace(page, entry);
//! cpu.store(&space, page, Mode::User, 7).unwrap();
//!
//! // The CPU marked the entry. Take it away again:
//! let old = space.lock(range)?.replace(page, Entry::None);
//! assert!(matches!(old, Entry::Present { accessed: true, dirty: true, .. }));
//!
//! // The TLB still knows the page, which is what a check finds and a flush mends.
//! assert_eq!(cpu.load(&space, page, Mode::User), Ok(7));
//! assert!(sim.check_tlbs().is_err());
//! sim.flush(&space, &[Stale { address: page, frame, fate: Fate::Freed }]);
//! assert!(cpu.load(&space, page, Mode::User).is_err());
//! assert!(sim.check_tlbs().is_ok());
//! sim.free(frame);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | what | where |
//! |---|---|
//! | the computer, with x86-64 or IA-32 processors | [`Computer`], [`Sim`], [`Sim32`], [`Config`] |
//! | accesses and the faults they raise, lazy TLBs | [`Cpu`] |
//! | kernel addresses and the reference table (spec A4–A6) | [`Computer::kernel`], [`Computer::synchronise_root`] |
//! | broken rules, checked as they happen or on request | [`Violation`], [`Computer::check_tlbs`] |
//! | things that fail at the nth time | [`Computer::fail_nth_allocation`], [`SimDisk`], [`SimFile`], [`Faulty`] |
//! | memory of devices, mapped as it is (spec B13) | [`Config::device_frames`], [`Computer::device`], [`SimDevice`] |
//! | interleavings that repeat by seed | [`Computer::explore`] |
//! | what was asked of a machine, of this one or any other | [`Traced`], [`Log`] |
//!
//! # Time and chance
//! One thread that does the same on a computer of the same [`Config`] sees the same. Several
//! threads may each drive a CPU at their own speed, which does not repeat, or be tasks of
//! [`Computer::explore`], which does:
//!
//! ```
//! use pagefault_sim::{Config, Sim, SimMutex, Task};
//!
//! let order = |seed| {
//!     let sim = Sim::new(Config { cpus: 2, ..Config::default() });
//!     let log = lock_api::Mutex::<SimMutex, _>::new(Vec::new());
//!     let task = |name: char| -> Task<'_> {
//!         let log = &log;
//!         Box::new(move || (0..3).for_each(|_| log.lock().push(name)))
//!     };
//!     sim.explore(seed, vec![task('a'), task('b')]);
//!     log.into_inner()
//! };
//! assert_eq!(order(1), order(1));
//! assert!((2..50).any(|seed| order(seed) != order(1)));
//! ```

#![deny(unsafe_code)]

mod arch;
mod chance;
mod computer;
mod conduct;
mod config;
mod content;
mod context;
mod cpu;
mod device;
mod disk;
mod errata;
mod faulty;
mod file;
mod frames;
mod hardware;
mod kernel;
#[allow(unsafe_code)] // the traits of `lock_api` are unsafe to implement
mod lock;
mod look;
mod schedule;
mod shootdown;
mod space;
mod stats;
mod table;
mod tlb;
mod traced;
mod violation;
mod wait;
mod walk;

pub use arch::{Alpha, Architecture, Field, Ia32, Pae, X86_64};
pub use computer::{Computer, Sim, Sim32, Usage};
pub use config::{Config, ConfigError, Hazards, OnViolation};
pub use cpu::{Cpu, Registers};
pub use device::{DeviceStats, SimDevice};
pub use disk::{DiskStats, SimDisk};
pub use errata::Errata;
pub use faulty::{Faulty, FaultySpace};
pub use file::{FileStats, SimFile};
pub use kernel::SyncError;
pub use lock::{SimMutex, SimRwLock};
pub use look::{TablePage, WalkStep};
pub use schedule::{Explored, Switching, Task, yield_point};
pub use space::{SimCursor, SimSpace};
pub use stats::Stats;
pub use tlb::{Rights, Translation};
pub use traced::{Call, Log, Observer, Traced, TracedCursor, TracedSpace};
pub use violation::{Operation, Staleness, Violation};
