//! Who is inside of something that is about to go: a fault handler takes no lock to find out who
//! answers it, so whoever takes that away waits for the handlers under way.

use crate::context;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Release, SeqCst};

const SHARDS: usize = 16;

#[repr(align(64))]
struct Shard(AtomicU32);

/// The visits under way, spread over threads.
pub struct Visitors([Shard; SHARDS]);

/// A visit, until it is dropped.
pub struct Visit<'a>(&'a AtomicU32);

impl Visitors {
    /// Nobody.
    pub const fn new() -> Self {
        Self([const { Shard(AtomicU32::new(0)) }; SHARDS])
    }

    /// Begins a visit. What the visitor reads with `SeqCst` from now on, and what that leads to,
    /// stays until the end of the visit.
    pub fn enter(&self) -> Visit<'_> {
        let count = &self.0[context::current() as usize % SHARDS].0;
        count.fetch_add(1, SeqCst);
        Visit(count)
    }

    /// Waits until all visits have ended that were under way. The caller has taken away, with
    /// `SeqCst`, what further visitors must not find, and is no visitor.
    pub fn wait_until_gone(&self) {
        for shard in &self.0 {
            // Looked at one by one: a visit that begins now finds nothing.
            while shard.0.load(SeqCst) > 0 {
                rustix::thread::sched_yield();
            }
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Release);
    }
}
