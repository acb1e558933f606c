//! A Linux process as a machine for the pagefault memory manager, through userfaultfd.
//!
//! Our own page table says what memory is; the host's page table is a look-aside buffer for it.
//! From the top:
//!
//! | module | what it does |
//! |---|---|
//! | [`memory`] | memory with a limit for a Rust program |
//! | [`runtime`] | the machine and a memory manager on it, running |
//! | [`deliver`] | a fault travels up, inline in the faulting thread or through a thread of ours |
//! | [`machine`] | the machine: frames, copies, flushes, for the memory manager |
//! | [`space`] | address spaces: windows, or the process itself |
//! | `place` | which host page shows which frame: refilling and flushing |
//! | `table`, `frame`, `buffer` | our page table, the frames, parked pages |
//! | [`fork`] | what a fork of the whole process needs |
//! | [`store`] | where evicted pages go: compressed RAM, a file |
//! | [`probe`] | what the running kernel offers |
//! | [`store`] | where evicted pages go: compressed RAM and files |
//! | `uffd`, `host`, `sweep`, [`lock`] | the system calls |
//!
//! # Lock order
//! The lock of a leaf of a page table, then a frame's lock, then the locks of the free lists and of
//! the buffers, which are held for a few instructions. Whoever holds a lock only tries for further
//! frames.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod buffer;
pub mod deliver;
pub mod fork;
mod frame;
mod host;
pub mod lock;
pub mod machine;
pub mod memory;
mod place;
pub mod probe;
pub mod runtime;
pub mod space;
mod stats;
pub mod store;
mod sweep;
mod table;
mod uffd;

pub use deliver::guard::Faulted;
pub use deliver::{Answering, Pager, Resolution, Signal};
pub use fork::ForkError;
pub use machine::{BuildError, Config, LinuxMachine};
pub use memory::Memory;
pub use probe::{Delivery, Probe, ProbeError};
pub use space::{Layout, LinuxSpace};
pub use stats::MachineStats;
pub use uffd::{Scope, UffdFeatures};
