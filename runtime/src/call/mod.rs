//! The program's system calls.
//!
//! | module | what it does |
//! |---|---|
//! | `thread` | clone, fork, vfork, exit |
//! | `exec` | execve |
//! | `words` | its arguments, where they are many |
//! | `signal` | actions, masks, alternate stacks, waiting for signals |
//! | `process` | prctl, limits |
//! | `seccomp` | the program's filters |
//! | `descriptor` | the descriptors that the runtime keeps |
//! | `unseen` | calls that name one of these |
//! | `listing` | directories that list descriptors |
//! | `status` | the status files of processes |
//! | `trace` | debuggers |
//! | `seen` | a thread's registers, for a tracer in the same memory |
//! | `wait` | waits with a timeout |
//! | `memory` | mappings and their changes |
//! | `between` | copies between processes |
//! | `gather` | many small buffers |
//! | `message` | messages of sockets in many pages |
//! | `old` | calls of 32-bit programs |
//! | `robust` | robust mutexes of threads that end |
//! | `vsyscall` | the page of calls that the kernel makes in a fault |
//! | `passed` | all others: the host makes them, with their pages kept resident |

mod between;
mod descriptor;
mod exec;
mod gather;
mod listing;
mod memory;
mod message;
mod old;
mod passed;
mod process;
pub mod robust;
mod seccomp;
mod seen;
mod signal;
mod status;
mod stop;
pub mod thread;
mod trace;
pub mod tracees;
mod unseen;
mod vsyscall;
mod wait;
mod words;

pub use passed::each_area;
pub use vsyscall::make as make_vsyscall;

use crate::entry::{NOT_STARTED, RESTART};
use crate::frame::Context;
use crate::signal::{end_call, raise_held};
use crate::sys;
use crate::thread::Thread;
use linux_raw_sys::general as nr;
use unseen::Hidden;

/// The outcome of a call.
pub enum Outcome {
    /// What the kernel leaves in `rax`.
    Raw(i64),
    /// The context holds the program's next state.
    Resumed,
}

impl From<sys::Result> for Outcome {
    fn from(result: sys::Result) -> Self {
        Self::Raw(sys::raw(result))
    }
}

/// A call: its thread and arguments.
pub struct Call<'a> {
    pub thread: &'a Thread,
    pub context: &'a mut Context,
    pub number: u32,
    pub args: [u64; 6],
}

/// The instruction that asks for a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// `syscall`.
    Today,
    /// `int 0x80`.
    Old,
}

/// Makes a system call for the program whose instruction trapped.
pub fn dispatch(thread: &Thread, context: &mut Context, manner: Manner) {
    let number = context.registers.rax;
    let asked = match manner {
        // The kernel reads only the lower half.
        Manner::Today => Some((number as u32, context.registers.args())),
        Manner::Old => old::translate(&context.registers),
    };
    let outcome = match asked {
        Some((number, args)) => {
            let mut call = Call { thread, context, number, args };
            thread.stops.in_call(number, || call.judge().unwrap_or_else(|| call.make()))
        }
        None => {
            crate::process::count_refused();
            Err(sys::Errno::ENOSYS).into()
        }
    };
    crate::memory::obey_requests();
    if let Outcome::Raw(raw) = outcome {
        end_wait(thread, raw);
        end_call(thread, context, number, raw);
    }
    raise_held(thread);
}

/// The handler that ends a wait runs with the mask of the wait.
fn end_wait(thread: &Thread, raw: i64) {
    if raw == NOT_STARTED || !thread.has_pending() {
        thread.waiting_mask.set(None);
    }
}

/// Whether a call needs nothing of its context, so that [`make_direct`] takes it.
pub fn is_direct(number: u32) -> bool {
    use Room::{Exec, Key, Registers, Seccomp, Signal, Thread, Unshare};
    !matches!(room_of(number), Signal | Thread | Exec | Seccomp | Registers | Unshare | Key)
}

/// Which part of the runtime makes a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Signal,
    MaskedWait,
    Thread,
    Exec,
    Seccomp,
    /// What a thread or its process is like, registers among it.
    Registers,
    Limit,
    Descriptor,
    Unshare,
    /// Memory by a key.
    Key,
    Memory,
    List,
    Trace,
    File,
    /// A file, with several buffers.
    FileParts,
    /// Between processes.
    Copy,
    /// The host, on the program's own addresses.
    Host,
}

fn room_of(number: u32) -> Room {
    match number {
        nr::__NR_rt_sigreturn
        | nr::__NR_rt_sigaction
        | nr::__NR_rt_sigprocmask
        | nr::__NR_rt_sigsuspend
        | nr::__NR_rt_sigpending
        | nr::__NR_rt_sigtimedwait
        | nr::__NR_signalfd
        | nr::__NR_signalfd4
        | nr::__NR_sigaltstack => Room::Signal,
        nr::__NR_ppoll | nr::__NR_pselect6 | nr::__NR_epoll_pwait | nr::__NR_epoll_pwait2 => {
            Room::MaskedWait
        }
        nr::__NR_clone
        | nr::__NR_clone3
        | nr::__NR_fork
        | nr::__NR_vfork
        | nr::__NR_exit
        | nr::__NR_exit_group
        | nr::__NR_set_tid_address
        | nr::__NR_rseq
        | nr::__NR_set_robust_list => Room::Thread,
        nr::__NR_execve | nr::__NR_execveat => Room::Exec,
        nr::__NR_seccomp => Room::Seccomp,
        nr::__NR_prctl | nr::__NR_arch_prctl => Room::Registers,
        nr::__NR_getrlimit | nr::__NR_setrlimit | nr::__NR_prlimit64 => Room::Limit,
        nr::__NR_close | nr::__NR_close_range | nr::__NR_dup2 | nr::__NR_dup3 | nr::__NR_fcntl => {
            Room::Descriptor
        }
        nr::__NR_unshare => Room::Unshare,
        nr::__NR_pkey_alloc => Room::Key,
        nr::__NR_mmap
        | nr::__NR_munmap
        | nr::__NR_mremap
        | nr::__NR_mprotect
        | nr::__NR_pkey_mprotect
        | nr::__NR_madvise
        | nr::__NR_brk
        | nr::__NR_mlock
        | nr::__NR_mlock2
        | nr::__NR_munlock
        | nr::__NR_mlockall
        | nr::__NR_munlockall
        | nr::__NR_mincore
        | nr::__NR_remap_file_pages
        | nr::__NR_process_madvise
        | nr::__NR_mseal
        | nr::__NR_shmat => Room::Memory,
        nr::__NR_getdents | nr::__NR_getdents64 => Room::List,
        nr::__NR_ptrace | nr::__NR_wait4 | nr::__NR_waitid => Room::Trace,
        nr::__NR_read | nr::__NR_pread64 | nr::__NR_write | nr::__NR_pwrite64 => Room::File,
        nr::__NR_readv | nr::__NR_preadv | nr::__NR_writev | nr::__NR_pwritev => Room::FileParts,
        nr::__NR_process_vm_readv | nr::__NR_process_vm_writev => Room::Copy,
        _ => Room::Host,
    }
}

/// Makes a call without a trap: without filters and without a context. Returns the kernel's result,
/// which [`finish`] takes if a signal waits; `None` if the call must trap.
pub fn make_direct(
    thread: &Thread,
    context: &mut Context,
    number: u32,
    args: [u64; 6],
) -> Option<i64> {
    let mut call = Call { thread, context, number, args };
    let made = thread.stops.in_call(number, || call.make());
    let Outcome::Raw(raw) = made else { return None };
    crate::memory::obey_requests();
    end_wait(thread, raw);
    raise_held(thread);
    let is_over = !matches!(raw, NOT_STARTED | RESTART) || thread.has_pending();
    is_over.then_some(raw)
}

/// Ends a call that was made without a trap, if a signal waits.
pub fn finish(thread: &Thread, context: &mut Context, number: u64, raw: i64) {
    end_call(thread, context, number, raw);
    raise_held(thread);
}

impl Call<'_> {
    fn make(&mut self) -> Outcome {
        if matches!(self.number, nr::__NR_select | nr::__NR_pselect6) {
            return self.select();
        }
        match self.hide_descriptors() {
            Hidden::None => self.make_by_room(),
            Hidden::Copied(copy) => {
                let made = self.make_by_room();
                copy.give_back(made)
            }
        }
    }

    fn make_by_room(&mut self) -> Outcome {
        match room_of(self.number) {
            Room::Signal => self.signal(),
            Room::MaskedWait => self.wait_with_mask(),
            Room::Thread => self.thread(),
            Room::Exec => self.exec(),
            Room::Seccomp => self.seccomp(),
            Room::Registers | Room::Limit => self.process(),
            Room::Descriptor | Room::Unshare => self.descriptor(),
            Room::Key => Outcome::Raw(self.allocate_key()),
            Room::Memory => self.memory(),
            Room::List => self.list(),
            Room::Trace => self.trace(),
            Room::File => self.access_file(),
            Room::FileParts => self.access_file_parts(),
            Room::Copy => self.copy_between(),
            Room::Host => self.pass(),
        }
    }
}
