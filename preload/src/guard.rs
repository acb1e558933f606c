//! Being inside of the manager.
//!
//! While a thread is inside, what it allocates and maps is not managed, and no signal handler of
//! the program can interrupt it: a handler could touch managed memory and wait for a fault that
//! waits for a lock that the interrupted thread holds.

use crate::{sys, thread};
use core::ffi::c_int;
use core::marker::PhantomData;

/// The calling thread is inside until this is dropped, which restores `errno`.
pub struct Inside {
    mask: Option<u64>,
    errno: c_int,
    /// It belongs to the thread that entered.
    not_send: PhantomData<*const ()>,
}

/// Enters the manager.
pub fn enter() -> Inside {
    let words = thread::words();
    let depth = words.inside.get();
    // Marked before the mask is changed: a handler that runs in between finds itself inside, and
    // being served outside of managed memory is right, if not thrifty.
    words.inside.set(depth + 1);
    let mask = (depth == 0).then(|| sys::exchange_signal_mask(u64::MAX));
    // SAFETY: libc gives the address of the calling thread's errno.
    let errno = unsafe { *libc::__errno_location() };
    Inside { mask, errno, not_send: PhantomData }
}

/// Whether the calling thread is inside.
pub fn is_inside() -> bool {
    thread::words().inside.get() > 0
}

/// Makes the calling thread one of the manager's own: inside from now to its end.
pub fn stay_inside() {
    let words = thread::words();
    words.inside.set(words.inside.get() + 1);
}

impl Drop for Inside {
    fn drop(&mut self) {
        // SAFETY: as in `enter`.
        unsafe { *libc::__errno_location() = self.errno };
        let words = thread::words();
        words.inside.set(words.inside.get() - 1);
        if let Some(mask) = self.mask {
            sys::exchange_signal_mask(mask);
        }
    }
}
