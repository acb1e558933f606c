//! Every fault of a script explained.
//!
//! A script runs on the simulated computer ([`record()`]), and what happens becomes one model
//! ([`model::Explanation`]): steps, each with the state after it. Three views show it: lines
//! for a terminal ([`text`]), a page that steps ([`html`]), and the model itself as JSON. The
//! [`lessons`] are scripts with a text beside them.
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
