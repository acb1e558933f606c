//! `malloc` and its family.
//!
//! The entry points that allocate pass on the address of their caller. Some blocks that the dynamic
//! linker and libc keep for themselves are touched in a forked child before our handler has run
//! there: tables of thread-local storage, streams, the state of the name service. So what these two
//! allocate for themselves is never managed.

use super::set_errno;
use crate::heap::{self, ALIGN, Source};
use crate::module::{LIBC, LINKER};
use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::ops::RangeInclusive;
use core::ptr::null_mut;

/// What libc allocates for itself, in bytes: a stream is 256 and more, a table of thread-specific
/// data 512. Smaller blocks are nodes of the program's trees and the like, larger ones buffers.
const OWN: RangeInclusive<usize> = 128..=1024;

/// Where an allocation of `size` bytes for `caller` comes from.
fn source(size: usize, caller: usize) -> Source {
    if LINKER.contains(caller) || (OWN.contains(&size) && LIBC.contains(caller)) {
        Source::Private
    } else {
        Source::Program
    }
}

/// Passes a block on, with `errno` set if there is none.
pub(super) fn checked(block: *mut u8) -> *mut c_void {
    if block.is_null() {
        set_errno(libc::ENOMEM);
    }
    block.cast()
}

/// `malloc(3)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    // The return address becomes a second argument.
    naked_asm!("mov rsi, qword ptr [rsp]", "jmp {0}", sym malloc_for)
}

unsafe extern "C" fn malloc_for(size: usize, caller: usize) -> *mut c_void {
    checked(heap::allocate(size, ALIGN, source(size, caller)))
}

/// `calloc(3)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    naked_asm!("mov rdx, qword ptr [rsp]", "jmp {0}", sym calloc_for)
}

unsafe extern "C" fn calloc_for(count: usize, size: usize, caller: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else { return checked(null_mut()) };
    checked(heap::allocate_zeroed(bytes, source(bytes, caller)))
}

/// `realloc(3)`. A size of zero frees the block, as glibc does.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    naked_asm!("mov rdx, qword ptr [rsp]", "jmp {0}", sym realloc_for)
}

unsafe extern "C" fn realloc_for(block: *mut c_void, size: usize, caller: usize) -> *mut c_void {
    if block.is_null() {
        return checked(heap::allocate(size, ALIGN, source(size, caller)));
    }
    if size == 0 {
        // SAFETY: the caller's word, as for `free`.
        unsafe { heap::free(block.cast()) };
        return null_mut();
    }
    // SAFETY: as above.
    checked(unsafe { heap::reallocate(block.cast(), size, source(size, caller)) })
}

/// `reallocarray(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else { return checked(null_mut()) };
    // SAFETY: passed on to the caller.
    unsafe { realloc_for(block, bytes, 0) }
}

/// `free(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: passed on to the caller.
    unsafe { heap::free(block.cast()) };
}

/// `posix_memalign(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let block = heap::allocate(size, align.max(ALIGN), Source::Program);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller gives a place for the pointer.
    unsafe { out.write(block.cast()) };
    0
}

/// `memalign(3)`. An alignment that is no power of two is raised to one, as glibc does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    let Some(align) = align.max(ALIGN).checked_next_power_of_two() else {
        set_errno(libc::EINVAL);
        return null_mut();
    };
    checked(heap::allocate(size, align, Source::Program))
}

/// `aligned_alloc(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    // SAFETY: passed on to the caller.
    unsafe { memalign(align, size) }
}

/// `valloc(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn valloc(size: usize) -> *mut c_void {
    checked(heap::allocate(size, 4096, Source::Program))
}

/// `pvalloc(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let Some(size) = size.checked_next_multiple_of(4096) else { return checked(null_mut()) };
    checked(heap::allocate(size, 4096, Source::Program))
}

/// `malloc_usable_size(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *const c_void) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { heap::usable_size(block.cast()) }
}

/// `malloc_trim(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(heap::trim())
}
