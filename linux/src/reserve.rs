//! The manager's own memory, in mappings made by raw system calls: it reserves addresses, and the
//! host gives a page when it is touched.
//!
//! Nothing here uses an allocator, so fault handlers may use it. Tables sized by a limit cost only
//! addresses until they are used.

use crate::host::PAGE;
use crate::{apart, room};
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{AcqRel, Acquire};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Address space could not be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot reserve {bytes} bytes of address space ({errno}); is `ulimit -v` set?")]
pub struct ReserveError {
    /// The requested bytes.
    pub bytes: usize,
    /// The host's error.
    pub errno: Errno,
}

impl ReserveError {
    const TOO_LONG: Self = Self { bytes: usize::MAX, errno: Errno::NOMEM };
}

/// A reserved range of addresses, private and zero, whose pages cost nothing until they are
/// touched; unmapped on drop.
pub struct Reservation {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a reservation is plain memory owned by this value; whoever hands out references into it
// answers for their synchronisation.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `len` bytes, rounded up to pages.
    pub fn new(len: usize) -> Result<Self, ReserveError> {
        let bytes = len.max(1).checked_next_multiple_of(PAGE).ok_or(ReserveError::TOO_LONG)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let map = |address: Option<u64>| {
            let fixed = address.map_or(MapFlags::empty(), |_| MapFlags::FIXED_NOREPLACE);
            let at = ptr::without_provenance_mut(address.unwrap_or(0) as usize);
            // SAFETY: a fresh mapping that replaces nothing disturbs nothing.
            unsafe { rustix::mm::mmap_anonymous(at, bytes, protection, flags | fixed) }
        };
        let start = apart::map(bytes as u64, map).map_err(|errno| ReserveError { bytes, errno })?;
        let start = NonNull::new(start.cast()).ok_or(ReserveError::TOO_LONG)?;
        let reservation = Self { start, len: bytes };
        // A huge page would make untouched neighbours resident. Hosts without huge pages refuse the
        // advice, which does no harm.
        reservation.advise(Advice::LinuxNoHugepage);
        Ok(reservation)
    }

    /// Reserves memory of the manager's, which a core dump of the program omits.
    pub fn own(len: usize) -> Result<Self, ReserveError> {
        let bytes = len.max(1).checked_next_multiple_of(PAGE).ok_or(ReserveError::TOO_LONG)?;
        match room::take(bytes, PAGE) {
            Some(start) => Ok(Self { start, len: bytes }),
            None => Self::undumped(bytes),
        }
    }

    /// Reserves memory with a mapping of its own, which a core dump omits.
    pub fn undumped(len: usize) -> Result<Self, ReserveError> {
        let reservation = Self::new(len)?;
        reservation.advise(Advice::LinuxDontDump);
        Ok(reservation)
    }

    /// The first byte.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The first address as a number.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Keeps forked processes from inheriting the range.
    pub fn withhold_from_children(&self) -> Result<(), Errno> {
        let start = self.start.as_ptr().cast();
        // SAFETY: the range is our mapping; the advice does not change its content.
        unsafe { rustix::mm::madvise(start, self.len, Advice::LinuxDontFork) }
    }

    /// Gives advice that does not change the content; the host may refuse it.
    fn advise(&self, advice: Advice) {
        // SAFETY: the range is our mapping, and the advice harmless.
        let _ = unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.len, advice) };
    }

    /// Leaves the memory mapped forever.
    pub fn leak(self) -> *mut u8 {
        let start = self.start();
        core::mem::forget(self);
        start
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and nothing outlives its owner.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Types of which a value of all zero bytes is valid.
///
/// # Safety
/// All zero bytes must be a valid value, and the type must not need dropping.
pub unsafe trait Zeroed {}

// SAFETY: plain integers and atomics of integers, for which zero is a value.
unsafe impl Zeroed for u8 {}
// SAFETY: as above.
unsafe impl Zeroed for AtomicU8 {}
// SAFETY: as above.
unsafe impl Zeroed for AtomicU16 {}
// SAFETY: as above.
unsafe impl Zeroed for AtomicU32 {}
// SAFETY: as above.
unsafe impl Zeroed for AtomicU64 {}
// SAFETY: zero is the null pointer.
unsafe impl<T> Zeroed for AtomicPtr<T> {}

/// A table of elements that start as zero bytes and cost memory only once touched.
pub struct Table<T> {
    memory: Reservation,
    len: usize,
    element: PhantomData<T>,
}

// SAFETY: a Table owns its elements as a Box<[T]> does.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: as above; only shared references are given out.
unsafe impl<T: Sync> Sync for Table<T> {}

impl<T: Zeroed> Table<T> {
    /// Reserves a table of `len` elements.
    pub fn new(len: usize) -> Result<Self, ReserveError> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(ReserveError::TOO_LONG)?;
        Ok(Self { memory: Reservation::own(bytes)?, len, element: PhantomData })
    }
}

impl<T> Table<T> {
    /// The address of the first element.
    pub fn base(&self) -> *mut T {
        self.memory.start().cast()
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping is page-aligned, holds `len` elements, which began as zero bytes
        // (Zeroed), and lives as long as `self`.
        unsafe { core::slice::from_raw_parts(self.base(), self.len) }
    }
}

/// An array of chunks, each reserved at its first use and unmapped with the whole.
///
/// A look-up is two loads and takes no lock.
pub struct Sparse<T> {
    chunks: Table<AtomicPtr<T>>,
}

impl<T: Zeroed> Sparse<T> {
    /// An array of up to `len` chunks, none of them reserved yet.
    pub fn new(len: usize) -> Result<Self, ReserveError> {
        Ok(Self { chunks: Table::new(len)? })
    }

    /// A chunk, if it is reserved.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: null, or a chunk of zero bytes (Zeroed) that lives as long as `self` and is only
        // shared.
        unsafe { self.chunks.get(index)?.load(Acquire).as_ref() }
    }

    /// A chunk, reserved if necessary.
    pub fn get_or_reserve(&self, index: usize) -> Result<&T, ReserveError> {
        match self.get(index) {
            Some(chunk) => Ok(chunk),
            None => self.reserve(index),
        }
    }

    #[cold]
    fn reserve(&self, index: usize) -> Result<&T, ReserveError> {
        let slot = self.chunks.get(index).ok_or(ReserveError::TOO_LONG)?;
        let new = Reservation::own(size_of::<T>())?;
        let chunk =
            match slot.compare_exchange(ptr::null_mut(), new.start().cast(), AcqRel, Acquire) {
                Ok(_) => new.leak().cast(),
                // Another thread was faster: this thread's reservation goes.
                Err(theirs) => theirs,
            };
        // SAFETY: as in `get`; not null.
        Ok(unsafe { &*chunk })
    }
}

impl<T> Drop for Sparse<T> {
    fn drop(&mut self) {
        for slot in self.chunks.iter() {
            if let Some(start) = NonNull::new(slot.load(Acquire)) {
                let len = size_of::<T>().max(1).next_multiple_of(PAGE);
                // The memory goes with the value made of it, which was leaked by `reserve`.
                drop(Reservation { start: start.cast(), len });
            }
        }
    }
}

#[cfg(test)]
mod tests;
