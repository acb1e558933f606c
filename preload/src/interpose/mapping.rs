//! `mmap` and its family.

use super::set_errno;
use crate::managed::{self, Residence, page_up};
use crate::sys::{self, Errno, Mmap};
use core::ffi::{c_int, c_void};
use core::ops::Range;
use syscalls::Sysno;

/// Mappings with any of these go to the host: stacks, which grow by themselves or hold code of libc
/// that must not fault, and memory of other kinds than pages of 4 KiB.
const HOST_FLAGS: c_int =
    libc::MAP_GROWSDOWN | libc::MAP_STACK | libc::MAP_HUGETLB | libc::MAP_LOCKED;

fn is_manageable(m: &Mmap) -> bool {
    let kind = m.flags & libc::MAP_TYPE;
    kind == libc::MAP_PRIVATE
        && m.flags & libc::MAP_ANONYMOUS != 0
        && m.flags & HOST_FLAGS == 0
        && m.prot & libc::PROT_EXEC == 0
}

/// The addresses of a request whose address and length are valid; else `None`, and the host says
/// what is wrong.
fn range(address: usize, len: usize) -> Option<Range<usize>> {
    let end = address.checked_add(len)?.checked_add(4095)? & !4095;
    (address.is_multiple_of(4096) && len > 0).then_some(address..end)
}

fn pointer(result: Result<usize, Errno>) -> *mut c_void {
    match result {
        Ok(address) => address as *mut c_void,
        Err(errno) => {
            set_errno(errno.into_raw());
            libc::MAP_FAILED
        }
    }
}

fn status(result: Result<(), Errno>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(errno) => {
            set_errno(errno.into_raw());
            -1
        }
    }
}

/// `mmap(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    address: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    let m = Mmap { address: address.addr(), len, prot, flags, fd, offset };
    // SAFETY: passed on to the caller.
    pointer(unsafe { map(&m) })
}

/// `mmap64(2)`, which is the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    address: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    // SAFETY: passed on to the caller.
    unsafe { mmap(address, len, prot, flags, fd, offset) }
}

unsafe fn map(m: &Mmap) -> Result<usize, Errno> {
    if !managed::is_open() {
        // SAFETY: passed on to the caller.
        return unsafe { sys::mmap(m) };
    }
    let replaces = m.flags & libc::MAP_FIXED != 0 && m.flags & libc::MAP_FIXED_NOREPLACE == 0;
    if let Some(range) = range(m.address, m.len).filter(|_| replaces) {
        managed::forget(range);
    }
    // SAFETY: passed on to the caller.
    unsafe { if is_manageable(m) { managed::map(m) } else { sys::mmap(m) } }
}

/// `munmap(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn munmap(address: *mut c_void, len: usize) -> c_int {
    let address = address.addr();
    // SAFETY: passed on to the caller.
    status(unsafe {
        match range(address, len) {
            Some(_) if managed::is_open() => managed::unmap(address, len),
            _ => sys::munmap(address, len),
        }
    })
}

/// `mprotect(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mprotect(address: *mut c_void, len: usize, prot: c_int) -> c_int {
    let address = address.addr();
    // SAFETY: passed on to the caller.
    status(unsafe {
        match range(address, len) {
            Some(_) if managed::is_open() => managed::protect(address, len, prot),
            _ => sys::mprotect(address, len, prot),
        }
    })
}

/// `madvise(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(address: *mut c_void, len: usize, advice: c_int) -> c_int {
    // SAFETY: passed on to the caller.
    status(unsafe { advise(address.addr(), len, advice) })
}

/// `posix_madvise(3)`, which returns its error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_madvise(address: *mut c_void, len: usize, advice: c_int) -> c_int {
    // Unlike the system call's, this advice must not destroy anything, so that libc ignores it.
    if advice == libc::POSIX_MADV_DONTNEED {
        return 0;
    }
    // SAFETY: passed on to the caller; the other values are the system call's.
    unsafe { advise(address.addr(), len, advice) }.map_or_else(|errno| errno.into_raw(), |()| 0)
}

unsafe fn advise(address: usize, len: usize, advice: c_int) -> Result<(), Errno> {
    let whole = range(address, len).filter(|_| managed::is_open());
    // SAFETY: passed on to the caller.
    unsafe {
        match whole {
            Some(whole) if managed::covers(whole.clone()) => {
                managed::advise(whole.start, whole.len(), advice)
            }
            Some(whole) => pieces(whole, |piece, is_managed| match is_managed {
                Kind::Managed => managed::advise(piece.start, piece.len(), advice),
                Kind::Host => sys::madvise(piece.start, piece.len(), advice),
            }),
            None => sys::madvise(address, len, advice),
        }
    }
}

/// Whose a piece of a range is.
#[derive(Clone, Copy)]
enum Kind {
    Managed,
    Host,
}

/// Does something to each piece of a range, from the lowest up, and goes on after an error as the
/// host does; returns the first one.
fn pieces(
    whole: Range<usize>,
    mut act: impl FnMut(Range<usize>, Kind) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut from = whole.start;
    let mut result = Ok(());
    for part in managed::parts(whole.clone()).into_iter().rev() {
        if from < part.start {
            result = result.and(act(from..part.start, Kind::Host));
        }
        from = part.end;
        result = result.and(act(part, Kind::Managed));
    }
    if from < whole.end {
        result = result.and(act(from..whole.end, Kind::Host));
    }
    result
}

/// `mremap(2)`; the last argument counts only with `MREMAP_FIXED` or `MREMAP_DONTUNMAP`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mremap(
    old: *mut c_void,
    old_len: usize,
    new_len: usize,
    flags: c_int,
    new: *mut c_void,
) -> *mut c_void {
    // SAFETY: passed on to the caller.
    pointer(unsafe { remap(old.addr(), old_len, new_len, flags, new.addr()) })
}

unsafe fn remap(
    old: usize,
    old_len: usize,
    new_len: usize,
    flags: c_int,
    new: usize,
) -> Result<usize, Errno> {
    let (Some(range), true) = (range(old, old_len), new_len > 0 && managed::is_open()) else {
        // SAFETY: passed on to the caller.
        return unsafe { sys::mremap(old, old_len, new_len, flags, new) };
    };
    if managed::covers(range.clone()) {
        // SAFETY: passed on to the caller.
        return unsafe { managed::remap(range, page_up(new_len), flags, new) };
    }
    if !managed::parts(range).is_empty() {
        // More than one mapping, which the host does not move either.
        return Err(Errno::EFAULT);
    }
    if let Some(target) = self::range(new, new_len).filter(|_| flags & libc::MREMAP_FIXED != 0) {
        managed::forget(target);
    }
    // SAFETY: passed on to the caller.
    unsafe { sys::mremap(old, old_len, new_len, flags, new) }
}

/// `mlockall(2)`. What is managed cannot all be resident, and may not be; so the host's answer to a
/// process without the right is given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlockall(flags: c_int) -> c_int {
    if managed::is_open() {
        return status(Err(Errno::EPERM));
    }
    // SAFETY: the call asks nothing of its caller.
    status(unsafe { sys::call(Sysno::mlockall, [flags as usize, 0, 0, 0, 0, 0]) }.map(drop))
}

/// `mlock(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlock(address: *const c_void, len: usize) -> c_int {
    status(set_locked(address.addr(), len, Residence::Locked, |start, len| {
        // SAFETY: the call asks nothing of its caller.
        unsafe { sys::call(Sysno::mlock, [start, len, 0, 0, 0, 0]) }.map(drop)
    }))
}

/// `mlock2(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlock2(address: *const c_void, len: usize, flags: c_int) -> c_int {
    status(set_locked(address.addr(), len, Residence::Locked, |start, len| {
        // SAFETY: the call asks nothing of its caller.
        unsafe { sys::call(Sysno::mlock2, [start, len, flags as usize, 0, 0, 0]) }.map(drop)
    }))
}

/// `munlock(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn munlock(address: *const c_void, len: usize) -> c_int {
    status(set_locked(address.addr(), len, Residence::Evictable, |start, len| {
        // SAFETY: the call asks nothing of its caller.
        unsafe { sys::call(Sysno::munlock, [start, len, 0, 0, 0, 0]) }.map(drop)
    }))
}

/// Locks or unlocks each piece of a range where it belongs.
fn set_locked(
    address: usize,
    len: usize,
    residence: Residence,
    host: impl Fn(usize, usize) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let first = address & !4095;
    match range(first, len.saturating_add(address - first)).filter(|_| managed::is_open()) {
        Some(whole) => pieces(whole, |piece, kind| match kind {
            Kind::Managed => managed::set_locked(&piece, residence),
            Kind::Host => host(piece.start, piece.len()),
        }),
        None => host(address, len),
    }
}
