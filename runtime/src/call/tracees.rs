//! Tracees whose tracer does not wait for them.
//!
//! A system call or a fault of a tracee stops it, and its tracer's runtime lets it go on in a wait ([`super::trace`]). A
//! tracer that reads from a pipe, sleeps, or waits for another child would leave it stopped. So a process that traces has
//! a timer of the host's, whose signal is a request like those of others for frames: it ends no call of the program's, and
//! is obeyed where the thread holds nothing. The thread then lets tracees go on that have stopped for their runtimes.
//!
//! The timer's signal is the process's, and comes to its first thread if that runs: a signal to a thread could
//! take the place of the `SIGSYS` of its own call. So tracees of other threads wait until those look.

use super::stop::Stop;
use crate::frame::{Info, WATCH_VALUE};
use crate::signal::Set;
use crate::{sys, tracer};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use pagefault_control::RECLAIM_SIGNAL;

/// The time between two looks, in nanoseconds: the shortest, while tracees stop, and the longest.
const SHORTEST: u64 = 1_000_000;
const LONGEST: u64 = 64_000_000;

/// The timer of a process that traces; none before it does. A child has none of its parent's.
static TIMER: AtomicU64 = AtomicU64::new(0);
/// The time until the next look.
static PAUSE: AtomicU64 = AtomicU64::new(SHORTEST);

/// A timer of the host's, and the process that has it.
#[derive(Clone, Copy)]
struct Timer {
    process: u32,
    number: u32,
}

impl Timer {
    /// The calling process's, which is made if necessary; `None` if the host refuses.
    fn get() -> Option<Self> {
        if let Some(known) = Self::known() {
            return Some(known);
        }
        let made = Self::make()?;
        TIMER.store(u64::from(made.process) << 32 | u64::from(made.number), Relaxed);
        Some(made)
    }

    /// The calling process's, if it has one.
    fn known() -> Option<Self> {
        let word = TIMER.load(Relaxed);
        let known = Self { process: (word >> 32) as u32, number: word as u32 };
        (known.process == sys::process_id()).then_some(known)
    }

    fn make() -> Option<Self> {
        /// `SIGEV_SIGNAL`: to the process.
        const TO_PROCESS: u64 = 0;
        // `struct sigevent`: the value, the signal, the manner, and what only other manners need.
        let mut event = [0_u64; 8];
        event[..2].copy_from_slice(&[WATCH_VALUE, RECLAIM_SIGNAL as u64 | TO_PROCESS << 32]);
        let mut number = 0_u32;
        let places = [(&raw const event) as u64, (&raw mut number) as u64];
        let args = [nr::CLOCK_MONOTONIC.into(), places[0], places[1]];
        // SAFETY: the structure and the place for the answer are ours, and the runtime handles the signal.
        unsafe { sys::call(nr::__NR_timer_create, args) }.ok()?;
        Some(Self { process: sys::process_id(), number })
    }

    /// Has it signal once after a time; 0 for not at all.
    fn set(self, time: u64) {
        let once = [0, 0, 0, time];
        // SAFETY: the structure is ours.
        let _ = unsafe {
            sys::call(nr::__NR_timer_settime, [self.number.into(), 0, once.as_ptr() as u64, 0])
        };
    }
}

/// Begins to look after tracees, in a process that traces.
pub fn watch() {
    PAUSE.store(SHORTEST, Relaxed);
    if let Some(timer) = Timer::get() {
        timer.set(SHORTEST);
    }
}

/// No look until this is dropped.
pub struct Rest(());

/// Stops the timer for an exec: its signal would end the new program, which has no handler at first.
pub fn rest() -> Option<Rest> {
    Timer::known()?.set(0);
    let (requests, now) = (Set::of(RECLAIM_SIGNAL).0, [0_u64; 2]);
    let args = [(&raw const requests) as u64, 0, now.as_ptr() as u64, size_of::<Set>() as u64];
    // One may be on its way to another thread.
    // SAFETY: the set and the time are ours.
    while unsafe { sys::call(nr::__NR_rt_sigtimedwait, args) }.is_ok() {}
    Some(Rest(()))
}

impl Drop for Rest {
    fn drop(&mut self) {
        watch();
    }
}

/// Has the tracer of the calling thread, which has just become a tracee, look after it.
pub fn tell_tracer() {
    let Some(process) = tracer::process_that_traces() else { return };
    let mut info = Info::new(RECLAIM_SIGNAL, Info::QUEUED);
    info.fields[1] = WATCH_VALUE;
    let args = [process.into(), info.signal as u64, (&raw const info) as u64];
    // SAFETY: a signal to a managed process, whose runtime handles it. One that has ended needs none.
    let _ = unsafe { sys::call(nr::__NR_rt_sigqueueinfo, args) };
}

/// Lets tracees of the calling thread go on that have stopped for their runtimes. The caller holds no lock.
pub fn look() {
    let Some(timer) = Timer::get() else { return };
    let pause = match resume_stopped() {
        Found::Stopped => SHORTEST,
        Found::Nothing => (2 * PAUSE.load(Relaxed)).min(LONGEST),
        // Perhaps another thread traces.
        Found::NoChild if has_children() => LONGEST,
        Found::NoChild => return,
    };
    PAUSE.store(pause, Relaxed);
    timer.set(pause);
}

/// What a look has found.
enum Found {
    /// A tracee that had stopped for its runtime.
    Stopped,
    Nothing,
    /// The thread has no child or tracee.
    NoChild,
}

fn resume_stopped() -> Found {
    let mut found = Found::Nothing;
    loop {
        match report(nr::__WNOTHREAD) {
            Ok(Some(stop)) if stop.is_for_runtime() => {
                stop.take();
                stop.go_on();
                found = Found::Stopped;
            }
            // The program's own stop comes before those of other tracees until it is waited for.
            Ok(_) => return found,
            Err(_) => return Found::NoChild,
        }
    }
}

/// Whether any thread of the process has a child or a tracee.
fn has_children() -> bool {
    report(0).is_ok()
}

/// The stop that a wait with a further option would report. The report stays.
fn report(option: u32) -> sys::Result<Option<Stop>> {
    /// `P_ALL`.
    const ALL: u64 = 0;
    /// `CLD_TRAPPED`.
    const TRAPPED: i32 = 4;
    let mut info = Info::new(0, 0);
    let options = nr::WSTOPPED | nr::WNOWAIT | nr::WNOHANG | nr::__WALL | option;
    let args = [ALL, 0, (&raw mut info) as u64, options.into(), 0];
    // SAFETY: the place for the answer is ours.
    unsafe { sys::call(nr::__NR_waitid, args) }?;
    let stop = || Stop::new(info.fields[0] as u32, info.fields[1] as u32);
    Ok((info.signal != 0 && info.code == TRAPPED).then(stop))
}
