//! The traits that users implement: the content of files, swap devices, and memory of devices.
//!
//! All three traits are small and blocking: every method may sleep. The caller holds only page locks and
//! locks whose waiters sleep; never a cursor or another short lock, which debug builds check. Several
//! threads may call at once, but never two for the same page's content. An implementation must not touch
//! memory that the calling memory manager manages: handling that fault could need the very page that is
//! being filled.

use crate::{Frame, PAGE_SIZE, Part};
use alloc::sync::Arc;
use core::fmt;

/// A page of bytes, as a store sees it.
pub type PageBytes = [u8; PAGE_SIZE as usize];

/// Why an operation on a store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoError {
    /// The device failed (`EIO`).
    Device,
    /// There is no room left (`ENOSPC`).
    Full,
    /// The store cannot be written (`EROFS`), or does not offer the operation.
    Unsupported,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "the device failed",
            Self::Full => "there is no room left",
            Self::Unsupported => "the store does not offer this",
        })
    }
}

impl core::error::Error for IoError {}

/// A file, or anything that can be read by page: the part of Linux's `address_space_operations` and
/// `vm_operations_struct` that concerns content (spec D1).
pub trait Backing: Send + Sync {
    /// Fills `page` with page number `index` of the content (Linux: `readpage`).
    ///
    /// Bytes past the end of the content must be left zero; `page` comes zeroed. Called only for
    /// indexes below [`Backing::len`] rounded up to a page.
    fn read(&self, index: u64, page: &mut PageBytes) -> Result<(), IoError>;

    /// Writes the first `page.len()` bytes, at most a page, at page number `index` (`writepage`).
    ///
    /// The slice is shorter than a page for the last page of content that does not end on a page
    /// boundary, so that stores past the end never reach the file (spec D5).
    fn write(&self, index: u64, page: &[u8]) -> Result<(), IoError>;

    /// The length of the content in bytes.
    ///
    /// On an error, an access raises `SIGBUS`, a call fails, and dirty pages stay in memory.
    fn len(&self) -> Result<u64, IoError>;

    /// Whether the content is empty.
    fn is_empty(&self) -> Result<bool, IoError> {
        Ok(self.len()? == 0)
    }

    /// Sets the length; new bytes read as zero (`truncate`).
    fn set_len(&self, _bytes: u64) -> Result<(), IoError> {
        Err(IoError::Unsupported)
    }

    /// Makes what was written durable (`fsync`).
    fn sync(&self) -> Result<(), IoError> {
        Ok(())
    }

    /// Called before the first write to a clean page, through a shared mapping or by a call (`page_mkwrite`,
    /// spec D1): the place to reserve space. An error becomes `SIGBUS`, or the call's error.
    fn make_writable(&self, _index: u64) -> Result<(), IoError> {
        Ok(())
    }

    /// Called when a region over this content is duplicated: by a split, a fork or a move (`open`).
    fn opened(&self) {}

    /// Called when a region over this content goes away (`close`).
    fn closed(&self) {}
}

/// Why a device gives no frame for a page (spec B13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoPage {
    /// The device has no such page, or cannot show it: `SIGBUS`.
    Bus,
    /// The device has no memory left to show it.
    OutOfMemory,
    /// The device is busy: the instruction runs again, and faults again if need be.
    Again,
}

impl fmt::Display for NoPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bus => "the device has no such page",
            Self::OutOfMemory => "the device has no memory left",
            Self::Again => "the device is busy",
        })
    }
}

impl core::error::Error for NoPage {}

/// Memory of a device that programs can map: registers, a frame buffer (Linux: a driver whose `mmap` makes
/// a `VM_PFNMAP` region, spec B13).
///
/// Its frames are no pages of the memory manager: they are not counted, cached, evicted or freed. Their
/// numbers lie at or above [`Machine::most_frames`](crate::Machine::most_frames); the machine copies from
/// them, reads and writes them, and maps them.
pub trait DeviceMemory: Send + Sync {
    /// The frame that shows page number `index` of the device (Linux: the `fault` handler that calls
    /// `vmf_insert_pfn`).
    ///
    /// Asked at each fault. A device that moves a page first takes the old frame out of every page table
    /// (`Mapping::revoke` of package `pagefault`).
    fn frame(&self, index: u64) -> Result<Frame, NoPage>;

    /// Called when a region over this memory is duplicated: by a split, a fork or a move (`open`).
    fn opened(&self) {}

    /// Called when a region over this memory goes away (`close`).
    fn closed(&self) {}
}

/// A swap device: keeps evicted pages by slot (Linux: the device of a swap area).
pub trait SwapDevice: Send + Sync {
    /// The number of slots; slots are numbered from 0, and slot 0 is never used.
    fn slots(&self) -> u32;

    /// Reads the page that was last written to `slot`.
    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError>;

    /// Stores `page` in `slot`, replacing what was there.
    ///
    /// [`IoError::Full`] means that the device has slots but no room for this page now, as compressed RAM when
    /// pages do not compress. The memory manager then tries the area of the next lower priority.
    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError>;

    /// Hints that `slot` will be read soon. A device in memory can begin to load what it needs. Does nothing by
    /// default, and never waits.
    fn prefetch(&self, _slot: u32, _part: Part) {}

    /// The content of `slot` is no longer needed (Linux: `swap_slot_free_notify`, discard). The slot is not
    /// written to before this returns.
    fn discard(&self, _slot: u32) {}
}

/// The embedder keeps the other handle, for its device's statistics.
impl<D: SwapDevice + ?Sized> SwapDevice for Arc<D> {
    fn slots(&self) -> u32 {
        (**self).slots()
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        (**self).read(slot, page)
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        (**self).write(slot, page)
    }

    fn prefetch(&self, slot: u32, part: Part) {
        (**self).prefetch(slot, part);
    }

    fn discard(&self, slot: u32) {
        (**self).discard(slot);
    }
}
