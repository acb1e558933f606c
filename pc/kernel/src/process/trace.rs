//! Who traces whom (`ptrace`): a traced process stops at each signal, and its tracer, who learns of
//! it by waiting, says with which signal it goes on.

use super::wait::Keep;
use super::{Process, current, find, notify};
use crate::errno::Errno;
use crate::lock::Mutex;
use crate::scheduler::{self, Patience};
use crate::signal::{self, Info};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

const CLD_TRAPPED: i32 = 4;

/// A process as one that may be traced.
#[derive(Default)]
pub struct Trace {
    /// The number of the process that traces it; 0 for none.
    tracer: AtomicU32,
    stop: Mutex<Option<Stop>>,
    /// Counts how often it was let go on.
    turns: AtomicU32,
    /// The signal that it goes on with, 0 for none.
    resumes_with: AtomicU32,
}

/// Why a traced process stands still.
#[derive(Clone, Copy, Debug)]
struct Stop {
    signal: u32,
    is_told: bool,
}

impl Process {
    /// Whether another process traces it.
    pub fn is_traced(&self) -> bool {
        self.trace.tracer.load(Ordering::Acquire) != 0
    }

    pub(super) fn is_traced_by(&self, tracer: &Self) -> bool {
        self.trace.tracer.load(Ordering::Acquire) == tracer.id
    }

    /// The signal of a stop that its tracer has not been told of yet.
    pub(super) fn untold_stop(&self, tracer: &Self, keep: Keep) -> Option<u32> {
        if !self.is_traced_by(tracer) {
            return None;
        }
        let mut stop = self.trace.stop.lock();
        let stop = stop.as_mut().filter(|stop| !stop.is_told)?;
        stop.is_told = keep == Keep::No;
        Some(stop.signal)
    }

    /// Lets a process be traced.
    fn begin_trace(&self, tracer: u32) -> Result<(), Errno> {
        let order = Ordering::AcqRel;
        let begun = self.trace.tracer.compare_exchange(0, tracer, order, Ordering::Acquire);
        begun.map(|_| ()).map_err(|_| Errno::EPERM)
    }

    fn resume(&self, signal: u32) {
        self.trace.resumes_with.store(signal, Ordering::Release);
        *self.trace.stop.lock() = None;
        self.trace.turns.fetch_add(1, Ordering::AcqRel);
        scheduler::wake(&self.trace.turns);
    }
}

/// Stands still at a signal if the running process is traced; returns the signal to go on with, 0 for
/// none.
pub fn stop_at(number: u32) -> u32 {
    let process = current();
    let trace = &process.trace;
    let Some(tracer) = find(trace.tracer.load(Ordering::Acquire)) else { return number };
    let turn = trace.turns.load(Ordering::Acquire);
    *trace.stop.lock() = Some(Stop { signal: number, is_told: false });
    let (address, status) = (process.id.into(), number.into());
    signal::send_with(
        &tracer,
        Info { number: signal::SIGCHLD, code: CLD_TRAPPED, address, status },
    );
    notify(&tracer);
    while trace.turns.load(Ordering::Acquire) == turn && !process.ends_this_thread() {
        scheduler::wait_until(&trace.turns, turn, u64::MAX, Patience::Death);
    }
    trace.resumes_with.swap(0, Ordering::AcqRel)
}

/// Lets the running process's parent trace it (`PTRACE_TRACEME`).
pub fn trace_me() -> Result<(), Errno> {
    let process = current();
    process.begin_trace(process.parent_id())
}

/// Traces a process, which stops (`PTRACE_ATTACH`).
pub fn attach(process: &Arc<Process>) -> Result<(), Errno> {
    if process.id == current().id {
        return Err(Errno::EPERM);
    }
    process.begin_trace(current().id)?;
    signal::send(process, signal::SIGSTOP);
    Ok(())
}

/// A process that the running one traces and that stands still.
pub fn stopped(id: u32) -> Result<Arc<Process>, Errno> {
    let process = find(id).ok_or(Errno::ESRCH)?;
    let is_ours = process.is_traced_by(current()) && process.trace.stop.lock().is_some();
    if is_ours { Ok(process) } else { Err(Errno::ESRCH) }
}

/// What becomes of the tracing when a process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traced {
    /// It stops again at its next signal.
    Still,
    /// It is its own.
    NoMore,
}

/// Lets a stopped process go on with a signal, or with none.
pub fn go_on(process: &Process, signal: u32, traced: Traced) {
    if traced == Traced::NoMore {
        process.trace.tracer.store(0, Ordering::Release);
    }
    process.resume(signal);
}

/// Lets go of everything that a process which has ended traced.
pub(super) fn tracer_has_ended(tracer: &Process) {
    for process in super::all() {
        if process.is_traced_by(tracer) {
            go_on(&process, 0, Traced::NoMore);
        }
    }
}
