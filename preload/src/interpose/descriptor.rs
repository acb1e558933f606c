//! `close` and what else could take our descriptors away.

use super::{Next, set_errno};
use crate::sys::{self, Errno};
use core::ffi::{c_int, c_uint, c_void};
use core::mem;
use pagefault_linux::store::descriptor::{is_kept, next_kept};
use syscalls::Sysno;

/// libc's `close`, which is a cancellation point.
pub(super) static CLOSE: Next = Next::new(c"close");

fn status(result: Result<usize, Errno>) -> c_int {
    match result {
        Ok(value) => value as c_int,
        Err(errno) => {
            set_errno(errno.into_raw());
            -1
        }
    }
}

/// `close(2)`; our descriptors do not exist for the program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    if is_kept(fd) {
        return status(Err(Errno::EBADF));
    }
    match CLOSE.address() {
        Some(address) => {
            // SAFETY: the address is that of libc's function of this name, which has this type.
            let close =
                unsafe { mem::transmute::<*mut c_void, extern "C" fn(c_int) -> c_int>(address) };
            close(fd)
        }
        // SAFETY: closing a descriptor asks nothing of its caller but to be done with it.
        None => status(unsafe { sys::call(Sysno::close, [fd as usize, 0, 0, 0, 0, 0]) }),
    }
}

/// `dup2(2)`; a number that is ours cannot be had.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if is_kept(new) {
        return status(Err(Errno::EBUSY));
    }
    // SAFETY: as for `close`, of the new number.
    status(unsafe { sys::call(Sysno::dup2, [old as usize, new as usize, 0, 0, 0, 0]) })
}

/// `dup3(2)`; a number that is ours cannot be had.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    if is_kept(new) {
        return status(Err(Errno::EBUSY));
    }
    let args = [old as usize, new as usize, flags as usize, 0, 0, 0];
    // SAFETY: as for `close`, of the new number.
    status(unsafe { sys::call(Sysno::dup3, args) })
}

/// `close_range(2)`, around our descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let mut from = first;
    if first <= last {
        while let Some(kept) = kept_between(from, last) {
            if from < kept
                && let Err(errno) = close_exactly(from, kept - 1, flags)
            {
                return status(Err(errno));
            }
            from = kept + 1;
        }
        if from > last {
            return 0;
        }
    }
    status(close_exactly(from, last, flags).map(|()| 0))
}

/// `closefrom(3)`, around our descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn closefrom(lowest: c_int) {
    // SAFETY: passed on to the caller.
    unsafe { close_range(lowest.max(0) as c_uint, c_uint::MAX, 0) };
}

/// The lowest of our descriptors in a range.
fn kept_between(first: c_uint, last: c_uint) -> Option<c_uint> {
    let first = c_int::try_from(first).ok()?;
    next_kept(first).map(|kept| kept as c_uint).filter(|kept| *kept <= last)
}

fn close_exactly(first: c_uint, last: c_uint, flags: c_int) -> Result<(), Errno> {
    let args = [first as usize, last as usize, flags as usize, 0, 0, 0];
    // SAFETY: as for `close`, of each number.
    unsafe { sys::call(Sysno::close_range, args) }.map(drop)
}
