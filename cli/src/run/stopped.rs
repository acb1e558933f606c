//! A stopped program: the launcher stops too, so that the shell sees it, until either is continued.

use super::spawn::fork;
use crate::signals::Signals;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::time::Timespec;
use std::ffi::CString;
use std::mem;

/// How often to check a stopped program.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Stops this process by the program's stop signal, until either is continued or the program is killed.
/// Afterwards neither is stopped.
pub fn stop_with(program: Pid) {
    let myself = rustix::process::getpid();
    let (own, other) = (Status::of(myself), Status::of(program));
    let watcher = fork(|| {
        continue_with(myself, &own, &other);
        0
    });
    // Neither call can fail: the processes are ours and the signals exist.
    let _ = rustix::process::kill_process(myself, Signal::STOP);
    // Taken here, so that it is not passed on later: the program may have been stopped again by then.
    let sender = take_continue();
    let watcher = watcher.ok();
    if let Some(watcher) = watcher {
        let _ = rustix::process::kill_process(watcher, Signal::KILL);
        let _ = rustix::process::waitpid(Some(watcher), WaitOptions::empty());
    }
    // The watcher saw that the program was continued by itself. If it is stopped now, that is a new stop.
    let is_new = watcher.is_some() && sender == watcher;
    if !is_new && other.look() != Some(State::Runs) {
        let _ = rustix::process::kill_process(program, Signal::CONT);
    }
}

/// Takes the `SIGCONT` that ended the stop, which the launcher blocks. Returns its sender.
fn take_continue() -> Option<Pid> {
    let set = Signals::of([libc::SIGCONT]);
    // SAFETY: all zero bytes are a siginfo_t.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the set, the place for the answer and the limit are valid. The sender of a SIGCONT is set.
    unsafe {
        let taken = libc::sigtimedwait(set.as_ptr(), &raw mut info, &raw const now);
        if taken == libc::SIGCONT { Pid::from_raw(info.si_pid()) } else { None }
    }
}

/// Continues the launcher when the program is no longer stopped: the stopped launcher cannot check.
fn continue_with(launcher: Pid, own: &Status, program: &Status) {
    // A group of its own, so that signals to the job do not reach it; it ends with the launcher.
    let _ = rustix::process::setsid();
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    while rustix::process::getppid() == Some(launcher) {
        match (own.look(), program.look()) {
            (Some(State::Stopped), Some(State::Runs)) => {
                let _ = rustix::process::kill_process(launcher, Signal::CONT);
                return;
            }
            // Then only a continued launcher continues the program.
            (None, _) | (_, None) => return,
            _ => {}
        }
        let _ = rustix::thread::nanosleep(&LOOK);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Stopped,
    /// Or it has ended, and was not waited for yet.
    Runs,
}

/// The file with a process's state.
struct Status(Option<CString>);

impl Status {
    fn of(process: Pid) -> Self {
        Self(CString::new(format!("/proc/{}/stat", process.as_raw_nonzero())).ok())
    }

    /// The process's state; `None` if it cannot be read. Allocates nothing.
    fn look(&self) -> Option<State> {
        let file = rustix::fs::open(self.0.as_deref()?, OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut content = [0; 256];
        let len = rustix::io::read(&file, &mut content).ok()?;
        // The name is in parentheses, and may contain parentheses.
        let name_end = content[..len].iter().rposition(|byte| *byte == b')')?;
        match content[..len].get(name_end + 2)? {
            // A lower-case t if a tracer holds it: the supervisor at an exec, or another one.
            b'T' | b't' => Some(State::Stopped),
            _ => Some(State::Runs),
        }
    }
}
