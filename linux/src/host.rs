//! The host kernel's memory calls, made raw.
//!
//! These never go through libc's symbols: this code also runs in a program whose `mmap` and
//! `munmap` are interposed.

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use std::ffi::c_void;
use std::ops::{Deref, Range};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// The host's page size; the same as ours on x86-64.
pub const PAGE: usize = 4096;

/// A range of addresses reserved from the host, private and zero, whose pages cost nothing until
/// they are touched; given back on drop.
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
    pub fn new(len: usize) -> Result<Self, Errno> {
        let len = len.max(1).next_multiple_of(PAGE);
        // SAFETY: a fresh mapping at an address of the host's choice disturbs nothing.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        // A huge page would make untouched neighbours resident. Hosts without huge pages refuse
        // the advice, which is as good.
        // SAFETY: the range is the mapping just made; the advice does not change its content.
        let _ = unsafe { rustix::mm::madvise(start, len, Advice::LinuxNoHugepage) };
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, len })
    }

    /// The first byte.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The first address as a number.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Keeps the range from being inherited by a forked process.
    pub fn withhold_from_children(&self) -> Result<(), Errno> {
        let start = self.start.as_ptr().cast();
        // SAFETY: the range is our mapping; the advice does not change its content.
        unsafe { rustix::mm::madvise(start, self.len, Advice::LinuxDontFork) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and nothing outlives its owner.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Tells a process from a forked child of it that has not been made its successor.
pub struct Process {
    /// A page that the host wipes in a child; its first word is 1 in the process it is for.
    page: Reservation,
}

impl Process {
    /// This process.
    pub fn new() -> Result<Self, Errno> {
        let this = Self { page: Reservation::new(PAGE)? };
        let start = this.page.start.as_ptr().cast();
        // Linux before 4.14 cannot wipe; there a child is not told apart.
        // SAFETY: the advice concerns our own new page, and children only.
        let _ = unsafe { rustix::mm::madvise(start, PAGE, Advice::LinuxWipeOnFork) };
        this.succeed();
        Ok(this)
    }

    /// Whether this is the process.
    pub fn is_this(&self) -> bool {
        self.word().load(Relaxed) == 1
    }

    /// Makes this process, a forked child, the one.
    pub fn succeed(&self) {
        self.word().store(1, Relaxed);
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped, aligned and zero or written through this word, as long as
        // `self` lives.
        unsafe { &*self.page.start().cast::<AtomicU32>() }
    }
}

/// An element type whose all-zero bytes are a valid value.
///
/// # Safety
/// All-zero memory must be a valid value of the type, and the type must not need dropping.
pub unsafe trait Zeroed: Sync {}

// SAFETY: atomics of plain integers are valid when zero.
unsafe impl Zeroed for std::sync::atomic::AtomicU64 {}
// SAFETY: as above.
unsafe impl Zeroed for std::sync::atomic::AtomicU32 {}
// SAFETY: a futex mutex is a transparent word whose zero state is "free".
unsafe impl Zeroed for crate::lock::FutexMutex {}

/// A table in reserved memory, all elements zero at first.
pub struct Table<T: Zeroed> {
    memory: Reservation,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Zeroed> Table<T> {
    /// A table of `len` elements.
    pub fn new(len: usize) -> Result<Self, Errno> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(Errno::NOMEM)?;
        Ok(Self { memory: Reservation::new(bytes)?, len, element: std::marker::PhantomData })
    }
}

impl<T: Zeroed> Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the reservation is page-aligned, holds `len` elements, lives as long as `self`,
        // and its bytes are zero or were written through `&T`; `Zeroed` makes zero a value.
        unsafe { std::slice::from_raw_parts(self.memory.start().cast(), self.len) }
    }
}

/// Makes the pages of `range` (host addresses) empty and gives their memory back.
///
/// # Safety
/// The range must be page-aligned memory of this manager, and losing its content must be intended:
/// no reference into it may be in use.
pub unsafe fn discard(range: Range<u64>) -> Result<(), Errno> {
    let (start, len) = (range.start as *mut c_void, (range.end - range.start) as usize);
    let mut advice = Advice::LinuxDontNeed;
    loop {
        // SAFETY: the caller vouches for the range.
        match unsafe { rustix::mm::madvise(start, len, advice) } {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The program has locked everything (`mlockall`).
            Err(Errno::INVAL) if advice == Advice::LinuxDontNeed => {
                advice = Advice::LinuxDontneedLocked;
            }
            result => return result,
        }
    }
}

/// Sets the host protection of a range.
///
/// # Safety
/// The range must be page-aligned memory of this manager that no reference relies on.
pub unsafe fn protect(range: Range<u64>, flags: MprotectFlags) -> Result<(), Errno> {
    let (start, len) = (range.start as *mut c_void, (range.end - range.start) as usize);
    // SAFETY: the caller vouches for the range.
    unsafe { rustix::mm::mprotect(start, len, flags) }
}
