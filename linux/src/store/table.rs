//! Tables in host mappings of their own: reserved whole, backed as they are touched.

use core::ops::Deref;
use core::ptr::NonNull;
use core::{mem, slice};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::fmt;

/// Address space for a table could not be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReserveError {
    /// How many bytes were asked for.
    pub bytes: usize,
    /// What the host answered.
    pub errno: Errno,
}

impl fmt::Display for ReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot reserve {} bytes of address space ({}); is `ulimit -v` set?",
            self.bytes, self.errno
        )
    }
}

impl std::error::Error for ReserveError {}

/// Types of which a value of all zero bytes is valid.
///
/// # Safety
/// All zero bytes must be a valid value.
pub(crate) unsafe trait Zeroed {}

// SAFETY: plain integers and atomics of integers, for which zero is a value.
unsafe impl Zeroed for u8 {}
// SAFETY: as above.
unsafe impl Zeroed for core::sync::atomic::AtomicU8 {}
// SAFETY: as above.
unsafe impl Zeroed for core::sync::atomic::AtomicU16 {}
// SAFETY: as above.
unsafe impl Zeroed for core::sync::atomic::AtomicU64 {}

/// A table of `len` elements that start as zero bytes and cost memory only once touched.
pub(crate) struct Table<T> {
    start: NonNull<T>,
    len: usize,
    bytes: usize,
}

// SAFETY: a Table owns its elements as a Box<[T]> does.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: as above; only shared references are given out.
unsafe impl<T: Sync> Sync for Table<T> {}

impl<T: Zeroed> Table<T> {
    /// Reserves a table of `len` elements.
    pub(crate) fn reserve(len: usize) -> Result<Self, ReserveError> {
        let too_long = ReserveError { bytes: usize::MAX, errno: Errno::NOMEM };
        let bytes = len.checked_mul(mem::size_of::<T>()).ok_or(too_long)?;
        let bytes = bytes.max(1).checked_next_multiple_of(4096).ok_or(too_long)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the host's choice aliases nothing.
        let start =
            unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), bytes, prot, flags) }
                .map_err(|errno| ReserveError { bytes, errno })?;
        let start = NonNull::new(start.cast::<T>()).ok_or(too_long)?;
        // A huge page would make one touched element cost two megabytes.
        // SAFETY: the range is the mapping just made; the advice changes no content.
        let _ =
            unsafe { rustix::mm::madvise(start.as_ptr().cast(), bytes, Advice::LinuxNoHugepage) };
        Ok(Self { start, len, bytes })
    }
}

impl<T> Table<T> {
    /// The address of the first element.
    pub(crate) fn base(&self) -> *mut T {
        self.start.as_ptr()
    }

    /// Gives the memory of a range of bytes back to the host; it reads as zero afterwards.
    ///
    /// Only whole pages inside the range are given back.
    ///
    /// # Safety
    /// Zero must be a valid value of every element in the range, and nobody else may use these
    /// elements meanwhile.
    pub(crate) unsafe fn release(&self, bytes: core::ops::Range<usize>) {
        let first = bytes.start.next_multiple_of(4096);
        let end = bytes.end.min(self.bytes) & !4095;
        if first < end {
            // SAFETY: the range lies inside this table's own mapping; the caller vouches for the
            // content. Failure would mean that the mapping is not ours, which it is.
            let _ = unsafe {
                let at = self.start.as_ptr().byte_add(first);
                rustix::mm::madvise(at.cast(), end - first, Advice::LinuxDontNeed)
            };
        }
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `len` elements, which began as zero bytes (Zeroed).
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody can refer to it after the drop. T needs no drop:
        // Zeroed is implemented for plain data and locks over plain data only.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
