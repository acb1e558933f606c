//! Forks this process.

use rustix::io::Errno;
use rustix::process::Pid;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a closure in a forked process, which exits with the returned status. The closure's values
/// are dropped in this process. It must take no lock that another thread may hold.
pub fn fork(child: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    // SAFETY: the child takes no lock that was held at the fork; libc handles the allocator's.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::AGAIN)),
        0 => {
            // The values on the launcher's stack are the launcher's: we never return to it.
            let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(status) }
        }
        process => Pid::from_raw(process).ok_or(Errno::AGAIN),
    }
}
