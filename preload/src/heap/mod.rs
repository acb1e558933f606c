//! The program's `malloc`, over managed memory.
//!
//! Blocks below a threshold come from one of a few arenas, each a dlmalloc over a managed mapping of
//! its own; larger ones are managed mappings themselves. Before the manager has started, and inside
//! of it, blocks come from the private heap.

mod arena;
mod large;
pub mod window;

#[cfg(test)]
mod tests;

use crate::{guard, private};
use core::ptr;

pub use arena::reserve;
use large::THRESHOLD_LEAST;

/// The alignment of every block.
pub const ALIGN: usize = 16;

/// The largest block: C's sizes must fit a signed difference of pointers.
const LARGEST: usize = isize::MAX as usize;

/// Whether a request is served privately rather than from managed memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the private heap.
    Private,
    /// From the program's heap, unless the manager is not there or asks itself.
    Program,
}

impl Source {
    fn is_private(self) -> bool {
        self == Self::Private || guard::is_inside() || !arena::is_open()
    }
}

/// Allocates `size` bytes, aligned to `align`, a power of two; null where there is no room.
pub fn allocate(size: usize, align: usize, source: Source) -> *mut u8 {
    if size > LARGEST || align > LARGEST {
        return ptr::null_mut();
    }
    if source.is_private() {
        // SAFETY: the alignment is a power of two.
        return private::with(|heap| unsafe { heap.c_memalign(align, size) });
    }
    if size < large::threshold() && align < THRESHOLD_LEAST {
        let block = arena::allocate(size, align);
        if !block.is_null() {
            return block;
        }
    }
    large::allocate(size, align)
}

/// Allocates `size` bytes of zeros; null where there is no room.
pub fn allocate_zeroed(size: usize, source: Source) -> *mut u8 {
    let block = allocate(size, ALIGN, source);
    // A large mapping is new, so that it is zero already, and writing would take memory for it.
    if !block.is_null() && (private::holds(block) || arena::holds(block)) {
        // SAFETY: the block has at least `size` bytes.
        unsafe { block.write_bytes(0, size) };
    }
    block
}

/// Frees a block.
///
/// # Safety
/// `block` was allocated here and has not been freed; or it is another allocator's, whose `free`
/// libc knows.
pub unsafe fn free(block: *mut u8) {
    if block.is_null() {
        return;
    }
    // SAFETY: the block is of the heap that holds its address, by the caller's word.
    unsafe {
        if private::holds(block) {
            private::with(|heap| heap.c_free(block));
        } else if arena::holds(block) {
            arena::free(block);
        } else if !large::free(block) {
            foreign_free(block);
        }
    }
}

/// Changes the size of a block, moving it if need be; null, and the block as it was, where there is
/// no room.
///
/// # Safety
/// As for [`free`].
pub unsafe fn reallocate(block: *mut u8, size: usize, source: Source) -> *mut u8 {
    if size > LARGEST {
        return ptr::null_mut();
    }
    // SAFETY: the block is of the heap that holds its address, by the caller's word.
    let resized = unsafe {
        if private::holds(block) && source.is_private() {
            return private::with(|heap| heap.c_realloc(block, size));
        } else if arena::holds(block) && size < large::threshold() {
            arena::reallocate(block, size)
        } else {
            large::reallocate(block, size)
        }
    };
    if !resized.is_null() {
        return resized;
    }
    // SAFETY: as above; the block stays until its content was copied.
    unsafe {
        let old = usable_size(block);
        let new = allocate(size, ALIGN, source);
        if !new.is_null() {
            ptr::copy_nonoverlapping(block, new, old.min(size));
            free(block);
        }
        new
    }
}

/// How many bytes of a block may be used.
///
/// # Safety
/// As for [`free`].
pub unsafe fn usable_size(block: *const u8) -> usize {
    if block.is_null() {
        return 0;
    }
    if private::holds(block) || arena::holds(block) {
        // SAFETY: the block is one of dlmalloc's.
        return unsafe { chunk_size(block) };
    }
    large::usable_size(block).unwrap_or(0)
}

/// How many bytes a block of dlmalloc's has.
///
/// In front of a block lies the word that every dlmalloc keeps there: the size of the chunk, its
/// lowest three bits flags, one word of it used for this very purpose.
///
/// # Safety
/// `block` is a live block of a dlmalloc.
unsafe fn chunk_size(block: *const u8) -> usize {
    // SAFETY: the word in front of a live block is its chunk's head.
    let head = unsafe { block.cast::<usize>().sub(1).read() };
    (head & !7) - size_of::<usize>()
}

/// Gives memory that no block uses back; returns whether there was any.
pub fn trim() -> bool {
    arena::trim()
}

/// Takes every lock of the heap, for a fork.
pub fn hold() {
    arena::locks().for_each(window::Lock::hold);
    large::lock().hold();
}

/// Ends [`hold`].
///
/// # Safety
/// The calling thread, or the one that it is a copy of, called [`hold`].
pub unsafe fn let_go() {
    // SAFETY: passed on to the caller.
    unsafe {
        large::lock().let_go();
        arena::locks().for_each(|lock| lock.let_go());
    }
}

/// Frees a block that is not ours: one that libc's own allocator made.
///
/// # Safety
/// The block is libc's.
#[cfg(not(test))]
unsafe fn foreign_free(block: *mut u8) {
    unsafe extern "C" {
        fn __libc_free(block: *mut core::ffi::c_void);
    }
    // SAFETY: passed on to the caller.
    unsafe { __libc_free(block.cast()) };
}

#[cfg(test)]
unsafe fn foreign_free(block: *mut u8) {
    panic!("{block:p} is no block");
}
