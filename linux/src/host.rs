//! The host kernel's memory calls, without libc.
//!
//! They never go through libc's symbols: this code also runs in programs whose `mmap` and `munmap`
//! are interposed.

use crate::reserve::{Reservation, ReserveError};
use core::arch::asm;
use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use core::ffi::c_void;
use core::ops::Range;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;
use rustix::mm::{Advice, MprotectFlags};

/// The host's page size; the same as ours on x86-64.
pub const PAGE: usize = 4096;

/// Begins to load the cache line at an address.
#[inline]
pub fn prefetch<T>(at: *const T) {
    // SAFETY: a prefetch reads nothing for the program, and ignores addresses that are not mapped.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// How many cache lines of a page are worth a prefetch: the processor sees the pattern, and loads the rest.
const LINES: usize = 4;

/// Begins to load a page that will be read from its start.
#[inline]
pub fn prefetch_page(page: *const u8) {
    for line in 0..LINES {
        prefetch(page.wrapping_add(64 * line));
    }
}

/// Stores to a page, atomically and without a change.
///
/// In assembly, because a compiler turns an atomic operation that changes nothing into a load.
///
/// # Safety
/// The page is mapped and may be stored to.
#[inline]
pub unsafe fn store_nothing(page: u64) {
    // SAFETY: the caller vouches for the page; no thread sees a change.
    unsafe { asm!("lock or dword ptr [{}], 0", in(reg) page, options(nostack)) };
}

/// Distinguishes a process from a forked child that has not taken over its memory.
pub struct Process {
    /// A page that the host wipes in a child; its first word is 1 in the owning process.
    page: Reservation,
}

impl Process {
    /// This process.
    pub fn new() -> Result<Self, ReserveError> {
        let this = Self { page: Reservation::new(PAGE)? };
        let start = this.page.start().cast();
        // Linux before 4.14 cannot wipe; there a child is not recognised. SAFETY: the advice
        // concerns our own new page, and children only.
        let _ = unsafe { rustix::mm::madvise(start, PAGE, Advice::LinuxWipeOnFork) };
        this.succeed();
        Ok(this)
    }

    /// Whether this is the owning process.
    pub fn is_this(&self) -> bool {
        self.word().load(Relaxed) == 1
    }

    /// Makes this process, a forked child, the owner.
    pub fn succeed(&self) {
        self.word().store(1, Relaxed);
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped, aligned and zero or written through this word, as long as
        // `self` lives.
        unsafe { &*self.page.start().cast::<AtomicU32>() }
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
