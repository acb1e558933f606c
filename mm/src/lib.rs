//! Linux's page-fault handling as a library.
//!
//! A kernel, an emulator, a database or a laboratory gives its hardware to the memory manager
//! through the traits of [`machine`] and takes from it what memory means: regions, faults, fork,
//! page cache, reverse maps, swap and reclaim. The layers, from a fault down:
//!
//! | layer | module | what it does |
//! |---|---|---|
//! | entry | [`entry`] | from a processor's error code to a verdict |
//! | fault | `fault` | looks at the entry and chooses one correction |
//! | address space | [`Mm`] | regions, their tree, the locks |
//! | verbs | `map`, `fork` | mmap and its family |
//! | user | `user`, `pin` | the kernel's own accesses to a program's memory, and a device's |
//! | caches | `cache` | files and swapped pages in memory |
//! | reverse maps | `rmap` | from a page to its entries |
//! | reclaim | `reclaim`, [`swap`] | which page leaves, and where it goes |
//!
//! Spec numbers such as `spec B14` refer to the project's requirements, docs/spec.md.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub use pagefault_machine as machine;

mod avl;
mod cache;
mod check;
mod entries;
pub mod entry;
pub mod error;
mod event;
pub mod exception;
mod fault;
mod fork;
mod interval;
mod limits;
mod look;
mod manager;
mod map;
mod mm;
mod page;
mod pin;
mod reclaim;
mod registry;
mod rmap;
mod stats;
pub mod swap;
mod sync;
mod tlb;
mod tree;
mod user;
mod vma;

pub use cache::{File, Mapping};
pub use check::{Invariant, Violation};
pub use event::{Correction, Event, Observer, Weight};
pub use fault::Adopted;
pub use limits::Limits;
pub use look::{FrameReport, PageOwner, QueueReport, Turn, Visit};
pub use manager::{Config, Manager, NonlinearPolicy, Overcommit, SwapAreas, ZeroPolicy};
pub use map::{
    Advice, FileAccess, MapOptions, MapRequest, Move, PageReport, Placement, RegionReport,
    RemapRequest, Sharing, Source, SyncMode,
};
pub use mm::{AddressSpace, Layout, Mm, UsageNow};
pub use pin::Pin;
pub use stats::Counters;
pub use vma::VmaFlags;
