//! One language of memory operations, run on every pagefault machine and on the host kernel.
//!
//! A script goes through the crate from top to bottom:
//!
//! 1. [`mod@parse`] reads the text into [`ast::Script`], all of it, before anything runs;
//! 2. [`runner::Run`] resolves names, chooses addresses, and calls a machine;
//! 3. a [`machine::Machine`] executes the call: the oracle [`kernel`] by real system calls in real
//!    processes, the others by a memory manager;
//! 4. [`outcome::Outcome`] is printed, and [`diff`] compares the output of several machines;
//! 5. [`random`] writes random scripts, [`hunt`] compares many of them, [`shrink`] minimises one on which
//!    machines differ;
//! 6. [`command`] is the command line.
//!
//! ```
//! # #[cfg(all(target_os = "linux", target_arch = "x86_64"))] {
//! use pagefault_script::{machine::Catalogue, parse::parse, runner};
//!
//! let script = parse("mmap A 2p rw private anon\nwrite A \"hi\"\nread A+2p 1\n")?;
//! let catalogue = Catalogue::new();
//! let kernel = catalogue.find("kernel").ok_or("no kernel here")?;
//! let mut machine = (kernel.start)(&runner::setup(&script, 0))?;
//! let answers: Vec<String> = runner::Run::new(&script, &mut *machine)
//!     .map(|answer| answer.text)
//!     .collect();
//! assert_eq!(answers, ["ok", "ok", "SIGSEGV MAPERR A+0x2000"]);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod ast;
pub mod command;
pub mod corpus;
pub mod diff;
pub mod hunt;
#[cfg(all(feature = "hosts", target_os = "linux", target_arch = "x86_64"))]
pub mod kernel;
mod layout;
pub mod machine;
pub mod managed;
pub mod outcome;
pub mod parse;
#[cfg(feature = "hosts")]
pub mod pc;
mod print;
pub mod random;
pub mod runner;
pub mod shrink;
mod words;

pub use layout::{USER_END, WINDOW_END, WINDOW_START, Window};
