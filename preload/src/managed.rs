//! Which addresses are managed, and every change to them.
//!
//! All functions enter the manager for the time of their call. A range is noted before it can be
//! used and forgotten before the host can give its addresses to another, so that concurrent callers
//! never see each other's addresses.

use crate::guard;
use crate::heap::window::Lock;
use crate::ranges::Ranges;
use crate::sys::{self, Errno, Mmap};
use core::ffi::c_int;
use core::ops::Range;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Release};

static RANGES: Lock<Ranges> = Lock::new(Ranges::new());

/// Whether the manager has started.
static OPEN: AtomicBool = AtomicBool::new(false);

/// Says that the manager has started.
pub fn open() {
    OPEN.store(true, Release);
}

/// Whether mappings of the calling thread are to be managed.
pub fn is_open() -> bool {
    OPEN.load(Acquire) && !guard::is_inside()
}

/// The lock of the managed ranges, for a fork.
pub fn lock() -> &'static Lock<Ranges> {
    &RANGES
}

/// Whether all of a range is managed.
pub fn covers(range: Range<usize>) -> bool {
    let _inside = guard::enter();
    RANGES.lock().covers(range)
}

/// The managed parts of a range.
pub fn parts(range: Range<usize>) -> Vec<Range<usize>> {
    let _inside = guard::enter();
    RANGES.lock().within(range).collect()
}

/// Makes a managed mapping.
///
/// # Safety
/// As for [`sys::mmap`].
pub unsafe fn map(request: &Mmap) -> Result<usize, Errno> {
    let _inside = guard::enter();
    // SAFETY: passed on to the caller.
    let start = unsafe { sys::mmap(request)? };
    RANGES.lock().insert(start..start + page_up(request.len));
    Ok(start)
}

/// Ends all mappings in a range, managed or not.
///
/// # Safety
/// As for [`sys::munmap`].
pub unsafe fn unmap(start: usize, len: usize) -> Result<(), Errno> {
    let _inside = guard::enter();
    forget(start..start + page_up(len));
    // SAFETY: passed on to the caller.
    unsafe { sys::munmap(start, len) }
}

/// Stops managing a range that is about to be replaced.
pub fn forget(range: Range<usize>) {
    let _inside = guard::enter();
    RANGES.lock().remove(range);
}

/// Changes the protection of a range, managed or not.
///
/// # Safety
/// As for [`sys::mprotect`].
pub unsafe fn protect(start: usize, len: usize, prot: c_int) -> Result<(), Errno> {
    let _inside = guard::enter();
    // SAFETY: passed on to the caller.
    unsafe { sys::mprotect(start, len, prot) }
}

/// Gives advice about a managed range.
///
/// # Safety
/// As for [`sys::madvise`].
pub unsafe fn advise(start: usize, len: usize, advice: c_int) -> Result<(), Errno> {
    let _inside = guard::enter();
    // SAFETY: passed on to the caller.
    unsafe { sys::madvise(start, len, advice) }
}

/// Changes the size or the place of a managed mapping; both lengths are whole pages.
///
/// # Safety
/// As for [`sys::mremap`].
pub unsafe fn remap(
    old: usize,
    old_len: usize,
    new_len: usize,
    flags: c_int,
    new: usize,
) -> Result<usize, Errno> {
    let _inside = guard::enter();
    RANGES.lock().remove(old..old + old_len);
    // SAFETY: passed on to the caller.
    let moved = unsafe { sys::mremap(old, old_len, new_len, flags, new) };
    let mut ranges = RANGES.lock();
    if moved.is_err() || flags & libc::MREMAP_DONTUNMAP != 0 {
        ranges.insert(old..old + old_len);
    }
    if let Ok(start) = moved {
        ranges.insert(start..start + new_len);
    }
    moved
}

/// A length rounded up to whole pages.
pub const fn page_up(len: usize) -> usize {
    len.saturating_add(4095) & !4095
}
