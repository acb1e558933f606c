//! Handles that keep an area: to write to it, and to free a slot later.

use super::{Area, Areas};
use alloc::sync::Arc;
use lock_api::{RawMutex, RawRwLock};
use pagefault_machine::IoError;
use pagefault_machine::store::PageBytes;

/// An area, which stays while this does.
pub(crate) struct AreaHandle<M: RawMutex>(Arc<Area<M>>);

impl<M: RawMutex> AreaHandle<M> {
    /// The area's number.
    pub(crate) fn number(&self) -> u8 {
        self.0.number
    }

    /// Writes the content of a slot. A slot that the area lacks fails as a device does.
    ///
    /// Holds no lock during the I/O. After [`IoError::Full`] the caller releases the slot and asks
    /// [`Areas::reserve`] for one outside the area.
    pub(crate) fn write(&self, offset: u32, page: &PageBytes) -> Result<(), IoError> {
        let Self(area) = self;
        if offset >= area.slots.len() {
            return Err(IoError::Device);
        }
        area.count_io(&area.writes, area.device.write(offset, page))
    }

    /// Lets others refer to a reserved slot, whose content is written now.
    pub(crate) fn publish(&self, offset: u32) {
        self.0.slots.publish(offset);
    }
}

impl<M: RawMutex, W: RawRwLock> Areas<M, W> {
    /// An area to write to.
    pub(crate) fn handle(&self, area: u8) -> Option<AreaHandle<M>> {
        self.area(area).map(AreaHandle)
    }
}

/// A slot after a reference was dropped.
#[must_use = "a slot without references must be freed"]
pub(crate) struct Released<M: RawMutex> {
    /// The number of remaining references.
    pub(crate) left: u32,
    /// The slot, if none remains: see [`UnusedSlot::free`].
    pub(crate) unused: Option<UnusedSlot<M>>,
}

/// A slot without references whose content must still be discarded, where the caller may sleep.
/// Until then no page goes there.
#[must_use = "a slot without references must be freed"]
pub(crate) struct UnusedSlot<M: RawMutex> {
    pub(super) area: Arc<Area<M>>,
    pub(super) offset: u32,
}

impl<M: RawMutex> UnusedSlot<M> {
    /// Tells the device to discard the content; then the slot is free. The device may be slow: the caller
    /// holds only page locks.
    pub(crate) fn free(self) {
        self.area.device.discard(self.offset);
        self.area.slots.free(self.offset);
    }
}
