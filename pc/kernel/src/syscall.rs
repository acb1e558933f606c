//! System calls: what programs ask of the kernel, a module for each subject.

mod file;
mod identity;
mod info;
mod memory;
mod path;
mod poll;
mod process;
mod ptrace;
mod signals;
mod socket;
mod time;

use crate::entry::TrapFrame;
use crate::errno::Errno;
use crate::lock::Mutex;
use crate::{report, signal};
use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicU8, Ordering};
use linux_raw_sys::general as nr;

/// The calls that are not answered, by number, and how often they were made.
static UNKNOWN: Mutex<BTreeMap<u32, u64>> = Mutex::new(BTreeMap::new());

/// Whether a call makes something that takes memory of the kernel's for as long as it is there: a
/// region, a path, an open file. A loop of them would use the kernel's reserve up.
const fn keeps_memory(number: u32) -> bool {
    matches!(
        number,
        nr::__NR_mmap
            | nr::__NR_mprotect
            | nr::__NR_mremap
            | nr::__NR_brk
            | nr::__NR_madvise
            | nr::__NR_mlock
            | nr::__NR_mlock2
            | nr::__NR_mlockall
            | nr::__NR_munlock
            | nr::__NR_remap_file_pages
            | nr::__NR_shmget
            | nr::__NR_shmat
            | nr::__NR_open
            | nr::__NR_openat
            | nr::__NR_creat
            | nr::__NR_mkdir
            | nr::__NR_mkdirat
            | nr::__NR_mknod
            | nr::__NR_mknodat
            | nr::__NR_symlink
            | nr::__NR_symlinkat
            | nr::__NR_link
            | nr::__NR_linkat
            | nr::__NR_rename
            | nr::__NR_renameat
            | nr::__NR_renameat2
            | nr::__NR_dup
            | nr::__NR_dup2
            | nr::__NR_dup3
            | nr::__NR_pipe
            | nr::__NR_pipe2
            | nr::__NR_socketpair
            | nr::__NR_eventfd
            | nr::__NR_eventfd2
            | nr::__NR_timerfd_create
            | nr::__NR_timer_create
            | nr::__NR_epoll_create
            | nr::__NR_epoll_create1
            | nr::__NR_epoll_ctl
            | nr::__NR_memfd_create
            | nr::__NR_flock
    )
}

/// What a call returns.
type Result = core::result::Result<u64, Errno>;

/// The arguments of a call.
#[derive(Clone, Copy, Debug)]
struct Arguments {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    e: u64,
    f: u64,
}

/// Answers a system call.
#[inline]
pub fn call(frame: &mut TrapFrame) {
    let arguments = Arguments {
        a: frame.rdi,
        b: frame.rsi,
        c: frame.rdx,
        d: frame.r10,
        e: frame.r8,
        f: frame.r9,
    };
    let number = frame.error as u32;
    // What needs much looks for it itself; what gives back what it takes has the kernel's reserve.
    let has_room = crate::process::make_room(crate::process::CALL);
    let result = match number {
        _ if !has_room && keeps_memory(number) => Err(Errno::ENOMEM),
        nr::__NR_rt_sigreturn => signal::leave(frame),
        nr::__NR_sigaltstack => signal::altstack::set(frame.rsp, arguments.a, arguments.b),
        nr::__NR_execve => process::execve(frame, arguments),
        nr::__NR_clone | nr::__NR_fork | nr::__NR_vfork | nr::__NR_clone3 => {
            process::clone(frame, number, arguments)
        }
        _ => dispatch(number, arguments),
    };
    frame.rax = match result {
        Ok(value) => value,
        Err(Errno(number)) => u64::from(number).wrapping_neg(),
    };
    if result == Err(Errno::EINTR) {
        // It is 0 whenever the program runs.
        crate::process::thread().interrupted.store(number + 1, Ordering::Relaxed);
    }
}

/// The modules, each of which answers some calls.
const SUBJECTS: [fn(u32, Arguments) -> Option<Result>; 11] = [
    memory::call,
    file::call,
    time::call,
    process::call,
    signals::call,
    path::call,
    poll::call,
    socket::call,
    info::call,
    identity::call,
    ptrace::call,
];

/// For each number of a call, which of [`SUBJECTS`] answered it; the first until one did.
static ANSWERED_BY: [AtomicU8; 512] = [const { AtomicU8::new(0) }; 512];

/// Lets the module answer whose call it is.
fn dispatch(number: u32, arguments: Arguments) -> Result {
    let subject = ANSWERED_BY.get(number as usize).map_or(0, |by| by.load(Ordering::Relaxed));
    match SUBJECTS[usize::from(subject)](number, arguments) {
        Some(result) => result,
        None => search(number, arguments),
    }
}

/// Finds the module whose call it is, and remembers it.
#[cold]
fn search(number: u32, arguments: Arguments) -> Result {
    for (subject, call) in (0..).zip(SUBJECTS) {
        if let Some(result) = call(number, arguments) {
            if let Some(by) = ANSWERED_BY.get(number as usize) {
                by.store(subject, Ordering::Relaxed);
            }
            return result;
        }
    }
    unknown(number)
}

/// Whether a call that a handler interrupted is made again where `SA_RESTART` asks for it; those
/// that wait for a time or for a signal are not.
pub const fn restarts_after_handler(number: u32) -> bool {
    !matches!(
        number,
        nr::__NR_nanosleep
            | nr::__NR_clock_nanosleep
            | nr::__NR_pause
            | nr::__NR_rt_sigsuspend
            | nr::__NR_poll
            | nr::__NR_ppoll
            | nr::__NR_select
            | nr::__NR_pselect6
            | nr::__NR_epoll_wait
            | nr::__NR_epoll_pwait
            | nr::__NR_epoll_pwait2
            | nr::__NR_rt_sigtimedwait
    )
}

fn unknown(number: u32) -> Result {
    *UNKNOWN.lock().entry(number).or_default() += 1;
    Err(Errno::ENOSYS)
}

/// Reports the calls that were not answered.
pub fn report_unknown() {
    for (number, count) in UNKNOWN.lock().iter() {
        report!("counter unknown_call_{number} {count}");
    }
}
