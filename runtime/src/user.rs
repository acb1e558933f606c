//! The runtime's own accesses to the program's memory (spec H1–H4): copies that may fault.
//!
//! A fault on managed memory is corrected, and the copy continues. Any other fault ends it with
//! `EFAULT`.

use crate::entry;
use crate::sys::{Errno, Result};
use core::mem::MaybeUninit;

/// The end of the program's addresses.
pub const END: u64 = 0x7fff_ffff_f000;

/// Reads a value of a type for which all bytes are valid.
pub fn read<T: Copy>(address: u64) -> Result<T> {
    let mut value = MaybeUninit::<T>::uninit();
    check(address, size_of::<T>())?;
    // SAFETY: the value's own side is valid; a bad address ends the copy.
    let left =
        unsafe { entry::copy(value.as_mut_ptr().cast(), address as *const u8, size_of::<T>()) };
    if left > 0 {
        return Err(Errno::EFAULT);
    }
    // SAFETY: every byte was copied, and the callers use structures of integers.
    Ok(unsafe { value.assume_init() })
}

/// Writes a value.
pub fn write<T: Copy>(address: u64, value: &T) -> Result<()> {
    check(address, size_of::<T>())?;
    // SAFETY: the value's own side is valid; a bad address ends the copy.
    let left = unsafe {
        entry::copy(address as *mut u8, core::ptr::from_ref(value).cast(), size_of::<T>())
    };
    if left > 0 { Err(Errno::EFAULT) } else { Ok(()) }
}

/// Atomically changes an aligned word from `old` to `new`. Returns the previous value.
pub fn exchange_if(address: u64, old: u32, new: u32) -> Result<u32> {
    check(address, size_of::<u32>())?;
    // SAFETY: below the end of the program's addresses, and a bad address ends it.
    unsafe { entry::exchange_if(address as *mut u32, old, new) }.ok_or(Errno::EFAULT)
}

/// The program's memory, for code that follows its pointers.
pub struct Memory;

impl pagefault_calls::Reader for Memory {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Option<()> {
        read_bytes(address, into).ok()
    }
}

/// Reads bytes.
pub fn read_bytes(address: u64, to: &mut [u8]) -> Result<()> {
    if read_some(address, to) == to.len() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Reads as many bytes as can be read, and returns how many.
pub fn read_some(address: u64, to: &mut [u8]) -> usize {
    let len = to.len().min(END.saturating_sub(address) as usize);
    // SAFETY: our own side is valid; a bad address ends the copy.
    len - unsafe { entry::copy(to.as_mut_ptr(), address as *const u8, len) }
}

/// Writes bytes.
pub fn write_bytes(address: u64, from: &[u8]) -> Result<()> {
    check(address, from.len())?;
    // SAFETY: our own side is valid; a bad address ends the copy.
    let left = unsafe { entry::copy(address as *mut u8, from.as_ptr(), from.len()) };
    if left > 0 { Err(Errno::EFAULT) } else { Ok(()) }
}

fn check(address: u64, len: usize) -> Result<()> {
    let end = address.checked_add(len as u64);
    if end.is_some_and(|end| end <= END) { Ok(()) } else { Err(Errno::EFAULT) }
}
