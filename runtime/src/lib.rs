//! The small kernel that `pagefault run` places in a program's process.
//!
//! Page faults and system calls enter the runtime in the thread that makes them, as they would enter a
//! kernel. The host's kernel plays the hardware.
//!
//! ```text
//! program ── fault ──► SIGBUS ─► memory ─► mm ─► host page filled, the instruction runs again
//!         ── call ───► SIGSYS ─► call ─► the pages that it names kept resident ─► the host's call
//!         ── signal ─► signal ─► frame written on the program's stack, as a kernel writes it
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `start` | from the supervisor's handover to the program's first instruction |
//! | `entry` | the ways in and out, in assembly |
//! | `signal` | the program's signals |
//! | `call` | the program's system calls |
//! | `site` | frequent call sites, rewritten so that their calls need no trap |
//! | `memory` | managed memory: faults, mappings, forks |
//! | [`process`], `member`, `thread` | the address space, a process of it, a thread |
//! | `seccomp` | the program's filters of calls |
//! | `launcher` | what the end of the launcher means for the tree |
//! | `tracer` | which faults a tracer is shown |
//! | `files`, `file_size`, `address_limit` | descriptors, and limits that concern the runtime's own files and tables |
//! | `user` | the runtime's accesses to the program's memory |
//! | `sys`, `frame` | the host's calls and structures |
//! | [`heap`], `lock` | the runtime's own memory and locks |
//!
//! # Rules
//! The runtime has no libc, no thread-local storage and no thread of its own; `--delivery=threads` runs a
//! process beside the program (`memory::serve`). It runs on a block of its own for each thread
//! (`thread`), never on the program's stacks. While it holds a lock it does not touch the program's
//! memory, because a fault would re-enter the runtime.
#![no_std]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

mod address_limit;
mod call;
mod entry;
mod file_size;
mod files;
mod frame;
pub mod heap;
mod keys;
mod launcher;
mod lock;
mod maps;
mod member;
mod memory;
pub mod process;
mod quiescence;
mod seccomp;
mod shared;
mod signal;
mod site;
mod start;
mod stops;
mod supervisor;
mod sys;
mod thread;
mod tracer;
mod user;
mod vdso;
