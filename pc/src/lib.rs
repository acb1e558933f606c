//! Boots pagefault's small kernel in QEMU and runs Linux programs on it.
//!
//! | module | what it does |
//! |---|---|
//! | [`boot`] | a machine with a program: what it is made of, and running it |
//! | [`archive`] | files and a command as the archive that the kernel takes its files from |
//! | [`host`] | the host's programs with their libraries, for the machine |
//! | [`kernel`] | finds or builds the kernel |

#![deny(unsafe_code)]

pub mod archive;
pub mod boot;
pub mod host;
pub mod kernel;

pub use boot::{Boot, BootError, Ended};
