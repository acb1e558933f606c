//! A swap device of the embedder's, whose pages are compared with what it was given.

use crate::reserve::{ReserveError, Table};
use crate::store::file::sum;
use pagefault::machine::{IoError, Page, Part, SwapDevice};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// A device that never brings back other bytes than it was given: they would change under references to a
/// region.
pub(super) struct Checked {
    device: Arc<dyn SwapDevice>,
    /// For each slot the checksum of its page.
    sums: Table<AtomicU32>,
}

impl Checked {
    pub(super) fn new(device: Arc<dyn SwapDevice>) -> Result<Self, ReserveError> {
        let sums = Table::new(device.slots() as usize)?;
        Ok(Self { device, sums })
    }
}

impl SwapDevice for Checked {
    /// As many as at first, whatever the device says later.
    fn slots(&self) -> u32 {
        self.sums.len() as u32
    }

    fn read(&self, slot: u32, page: &mut Page) -> Result<(), IoError> {
        let expected = self.sums.get(slot as usize).ok_or(IoError::Device)?.load(Relaxed);
        self.device.read(slot, page)?;
        if sum(page) == expected { Ok(()) } else { Err(IoError::Device) }
    }

    fn write(&self, slot: u32, page: &Page) -> Result<(), IoError> {
        let place = self.sums.get(slot as usize).ok_or(IoError::Device)?;
        self.device.write(slot, page)?;
        place.store(sum(page), Relaxed);
        Ok(())
    }

    fn prefetch(&self, slot: u32, part: Part) {
        self.device.prefetch(slot, part);
    }

    fn discard(&self, slot: u32) {
        self.device.discard(slot);
    }
}
