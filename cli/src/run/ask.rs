//! The child that becomes the program, up to its `execve`. It asks the supervisor first, like every
//! process of the tree that executes a program.

use super::inherited::Inherited;
use super::launcher::Shared;
use super::limits::{Limits, raise_fully};
use super::supervisor::is_hung_up;
use pagefault_control::{Message, Slot, ask};
use rustix::event::Timespec;
use rustix::io::{Errno, FdFlags};
use rustix::net::SendFlags;
use rustix::process::{PTracer, Pid, Resource, Rlimit};
use rustix::thread::futex;
use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Our descriptors stay below this number even if the limit is higher: a descriptor table is as
/// long as its highest descriptor, and every fork copies it.
const HIGH: u64 = 4096;
/// How many descriptors we need: the inherited ones, and the memory manager's.
const OURS: u64 = 64;
/// How often a waiting child checks whether the supervisor is alive.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Why a child did not become its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The program cannot be executed.
    Exec(Errno),
    /// The supervisor cannot trace us.
    Refused(Errno),
    /// The supervisor is gone.
    Supervisor,
    /// There are too few descriptors for us.
    Descriptors(Errno),
}

impl Failure {
    /// Tells the launcher, which reads until end of file.
    pub fn send(self, to: OwnedFd) {
        let (kind, errno) = match self {
            Self::Exec(errno) => (0, errno.raw_os_error()),
            Self::Refused(errno) => (1, errno.raw_os_error()),
            Self::Supervisor => (2, 0),
            Self::Descriptors(errno) => (3, errno.raw_os_error()),
        };
        // Without a reader, the message has no recipient.
        let _ = File::from(to).write_all(&[kind, errno as u8]);
    }

    /// The child's message, or `None` if it executed its program.
    pub fn receive(from: OwnedFd) -> Option<Self> {
        let mut told = [0; 2];
        File::from(from).read_exact(&mut told).ok()?;
        // Zero is no error number.
        let errno = || Errno::from_raw_os_error(i32::from(told[1]));
        Some(match told[0] {
            0 => Self::Exec(errno()),
            1 => Self::Refused(errno()),
            2 => Self::Supervisor,
            _ => Self::Descriptors(errno()),
        })
    }
}

/// A child's connection to the supervisor.
pub struct Supervisor<'a> {
    /// The tree's control memory.
    pub tree: Shared<'a>,
    /// The tree's end of the socket.
    pub socket: &'a OwnedFd,
    /// The runtime's file.
    pub code: &'a OwnedFd,
    /// The supervisor's process ID.
    pub process: Pid,
    /// The slot that the launcher took for us.
    pub slot: u32,
}

/// A program's path and arguments, as `execve` takes them.
pub struct Program {
    path: CString,
    arguments: Vec<CString>,
}

impl Program {
    /// None may contain a zero byte; arguments of the command line never do.
    pub fn new(path: CString, arguments: Vec<CString>) -> Self {
        Self { path, arguments }
    }

    /// Executes it with our environment. Returns only on failure.
    fn execute(&self) -> Errno {
        let direct = execve(&self.path, self.arguments.iter().map(CString::as_c_str));
        if direct != Errno::NOEXEC {
            return direct;
        }
        // A script without `#!`, as execvp(3) does.
        let words = [c"/bin/sh", &self.path].into_iter();
        execve(c"/bin/sh", words.chain(self.arguments.iter().skip(1).map(CString::as_c_str)))
    }
}

/// Becomes the program, with or without a supervisor. Returns only on failure.
pub fn become_program(
    program: &Program,
    supervisor: Option<&Supervisor>,
    inherited: &Inherited,
    limits: &Limits,
) -> Failure {
    inherited.restore();
    limits.restore(
        supervisor.and_then(|supervisor| supervisor.tree.control.slots.get(supervisor.slot)),
    );
    let Some(supervisor) = supervisor else { return Failure::Exec(program.execute()) };
    if let Err(failure) =
        prepare(supervisor).and_then(|slot| ask_supervisor(supervisor, slot, inherited.mask()))
    {
        return failure;
    }
    let errno = program.execute();
    // If the supervisor is gone, the send fails, and nobody traces us.
    let _ = send(supervisor.socket, Message::Cancel { slot: supervisor.slot });
    Failure::Exec(errno)
}

fn execve<'a>(path: &CStr, arguments: impl Iterator<Item = &'a CStr>) -> Errno {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut words: Vec<*const c_char> = arguments.map(CStr::as_ptr).collect();
    words.push(ptr::null());
    // SAFETY: path and arguments are strings that outlive the call, and their list ends with null;
    // this process has one thread, which does not change the environment meanwhile.
    unsafe { libc::execve(path.as_ptr(), words.as_ptr(), environ) };
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOEXEC)
}

/// Moves the inherited descriptors to their places, and notes them in the slot.
fn prepare<'a>(supervisor: &Supervisor<'a>) -> Result<&'a Slot, Failure> {
    let slot = supervisor.tree.control.slots.get(supervisor.slot).ok_or(Failure::Supervisor)?;
    let room = Room::make(rustix::process::getrlimit(Resource::Nofile));
    let put = |file: &OwnedFd| put_high(file.as_fd(), room.highest).map_err(Failure::Descriptors);
    let [control, socket] = [supervisor.tree.memory, supervisor.socket].map(put);
    supervisor.tree.control.program.store(std::process::id(), Relaxed);
    slot.nofile_soft.store(room.soft, Relaxed);
    slot.nofile_hard.store(room.hard, Relaxed);
    slot.control_fd.store(control?, Relaxed);
    slot.socket_fd.store(socket?, Relaxed);
    for (file, number) in supervisor.tree.swap.iter().zip(&slot.swap_fds) {
        number.store(file.as_ref().map_or(Ok(-1), put)?, Relaxed);
    }
    slot.code_fd.store(put(supervisor.code)?, Relaxed);
    free_address_space(Resource::As, &slot.addresses_below);
    free_address_space(Resource::Data, &slot.data_below);
    Ok(slot)
}

/// The numbers of our descriptors, and the limits that the program sees.
struct Room {
    /// Ours lie below this number.
    highest: u64,
    soft: u64,
    hard: u64,
}

impl Room {
    /// Raises the descriptor limit by what we need, if that is allowed, so that all numbers below
    /// the program's limit stay the program's.
    fn make(own: Rlimit) -> Self {
        let [soft, hard] = [own.current, own.maximum].map(|limit| limit.unwrap_or(u64::MAX));
        let Some(wanted) = soft.checked_add(OURS) else {
            return Self { highest: HIGH, soft, hard };
        };
        let raised = Rlimit { current: Some(wanted), maximum: own.maximum.map(|h| h.max(wanted)) };
        // Only a privileged process raises its hard limit.
        if rustix::process::setrlimit(Resource::Nofile, raised).is_ok() {
            return Self { highest: wanted.min(HIGH), soft, hard };
        }
        if hard < HIGH {
            // With so few descriptors, ours are among the program's.
            return Self { highest: soft, soft, hard };
        }
        let below = hard - OURS;
        Self { highest: HIGH, soft: soft.min(below), hard: below }
    }
}

/// Raises the soft limit of address space to the hard one, because the runtime's tables count towards
/// it. Notes the program's limit as its distance from infinity.
fn free_address_space(resource: Resource, below: &[AtomicU64; 2]) {
    let own = rustix::process::getrlimit(resource);
    for (limit, word) in [own.current, own.maximum].into_iter().zip(below) {
        word.store(!limit.unwrap_or(u64::MAX), Relaxed);
    }
    raise_fully(resource, own);
}

/// Duplicates a descriptor to the highest free number, without close-on-exec.
fn put_high(file: BorrowedFd<'_>, limit: u64) -> Result<RawFd, Errno> {
    let lowest = 3;
    for number in (lowest..limit as RawFd).rev() {
        match rustix::io::fcntl_dupfd_cloexec(file, number) {
            Ok(copy) if std::os::fd::AsRawFd::as_raw_fd(&copy) == number => {
                rustix::io::fcntl_setfd(&copy, FdFlags::empty())?;
                return Ok(copy.into_raw_fd());
            }
            // It is taken.
            Ok(_) | Err(Errno::MFILE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::MFILE)
}

/// Asks the supervisor to wait for our exec and to give the program its mask, and waits until it does.
fn ask_supervisor(supervisor: &Supervisor, slot: &Slot, mask: u64) -> Result<(), Failure> {
    // Without Yama this fails, and is not needed.
    let _ = rustix::process::set_ptracer(PTracer::ProcessID(supervisor.process));
    slot.tid.store(rustix::thread::gettid().as_raw_nonzero().get() as u32, Relaxed);
    slot.mask.store(mask, Relaxed);
    slot.word.store(ask::ASKED, Release);
    send(supervisor.socket, Message::Exec { slot: supervisor.slot })
        .map_err(|_| Failure::Supervisor)?;
    loop {
        match slot.word.load(Acquire) {
            ask::SEIZED => return Ok(()),
            ask::REFUSED => {
                let errno = Errno::from_raw_os_error(slot.error.load(Relaxed));
                return Err(Failure::Refused(errno));
            }
            word => {
                let waited = futex::wait(&slot.word, futex::Flags::empty(), word, Some(&LOOK));
                if waited == Err(Errno::TIMEDOUT) && is_hung_up(supervisor.socket) {
                    return Err(Failure::Supervisor);
                }
            }
        }
    }
}

fn send(socket: &OwnedFd, message: Message) -> Result<(), Errno> {
    loop {
        match rustix::net::send(socket, &message.to_bytes(), SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_says_why_it_did_not_become_its_program() {
        let failures = [
            Failure::Exec(Errno::NOENT),
            Failure::Refused(Errno::PERM),
            Failure::Supervisor,
            Failure::Descriptors(Errno::MFILE),
        ];
        for failure in failures {
            let (told, tell) = rustix::pipe::pipe().unwrap();
            failure.send(tell);
            assert_eq!(Failure::receive(told), Some(failure));
        }
        let (told, tell) = rustix::pipe::pipe().unwrap();
        drop(tell);
        assert_eq!(Failure::receive(told), None, "it runs its program");
    }
}
