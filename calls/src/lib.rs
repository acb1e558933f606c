//! Which memory each system call of x86-64 Linux reads and writes.
//!
//! [`describe`] says what a call's arguments are, how a signal interrupts it and whether a runtime
//! that manages the program's memory must make it itself. [`visit`] follows one call's arguments, and
//! the pointers behind them, and names every area that the kernel will touch. [`split`] says which
//! long transfers may be done in pieces.
//!
//! The facts are those of Linux 6.18; on an older kernel a call that is not there answers `ENOSYS`.
//! Lengths are tested against the host's kernel with buffers that end at an unmapped page
//! (`tests/host.rs`).
//!
//! Nothing here allocates, makes a system call, or follows a pointer by itself: the caller's
//! [`Reader`] reads the program's memory.

#![no_std]
#![forbid(unsafe_code)]

mod area;
mod call;
mod split;
mod table;
mod visit;

pub use area::{Access, Area, Kind, Reader, USER_END};
pub use call::{Arg, Call, Class, Decoder, Dir, Errno, Interrupted, Len, Subject, Traits, Width};
pub use split::{File, Pieces, Rule, Shape, split};
pub use table::{NUMBERS, describe, descriptors};
pub use visit::{AREAS, visit};
