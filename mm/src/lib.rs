//! Linux's page-fault handling as a library.
//!
//! A kernel or an emulator implements the traits of [`machine`] over its hardware. The memory manager then
//! provides regions, faults, fork, page cache, reverse maps, swap and reclaim.
//!
//! ```
//! use pagefault::entry::Verdict;
//! use pagefault::exception::ExceptionTables;
//! use pagefault::machine::{Mode, VirtAddr};
//! use pagefault::{AddressSpace, Config, Layout, Manager, MapRequest};
//! use pagefault_sim::Sim;
//! use std::sync::Arc;
//!
//! // A simulated computer, and a memory manager over it.
//! let sim = Sim::new(pagefault_sim::Config::default());
//! let manager = Manager::new(Arc::new(sim.clone()), Config::default());
//! let layout = Layout::over(VirtAddr(0x1_0000)..VirtAddr(0x7fff_ffff_f000));
//! let space = AddressSpace::new(&manager, layout)?;
//!
//! // Memory is promised now, and given when it is touched.
//! let start = space.mmap(&MapRequest::anonymous(16 << 20))?;
//!
//! // A processor stores, faults, and stores again.
//! let cpu = sim.cpu(0);
//! while let Err(fault) = cpu.store(space.space(), start, Mode::User, 7) {
//!     let verdict = manager.page_fault(Some(&space), &fault, &ExceptionTables::default());
//!     assert_eq!(verdict, Verdict::Resume);
//! }
//! assert_eq!(cpu.load(space.space(), start, Mode::User), Ok(7));
//! assert_eq!(space.usage().anonymous, 1);
//!
//! // A child sees the byte, and each has its own copy from the first store on.
//! let child = space.fork()?;
//! assert_eq!(child.usage().anonymous, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`making_a_machine`] says how to implement a machine of your own. Package `pagefault-linux` makes a Linux
//! process one.
//!
//! The layers, from a fault down:
//!
//! | layer | module | what it does |
//! |---|---|---|
//! | entry | [`entry`] | from a processor's error code to a verdict |
//! | fault | `fault` | looks at the entry and chooses one correction |
//! | address space | [`Mm`] | regions, their tree, the locks |
//! | verbs | `map`, `fork` | mmap and its family |
//! | user | `user`, `pin` | accesses to a program's memory by the kernel and by devices |
//! | caches | `cache` | files and swapped pages in memory |
//! | reverse maps | `rmap` | from a page to its entries |
//! | reclaim | `reclaim`, [`replacement`], [`swap`] | which page is evicted, and where it goes |
//!
//! Numbers such as `spec B14` refer to the [requirements](spec).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub use pagefault_machine as machine;

#[doc = include_str!("making_a_machine.md")]
pub mod making_a_machine {}

#[doc = include_str!("spec.md")]
#[allow(rustdoc::broken_intra_doc_links, reason = "brackets are no links there")]
pub mod spec {}

mod address_space;
mod allocate;
mod avl;
mod cache;
mod check;
mod edit;
mod entries;
pub mod entry;
pub mod error;
mod event;
pub mod exception;
mod fault;
mod forced;
mod fork;
mod guesses;
mod heap;
mod interval;
mod limits;
mod look;
mod manager;
mod map;
mod marks;
mod mm;
pub mod oom;
mod page;
mod pages;
mod pending;
mod pin;
mod reclaim;
mod registry;
pub mod replacement;
mod rmap;
mod runs;
mod stats;
pub mod swap;
mod sync;
mod tlb;
mod totals;
mod tree;
mod user;
mod verdict;
mod vma;
mod word;

pub use address_space::AddressSpace;
pub use cache::{File, Mapping};
pub use check::{Invariant, Violation};
pub use entries::GUARD;
pub use event::{Ahead, Correction, Event, Observer, Weight};
pub use fault::Adopted;
pub use limits::Limits;
pub use look::{FrameReport, PageOwner, QueueReport, Turn, Visit};
pub use manager::{Config, Manager, NonlinearPolicy, Overcommit, SwapAreas, ZeroPolicy};
pub use map::{
    Advice, FileAccess, LockAll, MapOptions, MapRequest, Move, PageReport, Placement, RegionReport,
    RemapRequest, Sharing, Source, SyncMode,
};
pub use mm::{Layout, Mm, UsageNow};
pub use pin::Pin;
pub use reclaim::watermarks::Watermarks;
pub use stats::Counters;
pub use totals::Totals;
pub use vma::VmaFlags;
