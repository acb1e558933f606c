//! Every fault of a script explained.
//!
//! A script runs on the simulated computer ([`record()`]), and what happens becomes one model
//! ([`model::Explanation`]): steps, each with the state after it. Three views show it: lines
//! for a terminal ([`text`]), a page that steps ([`html`]), and the model itself as JSON. The
//! [`lessons`] are scripts with a text beside them.
//!
//! ```
//! use pagefault_explain::record::{Request, record};
//! use pagefault_explain::text::{Colour, Detail, Lines};
//!
//! let source = "mmap A 1p rw private anon\nwrite A \"hi\"\n".into();
//! let explanation = record(&Request { source, ..Request::default() })?;
//! let lines = Lines { explanation: &explanation, detail: Detail::Short, colour: Colour::Off };
//! assert!(lines.to_string().contains("Fresh memory is stored to"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The events come from a wrapper around the machine ([`pagefault_sim::Traced`]) and from the memory
//! manager's observer. A program that is not explained pays nothing for them.

pub mod command;
pub mod html;
pub mod lessons;
pub mod model;
pub mod record;
pub mod text;

pub use record::record;
