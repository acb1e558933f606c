//! Tracees whose tracer does not wait for them.
//!
//! A system call or a fault of a tracee stops it, and its tracer's runtime lets it go on in a wait ([`super::trace`]). A
//! tracer that does not wait, because it reads from a pipe, say, would leave it stopped. The kernel tells the tracer
//! of each stop by `SIGCHLD`. So a process that traces handles this signal, whatever the program does with it: the handler
//! lets such tracees go on, and the program is told only of their own stops.

use super::stop::Stop;
use super::trace::RUNTIME_S;
use crate::entry;
use crate::frame::{Info, Registers};
use crate::signal::{self, Set, action::Action};
use crate::sys;
use crate::thread::Thread;
use crate::tracer;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use linux_raw_sys::ptrace;

/// The signal by which the kernel tells of a child's stop or end.
pub const CHILD: u32 = nr::SIGCHLD;
/// `CLD_TRAPPED`: a tracee has stopped.
const TRAPPED: i32 = 4;
/// `P_ALL` and `P_PID`.
const ALL: u64 = 0;
const ONE: u64 = 1;

/// Whether this process has traced, or its parent before the fork.
static TRACES: AtomicBool = AtomicBool::new(false);

/// Whether the runtime handles `SIGCHLD`.
pub fn are_watched() -> bool {
    TRACES.load(Relaxed)
}

/// Begins to handle `SIGCHLD`, in a process that traces. The caller may have interrupted anything.
pub fn watch() {
    TRACES.store(true, Relaxed);
    signal::watch_children();
}

/// Has the tracer of this thread watch it.
pub fn tell_tracer() {
    if let Some((process, thread)) = tracer::of_this_thread() {
        signal::ask_to_watch(process, thread);
    }
}

/// Another thread wants to be watched: one that has become a tracee of the calling thread.
pub fn begin(thread: &Thread, registers: &Registers) {
    watch();
    look_or_note(thread, registers);
}

/// Lets tracees go on that have stopped for their runtimes, or notes that a wait of the interrupted thread is to.
fn look_or_note(thread: &Thread, registers: &Registers) {
    if is_free(thread, registers) {
        resume_stopped();
    } else {
        thread.tracees.is_asked.set(true);
    }
}

/// Whether the interrupted code does not itself deal with a stop.
fn is_free(thread: &Thread, registers: &Registers) -> bool {
    !thread.tracees.are_awaited.get() || entry::is_in_unended_call(registers)
}

/// What a thread's waits and the handler of `SIGCHLD` tell each other.
#[derive(Default)]
pub struct Awaited {
    /// Whether the thread deals with a stop in a wait.
    are_awaited: core::cell::Cell<bool>,
    /// Whether the handler has left tracees to it.
    is_asked: core::cell::Cell<bool>,
}

impl Awaited {
    /// Makes a wait of the program's.
    pub fn during<R>(&self, wait: impl FnOnce() -> R) -> R {
        self.are_awaited.set(true);
        let result = wait();
        self.are_awaited.set(false);
        if self.is_asked.replace(false) {
            resume_stopped();
        }
        result
    }
}

/// Handles a `SIGCHLD` in a process that traces; returns what the program is to be told, if anything.
pub fn on_signal(
    thread: &Thread,
    info: &Info,
    action: &Action,
    registers: &Registers,
) -> Option<Info> {
    let is_told = |info: &Info| action.is_handled() && !is_left_out(info, action);
    if !is_for_runtime(thread, info, registers) {
        return is_told(info).then_some(*info);
    }
    // The kernel keeps one `SIGCHLD`: this one may stand for another child's as well. What its own child did since
    // makes one of its own.
    let is_other = |next: &Info| {
        let is_runtime_s = Stop::of_report(next).is_some_and(|stop| stop.is_for_runtime());
        child(next) != child(info) && is_told(next) && !is_runtime_s
    };
    let other = report(ALL, 0, nr::WEXITED | nr::WSTOPPED).filter(is_other);
    other.filter(|_| !is_one_pending())
}

/// The child that a `SIGCHLD` or a wait tells of.
fn child(info: &Info) -> u32 {
    info.fields[0] as u32
}

/// Whether another `SIGCHLD` waits, in its handler.
fn is_one_pending() -> bool {
    let mut pending = Set::EMPTY;
    let args = [(&raw mut pending) as u64, size_of::<Set>() as u64];
    // SAFETY: the place for the answer is ours.
    let _ = unsafe { sys::call(nr::__NR_rt_sigpending, args) };
    pending.contains(CHILD as i32)
}

/// Whether the program wants to hear of ends alone (`SA_NOCLDSTOP`).
fn is_left_out(info: &Info, action: &Action) -> bool {
    action.has(nr::SA_NOCLDSTOP) && info.code >= TRAPPED
}

/// Whether a tracee has stopped for its runtime; lets it go on.
fn is_for_runtime(thread: &Thread, info: &Info, registers: &Registers) -> bool {
    let Some(told) = Stop::of_report(info) else { return false };
    let may_be = RUNTIME_S.contains(&told.signal);
    if !is_free(thread, registers) {
        thread.tracees.is_asked.set(true);
        return may_be && (told.is_for_runtime() || !told.is_stopped());
    }
    match report(ONE, told.tracee.into(), nr::WSTOPPED).as_ref().and_then(Stop::of_report) {
        Some(stop) if stop.is_for_runtime() => {
            stop.resume();
            resume_stopped();
            true
        }
        Some(_) => false,
        // A wait has dealt with it, or is about to.
        None => may_be && (told.is_for_runtime() || !told.is_stopped()),
    }
}

/// Lets the tracees of this thread go on that have stopped for their runtimes.
fn resume_stopped() {
    while let Some(stop) = report(ALL, 0, nr::WSTOPPED).as_ref().and_then(Stop::of_report) {
        if !stop.is_for_runtime() {
            return;
        }
        stop.resume();
    }
}

/// What a wait of this thread would report. The report stays.
fn report(kind: u64, process: u64, events: u32) -> Option<Info> {
    let mut info = Info::new(0, 0);
    let options = events | nr::WNOWAIT | nr::WNOHANG | nr::__WALL | nr::__WNOTHREAD;
    let args = [kind, process, (&raw mut info) as u64, options.into(), 0];
    // SAFETY: the place for the answer is ours.
    unsafe { sys::call(nr::__NR_waitid, args) }.ok()?;
    (info.signal != 0).then_some(info)
}

impl Stop {
    /// The stop of a tracee that a `SIGCHLD` or a wait tells of.
    fn of_report(info: &Info) -> Option<Self> {
        (info.code == TRAPPED).then(|| Self::new(child(info), info.fields[1] as u32))
    }

    /// Whether the tracee is still stopped.
    fn is_stopped(&self) -> bool {
        let mut info = Info::new(0, 0);
        let args = self.request(ptrace::PTRACE_GETSIGINFO, (&raw mut info) as u64);
        // SAFETY: the place for the answer is ours.
        !matches!(unsafe { sys::call(nr::__NR_ptrace, args) }, Err(sys::Errno::ESRCH))
    }

    /// Takes its report and lets it go on.
    fn resume(&self) {
        self.take();
        self.go_on();
    }
}
