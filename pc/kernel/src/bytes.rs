//! The memory functions that compiled code calls, which otherwise come with the C library.
//!
//! Written with string instructions, so that the compiler cannot turn them into calls of
//! themselves.

use core::arch::asm;

/// Copies `n` bytes that do not overlap.
///
/// # Safety
/// As `memcpy` in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller passes `n` readable and `n` writable bytes; the tail of at most seven
    // bytes follows the whole words, and the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep movsq", "mov ecx, {tail:e}", "rep movsb", tail = in(reg) n & 7,
            inout("rcx") n >> 3 => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// Copies `n` bytes that may overlap.
///
/// # Safety
/// As `memmove` in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= n {
        // SAFETY: the target does not begin inside the source, so copying upwards reads every byte
        // before it is overwritten; word by word too, since a word is read before it is written
        // and the target lies below the source or clear of it.
        return unsafe { memcpy(to, from, n) };
    }
    // SAFETY: both ranges are the caller's; downwards from the last byte, every byte is read before
    // it is overwritten. The direction flag is clear again afterwards. With `n` 0 the branch above
    // is taken, so that the last byte exists.
    unsafe {
        asm!("std", "rep movsb", "cld",
            inout("rcx") n => _, inout("rdi") to.add(n - 1) => _,
            inout("rsi") from.add(n - 1) => _, options(nostack));
    }
    to
}

/// Fills `n` bytes.
///
/// # Safety
/// As `memset` in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    let word = u64::from(byte as u8) * 0x0101_0101_0101_0101;
    // SAFETY: the caller passes `n` writable bytes.
    unsafe {
        asm!("rep stosq", "mov ecx, {tail:e}", "rep stosb", tail = in(reg) n & 7,
            inout("rcx") n >> 3 => _, inout("rdi") to => _, in("rax") word,
            options(nostack, preserves_flags));
    }
    to
}

/// Compares `n` bytes.
///
/// # Safety
/// As `memcmp` in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut at = 0;
    while at < n {
        // SAFETY: `at` is below `n`, and the caller passes `n` readable bytes twice.
        let (x, y) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        at += 1;
    }
    0
}

/// Compares `n` bytes for equality.
///
/// # Safety
/// As `bcmp` in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, n) }
}

/// The length of a string that ends with a zero byte.
///
/// # Safety
/// As `strlen` in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: the caller's string is readable up to its zero byte, where the loop ends.
    while unsafe { text.add(n).read_volatile() } != 0 {
        n += 1;
    }
    n
}

/// Named by the compiled `core`, which was built for unwinding; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    panic!("unwinding in a kernel that aborts")
}
