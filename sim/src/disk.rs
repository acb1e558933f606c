//! A swap device that keeps its slots in memory.

use crate::conduct::{Conduct, FailNth};
use core::sync::atomic::{AtomicU64, Ordering};
use pagefault_machine::machine::Page;
use pagefault_machine::{IoError, SwapDevice};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A disk for evicted pages, which fails when told to.
///
/// A value is only a handle; clones name the same disk, so that a test keeps one while the memory
/// manager owns another. Reading a slot that holds nothing is an error of the device.
#[derive(Clone, Debug)]
pub struct SimDisk {
    disk: Arc<Disk>,
}

#[derive(Debug)]
struct Disk {
    slots: u32,
    stored: Mutex<BTreeMap<u32, Box<Page>>>,
    /// Beyond this many pages the disk is full.
    capacity: AtomicU64,
    fail_read: FailNth,
    fail_write: FailNth,
    conduct: Conduct,
    reads: AtomicU64,
    writes: AtomicU64,
    discards: AtomicU64,
}

/// What a [`SimDisk`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Pages read, failed reads among them.
    pub reads: u64,
    /// Pages written, failed writes among them.
    pub writes: u64,
    /// Slots discarded.
    pub discards: u64,
    /// Slots that hold a page now.
    pub stored: u64,
}

impl SimDisk {
    /// A disk of `slots` slots, the first of which is never used.
    pub fn new(slots: u32) -> Self {
        let disk = Disk {
            slots,
            stored: Mutex::default(),
            capacity: AtomicU64::new(u64::MAX),
            fail_read: FailNth::default(),
            fail_write: FailNth::default(),
            conduct: Conduct::default(),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            discards: AtomicU64::new(0),
        };
        Self { disk: Arc::new(disk) }
    }

    /// Puts a header into the first page, which is no slot (spec F1).
    pub fn set_header(&self, page: &Page) {
        self.disk.stored.lock().insert(0, Box::new(*page));
    }

    /// Makes the `nth` read from now on fail, the next one being the first; 0 lets all succeed.
    pub fn fail_nth_read(&self, nth: u64) {
        self.disk.fail_read.set(nth);
    }

    /// Makes the `nth` write from now on fail, the next one being the first; 0 lets all succeed.
    pub fn fail_nth_write(&self, nth: u64) {
        self.disk.fail_write.set(nth);
    }

    /// Makes the disk full once it holds `pages` pages, as compressed memory is before it runs out
    /// of slots.
    pub fn set_capacity(&self, pages: u64) {
        self.disk.capacity.store(pages, Ordering::Relaxed);
    }

    /// Makes every read and write give way to other threads `steps` times.
    pub fn set_latency(&self, steps: u64) {
        self.disk.conduct.set_latency(steps);
    }

    /// Accepts calls by threads that hold locks of the computer, which otherwise panic: no lock is
    /// to be held across I/O.
    pub fn tolerate_locks(&self) {
        self.disk.conduct.tolerate_locks();
    }

    /// What the disk has done so far.
    pub fn stats(&self) -> DiskStats {
        DiskStats {
            reads: self.disk.reads.load(Ordering::Relaxed),
            writes: self.disk.writes.load(Ordering::Relaxed),
            discards: self.disk.discards.load(Ordering::Relaxed),
            stored: self.disk.stored.lock().len() as u64,
        }
    }

    /// Whether a slot holds a page.
    pub fn holds(&self, slot: u32) -> bool {
        self.disk.stored.lock().contains_key(&slot)
    }
}

impl SwapDevice for SimDisk {
    fn slots(&self) -> u32 {
        self.disk.slots
    }

    fn read(&self, slot: u32, page: &mut Page) -> Result<(), IoError> {
        self.disk.conduct.begin(&self.disk.reads, &self.disk.fail_read)?;
        let stored = self.disk.stored.lock();
        page.copy_from_slice(&stored.get(&slot).ok_or(IoError::Device)?[..]);
        Ok(())
    }

    fn write(&self, slot: u32, page: &Page) -> Result<(), IoError> {
        self.disk.conduct.begin(&self.disk.writes, &self.disk.fail_write)?;
        if slot == 0 || slot >= self.disk.slots {
            return Err(IoError::Device);
        }
        let mut stored = self.disk.stored.lock();
        let is_full = stored.len() as u64 >= self.disk.capacity.load(Ordering::Relaxed);
        if is_full && !stored.contains_key(&slot) {
            return Err(IoError::Full);
        }
        stored.insert(slot, Box::new(*page));
        Ok(())
    }

    fn discard(&self, slot: u32) {
        self.disk.conduct.expect_no_locks();
        self.disk.discards.fetch_add(1, Ordering::Relaxed);
        self.disk.stored.lock().remove(&slot);
    }
}
