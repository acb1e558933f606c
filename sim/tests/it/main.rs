//! The simulated computer, without and with a memory manager. One program, so that it is compiled once
//! for it and not once for each file.

mod alpha;
mod basics;
mod common;
mod errata;
mod kernel;
mod middleware;
mod random;
mod rules;
mod schedule;
mod stores;
mod threads;
mod tlb;
