//! A stopped process gives frames up (`SIGSTOP`, the terminal): its handler of a reclaim request runs, and
//! nothing else.
//!
//! The supervisor traces the process's first thread, and resumes it although its process is stopped. The
//! request is the only signal that can come. When its handler is about to return to the program, the
//! supervisor lets go, and the host puts the thread back into the stop, without telling its parent again.

use crate::run::trace::{Resume, Stop, Tracee};
use libc::c_int;
use pagefault_control::RECLAIM_SIGNAL;
use std::io;
use std::time::{Duration, Instant};

/// How long the handler may run. It waits for ever if a stopped thread of its process holds a lock.
const PATIENCE: Duration = Duration::from_millis(200);

/// The return from a handler.
const SIGRETURN: u64 = libc::SYS_rt_sigreturn as u64;

/// Whether a process is stopped, and no signal waits that would come as soon as it is resumed.
pub(super) fn is_stopped(process: libc::pid_t) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else {
        return false;
    };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let set = |name| u64::from_str_radix(field(name)?, 16).ok();
    let (Some(own), Some(shared), Some(blocked)) = (set("SigPnd:"), set("ShdPnd:"), set("SigBlk:"))
    else {
        return false;
    };
    field("State:").is_some_and(|state| state.starts_with('T')) && (own | shared) & !blocked == 0
}

/// Has a stopped process handle the reclaim request that `send` sends.
pub(super) fn request_reclaim(process: libc::pid_t, send: impl FnOnce()) -> io::Result<()> {
    let thread = Tracee(process);
    thread.seize()?;
    let deadline = Instant::now() + PATIENCE;
    // It may have been continued meanwhile, and then stops for this alone.
    let begun = thread.interrupt().and_then(|()| thread.wait_until(deadline));
    let signal = match begun {
        Ok(Some(Stop::Group)) => {
            send();
            handle(thread, deadline)
        }
        other => other.map(passed_on),
    };
    let_go(thread, signal.as_ref().map_or(0, |signal| *signal))?;
    signal.map(drop)
}

/// Runs the thread until its handler returns. Returns a signal that came instead.
fn handle(thread: Tracee, deadline: Instant) -> io::Result<c_int> {
    let mut signal = 0;
    loop {
        thread.resume(Resume::ToCall, signal)?;
        signal = 0;
        match thread.wait_until(deadline)? {
            Some(Stop::Signal(RECLAIM_SIGNAL)) => signal = RECLAIM_SIGNAL,
            Some(Stop::Call) if thread.registers()?.orig_rax == SIGRETURN => return Ok(0),
            // Its process is still stopped, or was so once more.
            Some(Stop::Call | Stop::Interrupted | Stop::Group) => {}
            other => return Ok(passed_on(other)),
        }
    }
}

/// The signal with which a thread goes on after a stop.
fn passed_on(stop: Option<Stop>) -> c_int {
    match stop {
        Some(Stop::Signal(signal)) => signal,
        _ => 0,
    }
}

fn let_go(thread: Tracee, signal: c_int) -> io::Result<()> {
    if thread.resume(Resume::Detach, signal).is_ok() {
        return Ok(());
    }
    // It runs, and can only be let go where it stops. If it does not do so soon, the supervisor lets it go
    // later, as any thread that it does not know.
    thread.interrupt()?;
    match thread.wait_until(Instant::now() + PATIENCE)? {
        Some(stop) => thread.resume(Resume::Detach, passed_on(Some(stop))),
        None => Ok(()),
    }
}
