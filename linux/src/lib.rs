//! A Linux process as a machine for the pagefault memory manager, through userfaultfd.
//!
//! Our own page table says what memory is; the host's page table is a look-aside buffer for it.
//! From the top:
//!
//! | module | what it does | needs `std` |
//! |---|---|---|
//! | [`memory`] | memory with a limit for a Rust program | yes |
//! | [`runtime`] | the machine and a memory manager on it, running | yes |
//! | [`deliver`] | a fault travels up, inline in the faulting thread or through a thread of ours | threads and handlers |
//! | [`machine`] | the machine: frames, copies, flushes, for the memory manager | |
//! | [`space`] | address spaces: windows, or the process itself | |
//! | `place` | which host page shows which frame: refilling and flushing | |
//! | `table`, `frame`, `buffer` | our page table, the frames, parked pages | |
//! | [`adopt`] | host pages that were there before the manager | |
//! | [`fork`] | what a fork of the whole process needs | |
//! | [`store`] | where evicted pages go: compressed RAM and files | |
//! | [`probe`] | what the running kernel offers | |
//! | `uffd`, `host`, `sweep`, `sys`, [`lock`] | the system calls | |
//!
//! # Without `std`
//! A memory manager that lives in a foreign program has no libc of its own. With
//! `default-features = false` the crate needs `alloc` alone: it links no libc, has no thread-local,
//! starts no thread, and installs no signal handler. The embedder names its threads
//! ([`set_context`]), takes the `SIGBUS` itself and has it [answered](deliver::answer), and makes
//! pages present for the system calls that name them ([`LinuxSpace::make_present`]).
//!
//! # Lock order
//! The lock of a leaf of a page table, then a frame's lock, then the locks of the free lists and of
//! the buffers, which are held for a few instructions. Whoever holds a lock only tries for further
//! frames.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod adopt;
mod buffer;
mod context;
pub mod deliver;
mod follow;
pub mod fork;
mod frame;
mod host;
pub mod lock;
pub mod machine;
#[cfg(feature = "std")]
pub mod memory;
mod place;
pub mod probe;
mod quota;
mod reserve;
#[cfg(feature = "std")]
pub mod runtime;
pub mod space;
mod stats;
pub mod store;
mod sweep;
mod sys;
mod table;
mod uffd;
#[cfg(feature = "std")]
mod visit;

pub use adopt::{AdoptPresentError, adopt_present};
pub use context::set_context;
#[cfg(feature = "std")]
pub use deliver::guard::Faulted;
pub use deliver::{Answer, HostFault, Resolution, Signal, answer};
#[cfg(feature = "std")]
pub use deliver::{Answering, Pager};
pub use fork::ForkError;
pub use machine::{BuildError, Config, LinuxMachine};
#[cfg(feature = "std")]
pub use memory::Memory;
pub use place::Refilled;
pub use probe::{Delivery, Probe, ProbeError};
pub use quota::{ChildShares, Quota};
pub use space::{Layout, LinuxSpace, PresentError};
pub use stats::MachineStats;
pub use uffd::{Scope, UffdFeatures, Userfault};
