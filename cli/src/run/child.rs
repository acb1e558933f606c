//! The program as a child process: started, given our signals, waited for.

use super::Error;
use pagefault_control::VARIABLE;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, ExitCode};
use std::{env, io, mem, ptr};

/// The signals that we pass on. The rest either cannot be taken or is meant for us alone.
const PASSED_ON: [libc::c_int; 12] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGWINCH,
];

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with a status.
    Status(u8),
    /// A signal ended it.
    Signal(libc::c_int),
}

/// The running program.
pub struct Child {
    process: Pid,
    /// The signals that we wait for.
    signals: libc::sigset_t,
}

/// Starts a program with the object and the shared memory in its environment.
pub fn start(
    program: &Path,
    arguments: &[OsString],
    object: &OwnedFd,
    shared: &OwnedFd,
) -> Result<Child, Error> {
    let here = format!("/proc/{}/fd", process::id());
    let mut preload = OsString::from(format!("{here}/{}", object.as_raw_fd()));
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let mut command = Command::new(program);
    command
        .arg0(arguments.first().map_or(OsStr::new(""), OsString::as_os_str))
        .args(arguments.get(1..).unwrap_or_default())
        .env("LD_PRELOAD", preload)
        .env(VARIABLE, format!("{here}/{}", shared.as_raw_fd()));

    // Taken before there is a child to pass them on to, so that none is lost.
    let signals = signals();
    let before = exchange_mask(libc::SIG_BLOCK, &signals);
    // SAFETY: setting the mask is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            exchange_mask(libc::SIG_SETMASK, &before);
            Ok(())
        });
    }
    let child = command.spawn();
    let child = child.map_err(|source| Error::Spawn { program: program.to_owned(), source })?;
    // Waited for by number from here on, since stops must be seen too.
    let process = Pid::from_child(&child);
    Ok(Child { process, signals })
}

impl Child {
    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.process.as_raw_nonzero().get() as u32
    }

    /// Waits for the end of the program and passes signals on meanwhile.
    pub fn wait(&mut self) -> io::Result<Ended> {
        loop {
            // SAFETY: all zero bytes are a siginfo_t.
            let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
            // SAFETY: the set and the place for the answer are valid.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.signals, &raw mut info) };
            match signal {
                libc::SIGCHLD => {
                    if let Some(ended) = self.look()? {
                        return Ok(ended);
                    }
                }
                // What the terminal sends goes to the whole foreground group, the program too.
                1.. if info.si_code == libc::SI_KERNEL => {}
                1.. => self.pass_on(signal),
                // Interrupted by a signal that is not ours to wait for.
                _ => {}
            }
        }
    }

    /// Looks what became of the program.
    fn look(&self) -> io::Result<Option<Ended>> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        while let Some((_, status)) = rustix::process::waitpid(Some(self.process), options)? {
            if status.stopped() {
                self.stop_with_it();
            } else if let Some(ended) = ended(status) {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    /// Stops ourselves as the program stopped, for the shell to see, until both are to go on.
    fn stop_with_it(&self) {
        let myself = rustix::process::getpid();
        // Neither call can fail: the processes are ours and the signals exist.
        let _ = rustix::process::kill_process(myself, Signal::STOP);
        let _ = rustix::process::kill_process(self.process, Signal::CONT);
    }

    fn pass_on(&self, signal: libc::c_int) {
        // SAFETY: the child has not been waited for to its end, so that the number is its own.
        unsafe { libc::kill(self.process.as_raw_nonzero().get(), signal) };
    }
}

fn ended(status: WaitStatus) -> Option<Ended> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Some(Ended::Status(status as u8)),
        (None, Some(signal)) => Some(Ended::Signal(signal)),
        (None, None) => None,
    }
}

/// The signals that we wait for: those passed on, and the child's own.
fn signals() -> libc::sigset_t {
    // SAFETY: all zero bytes are a sigset_t, emptied and filled by libc's functions.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in PASSED_ON.into_iter().chain([libc::SIGCHLD]) {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Changes the calling thread's signal mask and returns what it was.
fn exchange_mask(how: libc::c_int, set: &libc::sigset_t) -> libc::sigset_t {
    // SAFETY: both sets are valid for the call.
    unsafe {
        let mut before = mem::zeroed();
        libc::pthread_sigmask(how, set, &raw mut before);
        before
    }
}

/// Ends this process by the signal that ended the program.
pub fn die_of(signal: libc::c_int) -> ExitCode {
    // The program has left a core if it wanted one; ours would only overwrite it.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    // SAFETY: the default action is a valid one for any signal, and the set is valid.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        libc::raise(signal);
    }
    // A signal that does not end a process by default ended the program all the same.
    ExitCode::from((128 + signal) as u8)
}
