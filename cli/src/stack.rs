//! A stack of our own where the caller's limit (`ulimit -s 64`) leaves the first thread too little.

use rustix::process::{Resource, getrlimit};
use std::process::ExitCode;
use std::{mem, panic, ptr, thread};

/// The stack that certainly suffices.
const ENOUGH: usize = 1 << 20;

/// Does the work of the process with a stack that suffices: under a small limit in a second thread, which lasts as long as
/// the process and receives its signals.
pub fn with_enough(work: fn() -> ExitCode) -> ExitCode {
    let limit = getrlimit(Resource::Stack).current;
    if limit.is_none_or(|bytes| bytes >= ENOUGH as u64) {
        return work();
    }
    let own = exchange_mask(&every_signal());
    let in_thread = move || {
        exchange_mask(&own);
        work()
    };
    match thread::Builder::new().stack_size(ENOUGH).spawn(in_thread).map(thread::JoinHandle::join) {
        Ok(Ok(status)) => status,
        Ok(Err(payload)) => panic::resume_unwind(payload),
        // The user may have no more threads.
        Err(_) => in_thread(),
    }
}

fn every_signal() -> libc::sigset_t {
    // SAFETY: all zero bytes are a sigset_t, filled by libc's function.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigfillset(&raw mut set);
        set
    }
}

/// Sets the signals that the calling thread blocks; returns those of before.
fn exchange_mask(mask: &libc::sigset_t) -> libc::sigset_t {
    // SAFETY: all zero bytes are a sigset_t, and both sets are valid.
    unsafe {
        let mut before = mem::zeroed();
        libc::pthread_sigmask(libc::SIG_SETMASK, ptr::from_ref(mask), &raw mut before);
        before
    }
}
