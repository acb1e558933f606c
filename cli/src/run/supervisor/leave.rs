//! Leaves the caller's session, directory, files and signals.

use crate::signals::Signals;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The number of our first descriptor, once everything else is closed.
const FIRST: i32 = 3;

/// Leaves the caller's session, directory and files. Keeps some descriptors, and returns them under
/// new numbers.
pub(super) fn leave_the_caller(kept: &[&OwnedFd]) -> io::Result<Vec<OwnedFd>> {
    // A process that was just forked leads no group, so this succeeds.
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    let _ = rustix::thread::set_name(c"pagefault-super");
    // Only those that cannot be blocked end or stop the supervisor.
    Signals::all().block();
    // It needs a descriptor for each process.
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, ..limit };
    let _ = rustix::process::setrlimit(Resource::Nofile, most);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).ok();
    for number in 0..FIRST {
        match &null {
            // SAFETY: the numbers below FIRST are the standard streams, which no value owns.
            Some(null) => drop(unsafe { libc::dup2(null.as_raw_fd(), number) }),
            // SAFETY: as above.
            None => drop(unsafe { libc::close(number) }),
        }
    }
    drop(null);
    let numbers = FIRST..FIRST + kept.len() as i32;
    // Moved away from their future numbers first.
    let kept: Vec<_> = kept
        .iter()
        .map(|file| rustix::io::fcntl_dupfd_cloexec(file, numbers.end))
        .collect::<Result<_, _>>()?;
    for (file, number) in kept.iter().zip(numbers.clone()) {
        // SAFETY: the number holds a file of the caller, which is no longer used.
        if unsafe { libc::dup2(file.as_raw_fd(), number) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    drop(kept);
    close_from(numbers.end);
    // SAFETY: they were just made, and no value owns them.
    Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
}

/// Closes all descriptors from a number on. Nothing uses them any more: their owners are on the launcher's
/// stack, to which this process never returns.
fn close_from(first: i32) {
    // SAFETY: nothing uses these descriptors any more.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
        return;
    }
    // A seccomp filter forbids it.
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> =
        open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number >= first) {
        // SAFETY: as above; the directory's own descriptor is closed already.
        unsafe { libc::close(number) };
    }
}
