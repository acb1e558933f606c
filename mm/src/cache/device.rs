//! Memory of devices as an object (spec B13): mappable, without pages in the page cache.

use crate::cache::mapping::{File, Mapping, Store};
use crate::error::Refusal;
use crate::machine::{DeviceMemory, Frame, Machine, NoPage};
use crate::manager::Manager;
use crate::map::zap::Which;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

/// The memory of a device, and the number of its revocations.
pub(crate) struct Device {
    pub(super) memory: Arc<dyn DeviceMemory>,
    revocations: AtomicU64,
}

/// A device's answer to a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// This frame shows the page, as long as the number of revocations is still this one.
    Frame(Frame, u64),
    /// The device is busy.
    Again,
}

impl<M: Machine> File<M> {
    /// Opens memory of a device. It can be mapped, but not read or written as a file.
    ///
    /// Its regions are `VM_IO` and `VM_PFNMAP`: their pages cannot be locked, pinned or evicted.
    /// Stores to a private region go to a copy.
    pub fn device(manager: &Arc<Manager<M>>, memory: Arc<dyn DeviceMemory>) -> Self {
        let device = Device { memory, revocations: AtomicU64::new(0) };
        Mapping::create(manager, Store::Device(device), 0)
    }
}

impl<M: Machine> Mapping<M> {
    /// Takes pages of a device out of every page table, so that the next access asks the device again
    /// (`unmap_mapping_range`). Private copies stay.
    ///
    /// Before the device calls this, it must answer from its new state. Then no entry with an old
    /// frame comes back.
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
            // A page of the memory manager must not be mapped uncounted.
            Ok(_) | Err(NoPage::Bus) => Err(Refusal::Bus),
            Err(NoPage::OutOfMemory) => Err(Refusal::OutOfMemory),
            Err(NoPage::Again) => Ok(Shown::Again),
        }
    }

    /// Whether the device's answer is still valid. The caller holds the cursor over the entry; a
    /// revocation counts first, and then takes that cursor.
    pub(crate) fn still_shows(&self, before: u64) -> bool {
        matches!(&self.store, Store::Device(device)
            if device.revocations.load(Ordering::SeqCst) == before)
    }

    /// Whether the object is memory of a device.
    pub(crate) const fn is_device(&self) -> bool {
        matches!(self.store, Store::Device(_))
    }
}
