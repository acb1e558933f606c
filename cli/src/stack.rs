//! A stack of our own where the caller's limit (`ulimit -s 64`) leaves the first thread too little.

use crate::signals::Signals;
use rustix::process::{Resource, getrlimit};
use std::process::ExitCode;
use std::{panic, thread};

/// The stack that certainly suffices.
const ENOUGH: usize = 1 << 20;

/// Does the work of the process with a stack that suffices: under a small limit in a second thread, which lasts as long as
/// the process and receives its signals.
pub fn with_enough(work: fn() -> ExitCode) -> ExitCode {
    let limit = getrlimit(Resource::Stack).current;
    if limit.is_none_or(|bytes| bytes >= ENOUGH as u64) {
        return work();
    }
    let own = Signals::all().become_mask();
    let in_thread = move || {
        own.become_mask();
        work()
    };
    match thread::Builder::new().stack_size(ENOUGH).spawn(in_thread).map(thread::JoinHandle::join) {
        Ok(Ok(status)) => status,
        Ok(Err(payload)) => panic::resume_unwind(payload),
        // The user may have no more threads.
        Err(_) => in_thread(),
    }
}
