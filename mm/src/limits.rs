//! Limits on an address space.

use core::sync::atomic::{AtomicU64, Ordering};

/// Limits on an address space (`setrlimit`), in bytes.
#[derive(Debug)]
pub struct Limits {
    /// The size of all regions (`RLIMIT_AS`).
    pub address_space: AtomicU64,
    /// The size of a region that grows down (`RLIMIT_STACK`).
    pub stack: AtomicU64,
    /// The size of locked regions (`RLIMIT_MEMLOCK`).
    pub locked: AtomicU64,
    /// The size of memory that only this program writes, without stacks (`RLIMIT_DATA`).
    pub data: AtomicU64,
}

impl Default for Limits {
    /// No limits but 8 MiB of stack.
    fn default() -> Self {
        Self {
            address_space: AtomicU64::new(u64::MAX),
            stack: AtomicU64::new(8 << 20),
            locked: AtomicU64::new(u64::MAX),
            data: AtomicU64::new(u64::MAX),
        }
    }
}

impl Limits {
    pub(crate) fn copy(&self) -> Self {
        let copy = |limit: &AtomicU64| AtomicU64::new(limit.load(Ordering::Relaxed));
        Self {
            address_space: copy(&self.address_space),
            stack: copy(&self.stack),
            locked: copy(&self.locked),
            data: copy(&self.data),
        }
    }
}
