//! Counts the visitors of an object that is about to go. A fault handler takes no lock to find its
//! pager, so the thread that removes the pager waits for running handlers.

use crate::context;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Release, SeqCst};

const SHARDS: usize = 16;

#[repr(align(64))]
struct Shard(AtomicU32);

/// The current visits, spread over threads.
pub struct Visitors([Shard; SHARDS]);

/// A visit, until it is dropped.
pub struct Visit<'a>(&'a AtomicU32);

impl Visitors {
    /// Nobody.
    pub const fn new() -> Self {
        Self([const { Shard(AtomicU32::new(0)) }; SHARDS])
    }

    /// Begins a visit. Objects that the visitor reaches by `SeqCst` loads from now on stay until
    /// the end of the visit.
    pub fn enter(&self) -> Visit<'_> {
        let count = &self.0[context::current() as usize % SHARDS].0;
        count.fetch_add(1, SeqCst);
        Visit(count)
    }

    /// Waits until all current visits have ended. Before, the caller has removed with `SeqCst` what
    /// further visitors must not find. The caller is not a visitor itself.
    pub fn wait_until_gone(&self) {
        for shard in &self.0 {
            // Checked one by one: a visit that begins now finds nothing.
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
