//! Forks: `_Fork`, which runs no handlers, and the registration of handlers.

use super::{Next, set_errno};
use crate::fork::{self, Handler, Register};
use crate::managed;
use core::ffi::{c_int, c_void};
use core::mem;
use std::sync::Once;

/// libc's `_Fork`; its `fork` does not call it by its name.
pub(super) static FORK: Next = Next::new(c"_Fork");

/// libc's registration of handlers, which `pthread_atfork` calls.
pub(super) static REGISTER: Next = Next::new(c"__register_atfork");

/// Registers our handlers, once.
pub fn register_handlers() -> c_int {
    static ONCE: Once = Once::new();
    let mut result = 0;
    ONCE.call_once(|| {
        REGISTER.resolve();
        result = real_register().map_or(libc::ENOSYS, fork::install);
    });
    result
}

fn real_register() -> Option<Register> {
    // SAFETY: the address is that of libc's function of this name, which has this type.
    REGISTER.address().map(|address| unsafe { mem::transmute::<*mut c_void, Register>(address) })
}

/// What `pthread_atfork` calls. Ours come first, even where another object's constructor registers
/// its own before our constructor has run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __register_atfork(
    prepare: Handler,
    parent: Handler,
    child: Handler,
    object: *mut c_void,
) -> c_int {
    match register_handlers() {
        0 => {}
        error => return error,
    }
    real_register().map_or(libc::ENOSYS, |register| register(prepare, parent, child, object))
}

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
