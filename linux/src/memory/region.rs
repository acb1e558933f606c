//! Regions: bytes of a memory.

use super::Attachment;
use crate::machine::LinuxMachine;
use crate::runtime::Quiet;
use pagefault::error::{AdviseError, LockError, ProtectError, RemapError, SyncError, UserError};
use pagefault::machine::{Access, PAGE_SIZE, Protection, VirtAddr};
use pagefault::{Advice, Move, Pin, RemapRequest, SyncMode};
use std::fmt;
use std::ops::{Bound, Deref, DerefMut, Range, RangeBounds};
use std::sync::Arc;

/// Bytes of a [`Memory`](super::Memory), unmapped on drop.
///
/// # System calls
/// Under [inline delivery](crate::Delivery::Inline), the default, a system call on a part of a
/// region fails with `EFAULT` if a page is not resident, or if the call stores to a page that is
/// read-only on the host: the kernel does not wait for the memory manager. So [`pin`](Self::pin)
/// the bytes that a call uses, and pass it the pinned bytes:
/// ```
/// # use pagefault_linux::Memory;
/// # use std::io::Read;
/// # if pagefault_linux::Probe::new().is_err() { return Ok(()) }
/// # let memory = Memory::with_limit(8 << 20)?;
/// let mut region = memory.map(1 << 20)?;
/// let mut file = std::fs::File::open("/proc/self/exe")?;
/// assert!(file.read(&mut region[..4096]).is_err(), "no page of the region is there");
/// assert!(file.read(&mut region.pin(..4096)?)? > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// Under [thread delivery](crate::Delivery::Threads) there is no such rule.
///
/// # Ranges
/// Its methods take ranges of bytes within it, rounded outward to whole pages. Like a slice's
/// index, they panic if a range leaves it.
pub struct Region {
    space: Arc<Attachment>,
    at: VirtAddr,
    start: *mut u8,
    bytes: usize,
    pub(super) birth: u64,
}

// SAFETY: a region owns its bytes as a boxed slice does; whatever thread touches them, the memory
// manager answers.
unsafe impl Send for Region {}
// SAFETY: through a shared reference the bytes can only be read.
unsafe impl Sync for Region {}

impl Region {
    pub(super) fn new(space: &Arc<Attachment>, at: VirtAddr, bytes: usize) -> Self {
        // The memory manager maps only addresses that the space covers.
        let start = space.page_table().host_address(at).unwrap_or(std::ptr::null_mut());
        Self { space: space.clone(), at, start, bytes, birth: space.birth() }
    }

    /// Advises how a part will be used (`madvise(2)`). [`Advice::DontNeed`] makes it zeros, or the file's
    /// content again. [`Advice::Free`] makes it zeros at once: bytes that turned into zeros later would
    /// change under shared references.
    ///
    /// [`AdviseError::Unsuitable`]: the advice does not fit the region, or a part is locked.
    pub fn advise(
        &mut self,
        range: impl RangeBounds<usize>,
        advice: Advice,
    ) -> Result<(), AdviseError> {
        let range = self.pages(range);
        let _quiet = Quiet::new();
        let advise =
            |advice| self.space.space.madvise(range.start, range.end - range.start, advice);
        advise(advice)?;
        // Nobody has a reference before this returns.
        if advice == Advice::Free { advise(Advice::DontNeed) } else { Ok(()) }
    }

    /// Sets what accesses to a part are allowed (`mprotect(2)`): any other is a segmentation violation.
    ///
    /// Fails where the mapping of a file may not be stored to, or the parts would be too many.
    pub fn protect(
        &mut self,
        range: impl RangeBounds<usize>,
        protection: Protection,
    ) -> Result<(), ProtectError> {
        let range = self.pages(range);
        let _quiet = Quiet::new();
        self.space.space.mprotect(range.start, range.end - range.start, protection)
    }

    /// Brings a part in and keeps it resident until it is unlocked (`mlock(2)`). Locks do not count: one
    /// [`unlock`](Self::unlock) undoes several.
    ///
    /// [`LockError::Unmapped`] or [`LockError::Again`]: a page cannot be read, or the limit has no room for it.
    /// The pages before it are resident by then, and the part stays locked: unlock it.
    pub fn lock(&self, range: impl RangeBounds<usize>) -> Result<(), LockError> {
        let range = self.pages(range);
        let _quiet = Quiet::new();
        self.space.space.mlock(range.start, range.end - range.start)
    }

    /// Lets a part be evicted again (`munlock(2)`), whether it was locked or not.
    pub fn unlock(&self, range: impl RangeBounds<usize>) -> Result<(), LockError> {
        let range = self.pages(range);
        let _quiet = Quiet::new();
        self.space.space.munlock(range.start, range.end - range.start)
    }

    /// Brings a part in for accesses of a kind, so that none of them faults until it is evicted
    /// (`MADV_POPULATE_READ`, `MADV_POPULATE_WRITE`).
    ///
    /// [`AdviseError::NotAccessible`]: a page cannot be read. [`AdviseError::Denied`]: the access is not allowed.
    /// [`AdviseError::OutOfMemory`]: the limit has no room.
    pub fn populate(
        &self,
        range: impl RangeBounds<usize>,
        access: Access,
    ) -> Result<(), AdviseError> {
        let range = self.pages(range);
        let advice = match access {
            Access::Write => Advice::PopulateWrite,
            Access::Read | Access::Execute => Advice::PopulateRead,
        };
        let _quiet = Quiet::new();
        self.space.space.madvise(range.start, range.end - range.start, advice)?;
        self.space.page_table().prefill(range, access).map_err(|_| AdviseError::NotAccessible)
    }

    /// Writes the stores to a shared region of a file back, and waits until they are durable (`msync(2)`). Does
    /// nothing to other regions; fails as the file's [`Backing`](pagefault::machine::Backing) does.
    pub fn sync(&self, range: impl RangeBounds<usize>) -> Result<(), SyncError> {
        let range = self.pages(range);
        let _quiet = Quiet::new();
        let (at, bytes) = (range.start, range.end - range.start);
        self.space.space.msync(at, bytes, SyncMode::Sync)
    }

    /// Keeps a part resident, and mapped on the host, as long as the result lives, so that a system
    /// call can use it.
    ///
    /// [`UserError::BadAddress`]: a page cannot be read or stored to. [`UserError::OutOfMemory`]: the limit has
    /// no room. [`UserError::TooManyPins`]: a page has 65,535 pins.
    pub fn pin(&mut self, range: impl RangeBounds<usize>) -> Result<Pinned<'_>, UserError> {
        let (bytes, pages) = (self.bytes_of(&range), self.pages(range));
        let _quiet = Quiet::new();
        let mut count = self.space.pins.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let pin = self.space.space.pin(pages.clone(), Access::Write)?;
        let table = self.space.page_table();
        table.prefill(pages, Access::Write).map_err(|_| UserError::BadAddress)?;
        *count += 1;
        drop(count);
        // SAFETY: within the region, which is borrowed as long as the result lives.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(self.start.add(bytes.start), bytes.len()) };
        Ok(Pinned { bytes, space: &self.space, pin: Some(pin) })
    }

    /// Makes the region longer or shorter, rounded up to whole pages. It may move; its content up to
    /// the shorter length stays, and new bytes are zeros or the file's.
    ///
    /// It cannot grow once [`protect`](Self::protect), [`lock`](Self::lock) or
    /// [`advise`](Self::advise) made its parts differ ([`RemapError::Unmapped`]). Earlier snapshots
    /// lose the region.
    /// ```
    /// # if pagefault_linux::Probe::new().is_err() { return Ok(()) }
    /// let memory = pagefault_linux::Memory::with_limit(1 << 20)?;
    /// let mut region = memory.map(4096)?;
    /// region[4095] = 7;
    /// region.resize(1 << 20)?;
    /// assert_eq!((region.len(), region[4095], region[4096]), (1 << 20, 7, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resize(&mut self, bytes: usize) -> Result<(), RemapError> {
        let bytes = bytes.checked_next_multiple_of(PAGE_SIZE as usize).ok_or(RemapError::NoGap)?;
        let _quiet = Quiet::new();
        let at = match bytes < self.bytes {
            // The remaining parts may differ.
            true if bytes > 0 => {
                let (end, cut) = (self.at + bytes as u64, (self.bytes - bytes) as u64);
                self.space.space.munmap(end, cut).map_err(|_| RemapError::OutOfMemory)?;
                self.at
            }
            _ => self.space.space.mremap(&RemapRequest {
                address: self.at,
                old_length: self.bytes as u64,
                new_length: bytes as u64,
                movement: Move::Anywhere,
            })?,
        };
        self.start = self.space.page_table().host_address(at).unwrap_or(self.start);
        (self.at, self.bytes, self.birth) = (at, bytes, self.space.birth());
        Ok(())
    }

    /// The region's place in the memory's address space.
    pub(super) fn addresses(&self) -> Range<VirtAddr> {
        self.at..self.at + self.bytes as u64
    }

    pub(super) fn is_of(&self, space: &Arc<Attachment>) -> bool {
        Arc::ptr_eq(&self.space, space)
    }

    fn bytes_of(&self, range: &impl RangeBounds<usize>) -> Range<usize> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.bytes,
        };
        assert!(start <= end && end <= self.bytes, "range {start}..{end} of {} bytes", self.bytes);
        start..end
    }

    /// The pages of which a range has a part.
    fn pages(&self, range: impl RangeBounds<usize>) -> Range<VirtAddr> {
        let range = self.bytes_of(&range);
        let start = (self.at + range.start as u64).page();
        if range.is_empty() {
            return start..start;
        }
        let end = (self.at + range.end as u64).value().next_multiple_of(PAGE_SIZE);
        start..VirtAddr(end)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.space.is_inherited() {
            return;
        }
        let _quiet = Quiet::new();
        // It can only fail for lack of memory to split a region; then the addresses stay taken
        // until the memory ends.
        let _ = self.space.space.munmap(self.at, self.bytes as u64);
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are mapped and initialised as long as the region lives, whoever brings
        // them in, and nobody stores to them while a shared reference to the region exists.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }
}

impl DerefMut for Region {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the exclusive reference to the region is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} bytes)", self.bytes)
    }
}

/// Bytes of a region that system calls may use.
#[must_use = "the bytes are pinned only as long as this lives"]
pub struct Pinned<'a> {
    bytes: &'a mut [u8],
    space: &'a Attachment,
    /// Given up at the end, before signals are taken again.
    pin: Option<Pin<LinuxMachine>>,
}

impl fmt::Debug for Pinned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({} bytes)", self.bytes.len())
    }
}

impl Deref for Pinned<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl DerefMut for Pinned<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        let _quiet = Quiet::new();
        self.pin = None;
        let mut count = self.space.pins.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *count -= 1;
    }
}
