//! The launcher: the process that the user started. It starts the supervisor and the program, forwards our
//! signals to the program, waits for it, and ends as it did.

use super::ask::{Failure, Program, Supervisor, become_program};
use super::image::Image;
use super::inherited::Inherited;
use super::limits::Limits;
use super::loader::{self, Layout};
use super::spawn::fork;
use super::stopped;
use super::supervisor;
use crate::signals::Signals;
use crate::trees;
use pagefault_control::{Control, ask, tree};
use rustix::event::Timespec;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, WaitStatus};
use rustix::thread::futex;
use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;
use std::{fmt, io, mem};

/// The signals that we forward. The others cannot be caught or are meant for us alone.
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

/// How often a launcher that waits for its supervisor checks whether the supervisor was killed.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// How many times to search for remaining processes of a tree, and the interval.
const ROUNDS: usize = 500;
const ROUND: Duration = Duration::from_millis(2);

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with a status.
    Status(u8),
    /// A signal ended it.
    Signal(libc::c_int),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// The running program.
pub struct Child {
    process: Pid,
    supervisor: Option<Watched>,
    /// The signals that we wait for.
    signals: Signals,
}

/// The supervisor as its parent sees it.
struct Watched {
    process: Pid,
    /// The slot of the program.
    slot: u32,
    /// The inode number of the shared memory.
    memory: u64,
    state: State,
    /// Whether processes of the tree were killed because the supervisor was lost.
    has_killed: bool,
}

/// What the supervisor's death meant for the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fell {
    /// The supervisor may have been tracing it; the host kills a tracer's tracees with it.
    AtItsStart,
    /// Processes of the tree were killed: the program, or others that it needs.
    WithTheTree,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    /// It exited normally: the tree was gone.
    Left,
    /// It was killed, or failed.
    Lost,
}

/// Why a program was not started.
#[derive(Debug)]
pub enum StartError {
    /// The host refused a call that we need.
    Host(Errno),
    /// The child could not become the program.
    Child(Failure),
}

impl From<Errno> for StartError {
    fn from(errno: Errno) -> Self {
        Self::Host(errno)
    }
}

/// The resources that all processes of a tree share.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    /// The control memory.
    pub control: &'a Control,
    /// Its file.
    pub memory: &'a OwnedFd,
    /// The swap files; `None` for an area without one.
    pub swap: &'a [Option<OwnedFd>],
}

/// Starts a program under a supervisor.
pub fn start(
    program: &Program,
    tree: Shared<'_>,
    image: &Image<'_>,
    limits: &Limits,
) -> Result<Child, StartError> {
    let slot = tree.control.slots.take().ok_or(Errno::AGAIN)?;
    tree.control.launcher.store(std::process::id(), Relaxed);
    let (kept, socket) = sockets()?;
    // Blocked before the child exists, so that no signal is lost.
    let signals = signals();
    let inherited = Inherited::block(&signals);
    let layout = Layout::new(image, loader::choose_base());
    let code = image.share(&layout)?;
    let start = supervisor::Start { first: slot, launcher: rustix::process::getpid() };
    let process = fork(move || supervisor::run(kept, tree, layout, start).map_or(1, |()| 0))?;
    let supervisor = Supervisor { tree, socket: &socket, code: &code, process, slot };
    let child = start_child(program, Some(&supervisor), &inherited, limits);
    if child.is_err() {
        drop(socket);
        // It ends by itself: no process holds the socket any more.
        let _ = rustix::process::waitpid(Some(process), WaitOptions::empty());
    }
    let memory = rustix::fs::fstat(tree.memory)?.st_ino;
    let supervisor = Some(Watched { process, slot, memory, state: State::Runs, has_killed: false });
    Ok(Child { process: child?, supervisor, signals })
}

/// Starts a program unmanaged.
pub fn start_unmanaged(program: &Program, limits: &Limits) -> Result<Child, StartError> {
    let signals = signals();
    let inherited = Inherited::block(&signals);
    let process = start_child(program, None, &inherited, limits)?;
    Ok(Child { process, supervisor: None, signals })
}

/// Forks the child that becomes the program, and waits for its exec.
fn start_child(
    program: &Program,
    supervisor: Option<&Supervisor>,
    inherited: &Inherited,
    limits: &Limits,
) -> Result<Pid, StartError> {
    let (told, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let process = fork(move || {
        become_program(program, supervisor, inherited, limits).send(tell);
        // Nobody sees this status: the launcher knows the reason.
        127
    })?;
    match Failure::receive(told) {
        None => Ok(process),
        Some(failure) => {
            let _ = rustix::process::waitpid(Some(process), WaitOptions::empty());
            Err(StartError::Child(failure))
        }
    }
}

/// The supervisor's end and the tree's. Messages at the supervisor's end carry the sender's identity.
fn sockets() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let (kept, tree) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
    rustix::net::sockopt::set_socket_passcred(&kept, true)?;
    Ok((kept, tree))
}

impl Child {
    /// Waits, after the program's end, until the supervisor ends too or says that it stays for other
    /// processes.
    ///
    /// If the supervisor was killed earlier, returns what that meant for the program.
    pub fn take_leave(&mut self, control: &Control) -> Option<Fell> {
        let supervisor = self.supervisor.as_mut()?;
        let slot = control.slots.get(supervisor.slot);
        let in_hands = slot.is_some_and(|slot| slot.word.load(Relaxed) != ask::IDLE);
        while supervisor.state == State::Runs && control.tree.load(Acquire) == tree::RUNS {
            // Unless it is killed, it reports that it has seen the program's end.
            let flags = futex::Flags::empty();
            let _ = futex::wait(&control.tree, flags, tree::RUNS, Some(&LOOK));
            supervisor.look();
        }
        let told = control.tree.load(Acquire);
        let is_unkept = told == tree::UNKEPT;
        if supervisor.state == State::Runs && (told == tree::GONE || is_unkept) {
            supervisor.wait();
        }
        match supervisor.state {
            State::Lost if in_hands => Some(Fell::AtItsStart),
            State::Lost if supervisor.has_killed || is_unkept => Some(Fell::WithTheTree),
            _ => None,
        }
    }

    /// Waits for the end of the program and forwards signals meanwhile.
    pub fn wait(&mut self) -> io::Result<Ended> {
        loop {
            // SAFETY: all zero bytes are a siginfo_t.
            let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
            // SAFETY: the set and the place for the answer are valid.
            let signal = unsafe { libc::sigwaitinfo(self.signals.as_ptr(), &raw mut info) };
            match signal {
                libc::SIGCHLD => {
                    if let Some(ended) = self.look()? {
                        return Ok(ended);
                    }
                }
                // The terminal signals the whole foreground group, so the program has it already.
                1.. if info.si_code == libc::SI_KERNEL => {}
                1.. => self.pass_on(signal),
                // Interrupted by another signal.
                _ => {}
            }
        }
    }

    /// Checks the state of the program.
    fn look(&mut self) -> io::Result<Option<Ended>> {
        if let Some(supervisor) = &mut self.supervisor
            && supervisor.look() == State::Lost
        {
            supervisor.end_tree();
        }
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        while let Some((_, status)) = rustix::process::waitpid(Some(self.process), options)? {
            if status.stopped() {
                stopped::stop_with(self.process);
            } else if let Some(ended) = ended(status) {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    fn pass_on(&self, signal: libc::c_int) {
        // SAFETY: the child's end has not been collected, so the number is still its own.
        unsafe { libc::kill(self.process.as_raw_nonzero().get(), signal) };
    }
}

impl Watched {
    /// Checks the state of the supervisor.
    fn look(&mut self) -> State {
        self.learn(WaitOptions::NOHANG);
        self.state
    }

    /// Kills the rest of a tree that has lost its supervisor: its processes could neither execute a program
    /// nor ask each other for memory. Children forked meanwhile check for the supervisor and end by
    /// themselves.
    fn end_tree(&mut self) {
        for _ in 0..ROUNDS {
            if !trees::kill_holders(self.memory) {
                return;
            }
            self.has_killed = true;
            std::thread::sleep(ROUND);
        }
    }

    /// Waits for the end of a supervisor that is about to end.
    fn wait(&mut self) {
        self.learn(WaitOptions::empty());
    }

    fn learn(&mut self, options: WaitOptions) {
        if self.state == State::Runs
            && let Ok(Some((_, status))) = rustix::process::waitpid(Some(self.process), options)
        {
            self.state = if status.exit_status() == Some(0) { State::Left } else { State::Lost };
        }
    }
}

fn ended(status: WaitStatus) -> Option<Ended> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Some(Ended::Status(status as u8)),
        (None, Some(signal)) => Some(Ended::Signal(signal)),
        (None, None) => None,
    }
}

/// The signals that we wait for: the forwarded ones and `SIGCHLD`.
pub fn signals() -> Signals {
    Signals::of(PASSED_ON.into_iter().chain([libc::SIGCHLD]))
}

/// Ends this process by the signal that ended the program.
pub fn die_of(signal: libc::c_int) -> ExitCode {
    // The program has dumped its core if it was to; ours would overwrite it.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    // SAFETY: the default action is a valid one for any signal.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    Signals::of([signal]).unblock();
    // SAFETY: a call without memory.
    unsafe { libc::raise(signal) };
    // The default action of this signal ends no process, although it ended the program.
    ExitCode::from((128 + signal) as u8)
}
