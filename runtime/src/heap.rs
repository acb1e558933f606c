//! The runtime's own heap, which is never managed.

use crate::lock::Mutex;
use crate::sys;
use core::alloc::{GlobalAlloc, Layout};
use dlmalloc::{Allocator, Dlmalloc};
use linux_raw_sys::general as nr;
use lock_api::RawMutex;

/// The heap as Rust's global allocator.
pub struct Heap;

static HEAP: Mutex<Dlmalloc<Host>> = Mutex::new(Dlmalloc::new_with_allocator(Host));

/// The runtime's heap grows by this much: each piece is a mapping of the host's.
const STEP: usize = 1 << 20;

/// Where the heap gets its memory from.
struct Host;

// SAFETY: each piece is a mapping of its own, zeroed, and stays until it is freed.
unsafe impl Allocator for Host {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let size = size.next_multiple_of(STEP);
        match sys::map_private(size, nr::PROT_READ | nr::PROT_WRITE) {
            Ok(start) => {
                // SAFETY: nothing of the program's is there.
                let _ = unsafe { sys::advise(start, size, nr::MADV_DONTDUMP) };
                (start as *mut u8, size, 0)
            }
            Err(_) => (core::ptr::null_mut(), 0, 0),
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        core::ptr::null_mut()
    }

    fn free_part(&self, start: *mut u8, old: usize, new: usize) -> bool {
        // SAFETY: the heap has given up the part.
        unsafe { sys::unmap(start as usize + new, old - new) }.is_ok()
    }

    fn free(&self, start: *mut u8, size: usize) -> bool {
        // SAFETY: the heap has given up the piece.
        unsafe { sys::unmap(start as usize, size) }.is_ok()
    }

    fn can_release_part(&self, _: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}

/// Takes the heap's lock for a fork.
pub(crate) fn hold() {
    // SAFETY: unlocked by `let_go`, on either side of the fork.
    unsafe { HEAP.raw() }.lock();
}

/// Ends [`hold`].
pub(crate) fn let_go() {
    // SAFETY: held by this thread, or by the one that it is a copy of.
    unsafe { HEAP.raw().unlock() };
}

// SAFETY: dlmalloc keeps the contract, and the lock makes it one caller's at a time.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on to the caller.
        unsafe { HEAP.lock().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on to the caller.
        unsafe { HEAP.lock().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { HEAP.lock().free(pointer, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: passed on to the caller.
        unsafe { HEAP.lock().realloc(pointer, layout.size(), layout.align(), size) }
    }
}
