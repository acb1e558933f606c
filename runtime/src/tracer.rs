//! A tracer of the tree sees a process as it would be without us.
//!
//! An access to an absent page raises `SIGBUS`, and a tracer is told of every signal. A managed tracer
//! passes this one on and does not show it to the program (`call::trace`): the tracee's runtime alone knows
//! which of its faults are the program's. Such a one the tracee raises again, marked, and the tracer shows
//! it. An unmanaged tracer is shown all of them, by the host.

use crate::files::read_start;
use crate::frame::{Context, Info};
use crate::memory;
use crate::process;
use crate::sys;
use crate::thread::Thread;
use core::ffi::CStr;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use pagefault_control::Slot;

/// The signal of an access to an absent page.
pub const FAULT: u32 = nr::SIGBUS;
/// `si_errno` of a fault that is the program's.
const MARK: i32 = 0x7066_7367;
/// `si_errno` of a signal that has been told of, and comes again for its default.
const TOLD: i32 = 0x7066_7474;
/// `SI_TKILL`.
const SENT_TO_THREAD: i32 = -6;

/// Whether the program has asked its parent to trace it.
static HAS_ASKED: AtomicBool = AtomicBool::new(false);

/// `TracerPid` of a status file: 0 where nobody traces.
const TRACER: &[u8] = b"TracerPid:";

/// Whether somebody traces this process's first thread, and so is to see the process as it is.
pub fn is_traced() -> bool {
    number_in(c"/proc/self/status", TRACER) != Some(0)
}

/// The process that traces the calling thread, if it is managed.
pub fn process_that_traces() -> Option<u32> {
    // The process's own file would tell who traces its first thread.
    let tracer = number_in(c"/proc/thread-self/status", TRACER).filter(|tracer| *tracer > 0);
    tracer.and_then(slot_of).map(|(process, _)| process)
}

/// Answers a program that asks its parent to trace it (`PTRACE_TRACEME`), for a parent that does not.
///
/// Programs ask to learn whether a debugger traces them, or to keep one away. Their parent is a shell, which does
/// not know of this. Under the kernel, the first signal stops them for ever; as a tracee of the host's, the
/// first system call would. So the host is not asked. A debugger's child asks before it executes a program.
pub fn answer_for_parent() -> sys::Result {
    if is_traced() || HAS_ASKED.swap(true, Relaxed) {
        return Err(sys::Errno::EPERM);
    }
    Ok(0)
}

/// Whether somebody traces the first thread of another process of this namespace.
pub fn is_process_traced(process: u32) -> bool {
    number_of(process, TRACER) != Some(0)
}

/// Whether the program is not to be shown a signal that a tracee of this process stopped with.
pub fn is_hidden(tracee: u32, info: &Info) -> bool {
    let is_fault = info.signal == FAULT as i32 && info.code > 0 && info.errno != MARK;
    is_fault && slot_of(tracee).is_some_and(|(_, slot)| !slot.is_passive())
}

/// Takes the mark off a fault that is shown to the program.
pub fn unmark(info: &mut Info) -> bool {
    let is_marked = info.signal == FAULT as i32 && info.errno == MARK;
    if is_marked {
        info.errno = 0;
    }
    is_marked
}

/// Marks a signal that a tracer has been told of.
pub fn mark_told(info: &mut Info) {
    info.errno = TOLD;
}

/// Whether a tracer has been told of a signal before.
pub fn is_told(info: &Info) -> bool {
    info.errno == TOLD
}

/// Has a managed tracer shown a fault that is the program's; whether there is one. The signal comes again
/// when the program is about to go on.
pub fn show(thread: &Thread, context: &mut Context, info: &Info) -> bool {
    if info.signal != FAULT as i32 || process::is_runtime(context.registers.rip) {
        return false;
    }
    // The host itself tells of the faults of a passive process.
    if memory::is_passive() || process_that_traces().is_none() {
        return false;
    }
    thread.shown.set(Some(*info));
    let mask = sys::exchange_mask(u64::MAX);
    let raised = raise(info);
    if raised.is_err() {
        thread.shown.set(None);
        sys::exchange_mask(mask);
    }
    raised.is_ok()
}

/// The fault that a signal shows, once its tracer has let it through.
pub fn shown(thread: &Thread, info: &Info) -> Option<Info> {
    let fault = thread.shown.take()?;
    let is_it = info.signal == FAULT as i32 && (info.errno == MARK || info.code == SENT_TO_THREAD);
    is_it.then_some(fault)
}

/// Raises a marked fault in the calling thread, which has blocked it.
fn raise(info: &Info) -> sys::Result {
    let mut marked = *info;
    marked.errno = MARK;
    let thread = [sys::process_id().into(), sys::thread_id().into(), info.signal as u64];
    let [process, number, signal] = thread;
    let args = [process, number, signal, (&raw const marked) as u64];
    // SAFETY: a signal to this thread; the information lives for the call.
    unsafe {
        // The host lets only a process's first thread say what the kernel says. A plain signal of another
        // one's is shown without the address.
        sys::call(nr::__NR_rt_tgsigqueueinfo, args).or_else(|_| sys::call(nr::__NR_tgkill, thread))
    }
}

/// A thread's process and its slot, if it is managed.
///
/// A program without a runtime keeps the slot of the process that executed it. In another process namespace than the
/// supervisor's, a number says nothing.
pub fn slot_of(thread: u32) -> Option<(u32, &'static Slot)> {
    let slots = &process::control()?.slots;
    if process::has_numbers_of_its_own() {
        return None;
    }
    let of_process = || {
        let process = number_of(thread, b"Tgid:")?;
        Some((process, slots.of(process)?))
    };
    let found = slots.of(thread).map(|slot| (thread, slot)).or_else(of_process);
    found.filter(|(_, slot)| !slot.is_unmanaged())
}

/// The number behind a name in the status of a thread.
fn number_of(thread: u32, name: &[u8]) -> Option<u32> {
    let mut path = [0; 32];
    number_in(crate::files::path(&mut path, format_args!("/proc/{thread}/status\0"))?, name)
}

/// The number behind a name in a file of the host's, of which the beginning is looked at.
fn number_in(path: &CStr, name: &[u8]) -> Option<u32> {
    let mut text = [0; 1024];
    let len = read_start(path, &mut text)?;
    number_behind(&text[..len], name)
}

fn number_behind(text: &[u8], name: &[u8]) -> Option<u32> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    core::str::from_utf8(line.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_behind_its_name() {
        let text = b"Name:\ta\nTgid:\t12\nTracerPid:\t0\nPid:\tx\n";
        assert_eq!(number_behind(text, b"Tgid:"), Some(12));
        assert_eq!(number_behind(text, TRACER), Some(0));
        assert_eq!(number_behind(text, b"Pid:"), None);
        assert_eq!(number_behind(text, b"NSpid:"), None);
    }

    #[test]
    fn a_mark_is_taken_off_a_fault_alone() {
        let [mut fault, mut other] = [FAULT, nr::SIGSEGV].map(|signal| Info::new(signal as i32, 2));
        (fault.errno, other.errno) = (MARK, MARK);
        assert!(unmark(&mut fault));
        assert_eq!(fault.errno, 0);
        assert!(!unmark(&mut fault));
        assert!(!unmark(&mut other));
    }
}
