//! What the program inherits from our caller: closed standard streams, ignored signals, the signal
//! mask, and variables that name the process that our caller started.
//!
//! Rust's standard library opens `/dev/null` in place of closed standard streams, and ignores
//! `SIGPIPE`, before `main`. So we record both earlier.

use crate::signals::Signals;
use libc::{c_int, sighandler_t};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::{mem, ptr};

/// Runs before the standard library starts.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// One bit for each standard stream that was closed, and [`PIPE_IGNORED`].
static FOUND: AtomicU32 = AtomicU32::new(0);
const PIPE_IGNORED: u32 = 1 << 3;

extern "C" fn look() {
    let mut found = 0;
    for stream in 0..3 {
        // SAFETY: reading the flags of a descriptor changes nothing.
        if unsafe { libc::fcntl(stream, libc::F_GETFD) } == -1 {
            found |= 1 << stream;
        }
    }
    if is_ignored(libc::SIGPIPE) {
        found |= PIPE_IGNORED;
    }
    FOUND.store(found, Relaxed);
}

/// Whether a signal is ignored.
fn is_ignored(signal: c_int) -> bool {
    // SAFETY: the call changes nothing, and writes its answer to our memory.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// What a signal does to a process without a handler for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disposition {
    Default,
    Ignored,
}

impl Disposition {
    fn of(signal: c_int) -> Self {
        if is_ignored(signal) { Self::Ignored } else { Self::Default }
    }

    fn set(self, signal: c_int) {
        let action: sighandler_t = match self {
            Self::Default => libc::SIG_DFL,
            Self::Ignored => libc::SIG_IGN,
        };
        // SAFETY: both are valid actions for every signal.
        unsafe { libc::signal(signal, action) };
    }
}

/// What the program inherits from our caller.
pub struct Inherited {
    mask: Signals,
    /// Of `SIGCHLD`.
    child: Disposition,
    launcher: u32,
}

/// Variables by which a service manager names the process that it started (sd_listen_fds(3),
/// sd_watchdog_enabled(3)). A program for which another process is meant ignores what they offer.
const NAMES_OF_PROCESS: [&str; 2] = ["LISTEN_PID", "WATCHDOG_PID"];

impl Inherited {
    /// Blocks the signals that we wait for, and restores `SIGCHLD`, which the caller may have ignored.
    pub fn block(signals: &Signals) -> Self {
        let child = Disposition::of(libc::SIGCHLD);
        Disposition::Default.set(libc::SIGCHLD);
        Self { mask: signals.block(), child, launcher: std::process::id() }
    }

    /// The mask as the kernel has it: bit n − 1 is signal n.
    pub fn mask(&self) -> u64 {
        self.mask.bits()
    }

    /// Restores all of it in a process that is about to execute the program.
    pub fn restore(&self) {
        let found = FOUND.load(Relaxed);
        let pipe = match found & PIPE_IGNORED {
            0 => Disposition::Default,
            _ => Disposition::Ignored,
        };
        pipe.set(libc::SIGPIPE);
        self.child.set(libc::SIGCHLD);
        for stream in (0..3).filter(|stream| found & 1 << stream != 0) {
            // SAFETY: the standard library opened it in place of the closed stream; nothing uses it
            // from here on.
            unsafe { libc::close(stream) };
        }
        self.take_name();
        self.mask.become_mask();
    }

    /// Names this process where the caller named the launcher.
    fn take_name(&self) {
        let named = self.launcher.to_string();
        for variable in NAMES_OF_PROCESS {
            if std::env::var_os(variable).is_some_and(|value| value == *named) {
                // SAFETY: this process has one thread.
                unsafe { std::env::set_var(variable, std::process::id().to_string()) };
            }
        }
    }
}
