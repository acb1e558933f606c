//! The manager's own heap, which is never managed.
//!
//! It serves Rust's allocations in this object, libc's while a thread is inside of the manager, the
//! dynamic linker's, and everybody's before the manager has started. Its addresses lie in one
//! window, by which `free` tells whose a pointer is.

use crate::heap::window::{Lock, Window};
use crate::sys;
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use dlmalloc::Dlmalloc;

/// How much address space is tried for, the most first; none of it is memory before it is used.
const SIZES: [usize; 4] = [64 << 30, 4 << 30, 512 << 20, 64 << 20];

/// The heap. Its window is reserved by the first allocation.
static HEAP: Lock<Dlmalloc<Window>> =
    Lock::new(Dlmalloc::new_with_allocator(Window::new(reserve, released)));

/// Where the window begins; 0 before it is reserved.
static START: AtomicUsize = AtomicUsize::new(0);
/// Where the window ends.
static END: AtomicUsize = AtomicUsize::new(0);

/// Whether a pointer is to memory of this heap.
pub fn holds(pointer: *const u8) -> bool {
    let start = START.load(Acquire);
    start != 0 && (start..END.load(Relaxed)).contains(&pointer.addr())
}

/// Runs `f` on the heap.
pub fn with<R>(f: impl FnOnce(&mut Dlmalloc<Window>) -> R) -> R {
    f(&mut HEAP.lock())
}

/// The heap's lock, for a fork.
pub fn lock() -> &'static Lock<Dlmalloc<Window>> {
    &HEAP
}

/// Reserves the window when it is first asked; called with the heap locked.
fn reserve(window: &Window) -> bool {
    if START.load(Relaxed) != 0 {
        return true;
    }
    for len in SIZES {
        if let Ok(start) = map_private(len) {
            window.open(start..start + len);
            END.store(start + len, Relaxed);
            START.store(start, Release);
            return true;
        }
    }
    false
}

/// Maps private memory that is none before it is used.
fn map_private(len: usize) -> Result<usize, sys::Errno> {
    // SAFETY: a new mapping at an address of the host's choice replaces nothing.
    unsafe { sys::mmap(&sys::Mmap::private(len)) }
}

/// Gives a part of the window that is no longer used back to the host.
fn released(range: core::ops::Range<usize>) -> bool {
    // SAFETY: dlmalloc has given up the range, which lies in the window.
    unsafe { sys::madvise(range.start, range.len(), libc::MADV_DONTNEED) }.is_ok()
}

/// Rust's allocations in this object.
#[cfg(not(test))]
#[global_allocator]
static GLOBAL: Private = Private;

/// The heap as Rust's global allocator.
pub struct Private;

/// Rust's blocks of this size and more are mappings of their own: tables that are mostly untouched
/// cost no memory then.
const LARGE: usize = 256 << 10;

fn is_large(layout: &Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= 4096
}

/// Maps a large block; null where the host refuses.
fn map(size: usize) -> *mut u8 {
    map_private(size).map_or(core::ptr::null_mut(), |start| start as *mut u8)
}

// SAFETY: dlmalloc gives out disjoint blocks of at least the size and alignment asked for, and all
// calls go through the heap's lock; a large block is a mapping, told by its layout, which stays.
unsafe impl GlobalAlloc for Private {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(&layout) {
            return map(layout.size());
        }
        // SAFETY: an alignment of a Layout is a power of two.
        with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(&layout) {
            return map(layout.size());
        }
        // SAFETY: an alignment of a Layout is a power of two.
        with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if is_large(&layout) {
            // SAFETY: the caller vouches that the block is ours and has this layout: a mapping.
            let _ = unsafe { sys::munmap(pointer.addr(), layout.size()) };
            return;
        }
        // SAFETY: the caller vouches that the block is this heap's and has this layout.
        with(|heap| unsafe { heap.free(pointer, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller vouches that the size does not overflow with this alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if !is_large(&layout) && !is_large(&new) {
            // SAFETY: as for dealloc.
            return with(|heap| unsafe {
                heap.realloc(pointer, layout.size(), layout.align(), size)
            });
        }
        // SAFETY: as above; the new block is another one, and both have the bytes copied.
        unsafe {
            let block = self.alloc(new);
            if !block.is_null() {
                block.copy_from_nonoverlapping(pointer, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
            block
        }
    }
}
