//! Copies of strings.
//!
//! Blocks that libc allocates for itself are private (see [`super::allocation`]); these it allocates
//! for the program.

use super::allocation::checked;
use crate::heap::{self, ALIGN, Source};
use core::ffi::{c_char, c_void};

/// `strdup(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strdup(text: *const c_char) -> *mut c_void {
    // SAFETY: the caller gives a string.
    unsafe { copy(text, libc::strlen(text)) }
}

/// `strndup(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strndup(text: *const c_char, most: usize) -> *mut c_void {
    // SAFETY: the caller gives a string, or at least `most` bytes.
    unsafe { copy(text, libc::strnlen(text, most)) }
}

/// `__strdup`, an older name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __strdup(text: *const c_char) -> *mut c_void {
    // SAFETY: passed on to the caller.
    unsafe { strdup(text) }
}

/// `__strndup`, an older name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __strndup(text: *const c_char, most: usize) -> *mut c_void {
    // SAFETY: passed on to the caller.
    unsafe { strndup(text, most) }
}

unsafe fn copy(text: *const c_char, len: usize) -> *mut c_void {
    let block = heap::allocate(len + 1, ALIGN, Source::Program);
    if !block.is_null() {
        // SAFETY: the caller has `len` bytes to read, and the block is new and one byte longer.
        unsafe {
            block.copy_from_nonoverlapping(text.cast(), len);
            block.add(len).write(0);
        }
    }
    checked(block)
}
