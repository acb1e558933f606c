//! Boots pagefault's small kernel in QEMU and runs Linux programs on it.
//!
//! | module | what it does |
//! |---|---|
//! | [`boot`] | a machine with a program: what it is made of, and running it |
//! | [`archive`] | a directory and a command as the archive that the kernel takes its files from |
//! | [`kernel`] | finds or builds the kernel |
//! | [`command`] | the command line of `pagefault boot` |

#![forbid(unsafe_code)]

pub mod archive;
pub mod boot;
pub mod command;
pub mod kernel;

pub use boot::{Boot, BootError, Ended};
