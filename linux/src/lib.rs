//! A Linux process as a machine for the pagefault memory manager, through userfaultfd.
//!
//! # Memory with a limit
//! ```
//! use pagefault_linux::{Advice, Memory};
//! # if pagefault_linux::Probe::new().is_err() { return Ok(()) }
//!
//! // At most 8 MiB are resident; the rest is compressed, then written to a temporary file.
//! let memory = Memory::with_limit(8 << 20)?;
//! let mut table = memory.map(64 << 20)?;
//! for (number, word) in table.as_chunks_mut().0.iter_mut().enumerate() {
//!     *word = number.to_ne_bytes();
//! }
//! assert_eq!(table[80_000..80_008], 10_000_usize.to_ne_bytes());
//!
//! // What is no longer needed costs nothing.
//! table.advise(.., Advice::DontNeed)?;
//! assert_eq!(table[80_000..80_008], [0; 8]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A system call on a region
//! Under inline delivery, the default, the kernel finds only resident pages: pin the bytes that a
//! call uses.
//! ```
//! # use pagefault_linux::Memory;
//! # use std::io::Read;
//! # if pagefault_linux::Probe::new().is_err() { return Ok(()) }
//! # let memory = Memory::with_limit(8 << 20)?;
//! let mut region = memory.map(1 << 20)?;
//! let mut bytes = region.pin(4096..8192)?;
//! std::fs::File::open("/proc/self/exe")?.read_exact(&mut bytes)?;
//! assert_eq!(bytes[1..4], *b"ELF");
//! # drop(bytes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A file within the limit
//! ```
//! use pagefault_linux::{Memory, Sharing};
//! use std::sync::Arc;
//! # if pagefault_linux::Probe::new().is_err() { return Ok(()) }
//!
//! let memory = Memory::with_limit(8 << 20)?;
//! let program = memory.open(Arc::new(std::fs::File::open("/proc/self/exe")?));
//! // SAFETY: a private mapping of a file that nobody writes.
//! let bytes = unsafe { memory.map_file(&program, 0, 4096, Sharing::Private)? };
//! assert_eq!(bytes[1..4], *b"ELF");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it is made
//! Our own page table says what memory is; the host's page table is a look-aside buffer for it.
//! From the top:
//!
//! | module | what it does | needs `std` |
//! |---|---|---|
//! | [`memory`] | memory with a limit for a Rust program | yes |
//! | [`runtime`] | the machine and a memory manager on it, running | yes |
//! | [`deliver`] | answers faults, inline in the faulting thread or on a thread of ours | threads and handlers |
//! | [`machine`] | the machine: frames, copies, flushes, for the memory manager | |
//! | [`space`] | address spaces: windows, or the process itself | |
//! | `place`, `fresh` | refills and flushes host pages | |
//! | `table`, `frame`, `buffer` | our page table, the frames, parked pages | |
//! | [`adopt`] | host pages that existed before the manager | |
//! | [`fork`] | what a fork of the whole process needs | |
//! | [`store`] | where evicted pages go: compressed RAM and files | |
//! | [`probe`] | what the running kernel offers | |
//! | `pipe` | takes content out of pages while other threads may store to them | |
//! | `uffd`, `host`, `sweep`, `sys`, [`lock`] | the system calls | |
//!
//! # Without `std`
//! A memory manager in a foreign program has no libc of its own. With `default-features = false`
//! the crate needs only `alloc`: it links no libc, has no thread-local, starts no thread, and
//! installs no signal handler. The embedder numbers its threads ([`set_context`]), receives
//! `SIGBUS` and [answers](deliver::answer) it, and makes pages present for the system calls that
//! name them ([`LinuxSpace::make_present`]).
//!
//! # Lock order
//! The lock of a leaf of a page table, then a frame's lock, then the locks of the free lists and of
//! the buffers, which are held for a few instructions. A thread that holds a lock only tries for
//! further frames.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod adopt;
pub mod apart;
mod batch;
mod buffer;
mod context;
pub mod deliver;
mod follow;
pub mod fork;
mod frame;
mod fresh;
mod host;
pub mod lock;
pub mod machine;
#[cfg(feature = "std")]
pub mod memory;
mod moves;
mod pipe;
mod place;
pub mod probe;
mod quota;
mod reserve;
pub mod room;
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

// Re-exports for users of a memory, so that they need only this package.
pub use pagefault::error;
pub use pagefault::machine::{
    Access, Backing, IoError, PAGE_SIZE, Page, Protection, SwapDevice, VirtAddr,
};
pub use pagefault::replacement;
pub use pagefault::{Advice, Correction, Event, Observer, Sharing, SyncMode, Weight};
pub use {pagefault, pagefault_machine};

pub use adopt::{AdoptPresentError, Standing, adopt_present};
pub use context::{set_alone, set_context};
#[cfg(feature = "std")]
pub use deliver::guard::Faulted;
pub use deliver::{Answer, HostFault, Report, Resolution, Signal, answer};
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
