//! The file that the tree shares, as this process has it mapped.
//!
//! Where the host limits no addresses, one mapping has all that lies before the compressed memory. So what
//! comes and goes with processes, such as the column of a child, takes no call. Otherwise each part has a
//! mapping of its own.

use crate::address_limit;
use crate::process::boot;
use crate::sys::{self, Errno, Result};
use core::ops::Range;
use linux_raw_sys::general as nr;
use pagefault_control::{Boot, Control};
use pagefault_linux::room;

/// The rights to parts that are in use.
pub const ACCESS: u32 = nr::PROT_READ | nr::PROT_WRITE;

/// Maps the control memory; returns its address and how much of the file is mapped.
pub fn begin(boot: &Boot) -> Result<(u64, u64)> {
    let len = match address_limit::is_unlimited() {
        true => boot.control_len,
        false => (size_of::<Control>() as u64).next_multiple_of(crate::memory::PAGE),
    };
    Ok((map_part(boot.control_fd as u32, 0..len, ACCESS)? as u64, len))
}

/// The address of a part of the file, which is mapped if necessary; a dangling pointer for an empty one. A part with
/// other rights than [`ACCESS`] always has a mapping of its own.
pub fn map(file: u32, part: Range<u64>, prot: u32) -> Result<*mut u8> {
    let boot = boot();
    if part.is_empty() {
        return Ok(core::ptr::without_provenance_mut(align_of::<u64>()));
    }
    if part.end <= boot.control_len && prot == ACCESS {
        return Ok((boot.control + part.start) as *mut u8);
    }
    map_part(file, part, prot)
}

fn map_part(file: u32, part: Range<u64>, prot: u32) -> Result<*mut u8> {
    let len = part.end - part.start;
    let flags = nr::MAP_SHARED | nr::MAP_NORESERVE;
    let map = [prot, flags].map(u64::from);
    let start = match sys::map_apart(len, prot, flags, file.into(), part.start) {
        Err(Errno::ENOMEM) => map_in_room(len, map, file, part.start)?,
        mapped => mapped?,
    };
    if start == 0 {
        return Err(Errno::ENOMEM);
    }
    // SAFETY: nothing of the program's is there.
    let _ = unsafe { sys::advise(start, len as usize, nr::MADV_DONTDUMP) };
    Ok(start as *mut u8)
}

/// Maps a part where the runtime has addresses of its own: the program may have reserved all others.
fn map_in_room(len: u64, [prot, flags]: [u64; 2], file: u32, offset: u64) -> Result<usize> {
    let start = room::take(len as usize, 1).ok_or(Errno::ENOMEM)?.as_ptr().addr() as u64;
    let args = [start, len, prot, flags | u64::from(nr::MAP_FIXED), file.into(), offset];
    // SAFETY: nobody else has the range, and nothing is in it.
    unsafe { sys::call(nr::__NR_mmap, args) }.map(|start| start as usize)
}

/// Gives up the address of a part.
///
/// # Safety
/// Nothing may use it afterwards.
pub unsafe fn unmap(start: *mut u8, len: u64) {
    let boot = boot();
    let is_whole = (start.addr() as u64).wrapping_sub(boot.control) < boot.control_len;
    if len > 0 && !is_whole {
        let len = len.next_multiple_of(crate::memory::PAGE) as usize;
        // SAFETY: passed on to the caller. If the host refuses, addresses are lost.
        let _ = unsafe { sys::unmap(start.addr(), len) };
    }
}
