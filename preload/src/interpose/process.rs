//! `_Fork`, which runs no handlers.

use super::{Next, set_errno};
use crate::{fork, managed};
use core::ffi::c_void;
use core::mem;

/// libc's function; `fork` does not call it by its name.
pub(super) static FORK: Next = Next::new(c"_Fork");

/// `_Fork(3)`: a fork without the program's handlers, but with ours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Fork() -> libc::pid_t {
    let Some(address) = FORK.address() else {
        set_errno(libc::ENOSYS);
        return -1;
    };
    // SAFETY: the address is that of libc's function of this name, which has this type.
    let real = unsafe { mem::transmute::<*mut c_void, extern "C" fn() -> libc::pid_t>(address) };
    if !managed::is_open() {
        return real();
    }
    // SAFETY: the three are called in the order that they are made for.
    unsafe {
        fork::before();
        let process = real();
        if process == 0 {
            fork::after_in_child()
        } else {
            fork::after_in_parent()
        }
        process
    }
}
