//! Memory of devices as an object (spec B13): it can be mapped, and has no page in the page cache.

use crate::cache::mapping::{File, Mapping, Store};
use crate::error::Refusal;
use crate::machine::{DeviceMemory, Frame, Machine, NoPage};
use crate::manager::Manager;
use crate::map::zap::Which;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

/// The memory of a device, and how often it took frames back.
pub(crate) struct Device {
    pub(super) memory: Arc<dyn DeviceMemory>,
    revocations: AtomicU64,
}

/// What a device answered to a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// This frame shows the page, if the device has taken none back since it had done so many times.
    Frame(Frame, u64),
    /// The device is busy.
    Again,
}

impl<M: Machine> File<M> {
    /// Opens memory of a device, which can be mapped and neither read nor written as a file.
    ///
    /// Its regions are `VM_IO` and `VM_PFNMAP`: their pages cannot be locked, pinned or evicted, and what a
    /// private one stores goes to a copy.
    pub fn device(manager: &Arc<Manager<M>>, memory: Arc<dyn DeviceMemory>) -> Self {
        let device = Device { memory, revocations: AtomicU64::new(0) };
        Mapping::create(manager, Store::Device(device), 0)
    }
}

impl<M: Machine> Mapping<M> {
    /// Takes pages of a device out of every page table, so that the next access asks the device again
    /// (`unmap_mapping_range`). Private copies stay.
    ///
    /// The device answers by its new state before it calls this: no entry with an old frame comes back.
    pub fn revoke(&self, indexes: Range<u64>) {
        if let Store::Device(device) = &self.store {
            device.revocations.fetch_add(1, Ordering::SeqCst);
            self.unmap(indexes, Which::Files);
        }
    }

    /// Asks the device which frame shows a page.
    pub(crate) fn device_frame(&self, index: u64) -> Result<Shown, Refusal> {
        let Store::Device(device) = &self.store else { return Err(Refusal::Bus) };
        self.manager.order.assert_may_sleep();
        let before = device.revocations.load(Ordering::SeqCst);
        match device.memory.frame(index) {
            Ok(frame) if self.manager.is_device(frame) => Ok(Shown::Frame(frame, before)),
            // A page of the memory manager would be mapped uncounted.
            Ok(_) | Err(NoPage::Bus) => Err(Refusal::Bus),
            Err(NoPage::OutOfMemory) => Err(Refusal::OutOfMemory),
            Err(NoPage::Again) => Ok(Shown::Again),
        }
    }

    /// Whether what the device showed may still be entered: asked under the cursor over the entry, which
    /// a revocation takes after it has counted.
    pub(crate) fn still_shows(&self, before: u64) -> bool {
        matches!(&self.store, Store::Device(device)
            if device.revocations.load(Ordering::SeqCst) == before)
    }

    /// Whether the object is memory of a device.
    pub(crate) const fn is_device(&self) -> bool {
        matches!(self.store, Store::Device(_))
    }
}
