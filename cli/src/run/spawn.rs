//! A process that goes on where this one is.

use rustix::io::Errno;
use rustix::process::Pid;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs something in a process of its own, which ends with the status that it returns. What it owns
/// is dropped here. It takes no lock that another thread of this process may hold.
pub fn fork(child: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    // SAFETY: the child finds no lock held that it takes; libc looks after the allocator's.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::AGAIN)),
        0 => {
            // What stands on the front's stack is the front's: we never return to it.
            let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(status) }
        }
        process => Pid::from_raw(process).ok_or(Errno::AGAIN),
    }
}
