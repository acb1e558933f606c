//! Swap areas: where evicted anonymous pages are kept.

pub mod area;
pub(crate) mod off;
pub(crate) mod owners;
pub mod slots;
