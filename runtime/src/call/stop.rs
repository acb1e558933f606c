//! A tracee that stopped in its memory manager leaves it before its tracer is told ([`crate::stops`]).
//!
//! The tracer's runtime writes the signal into the tracee's block, and lets it go on. The tracee raises the signal as it
//! leaves the manager, and stops with it.

use super::seen::Seen;
use crate::frame::Info;
use crate::process;
use crate::stops::{MARK, Stops};
use crate::sys;
use crate::thread::{BLOCK, Thread};
use core::mem::offset_of;
use linux_raw_sys::general as nr;
use linux_raw_sys::ptrace;

/// How long a tracee may take to leave its manager, in nanoseconds: another stopped thread may hold what it waits for.
const PATIENCE: u64 = 500_000_000;
/// How long between two looks.
const PAUSE: u64 = 20_000;
/// `PTRACE_EVENT_STOP`: what `PTRACE_INTERRUPT` makes.
const EVENT_STOP: u32 = 128;
const WORD: u64 = 8;
/// The last signal.
const LAST: u32 = 64;

/// A tracee of the program's that has stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    pub(super) tracee: u32,
    pub(super) signal: u32,
    /// The event of ptrace's that stopped it; 0 for a signal.
    pub(super) event: u32,
}

/// A tracee after [`Stop::settle`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// As it was reported.
    Stopped,
    /// It runs, has ended, or has stopped otherwise: the next wait tells.
    Changed,
}

impl Stop {
    /// From what a wait reports: the signal, and the event above it.
    pub fn new(tracee: u32, status: u32) -> Self {
        Self { tracee, signal: status & 0xff, event: status >> 8 }
    }

    /// Has the tracee leave its manager, if it is in there, and stop as before.
    pub fn settle(self) -> Settled {
        match self.in_manager() {
            Some(stops) => self.leave(stops),
            None => Settled::Stopped,
        }
    }

    /// Where the [`Stops`] of a thread are that holds the manager's lock and can stop once more.
    fn in_manager(self) -> Option<u64> {
        let is_interrupted = self.event == EVENT_STOP && self.signal == nr::SIGTRAP;
        let is_signalled = self.event == 0 && self.signal <= LAST && self.signal != nr::SIGTRAP;
        if !is_interrupted && !is_signalled {
            return None;
        }
        let mut seen = Seen::default();
        self.ask(ptrace::PTRACE_GETREGS, 0, (&raw mut seen) as u64)?;
        let block = seen.stack() & !(BLOCK as u64 - 1);
        let stops = block + offset_of!(Thread, stops) as u64;
        let is_block = self.peek(stops)? == MARK;
        let held = self.peek(stops + offset_of!(Stops, held) as u64)?;
        (is_block && held != 0).then_some(stops)
    }

    fn leave(self, stops: u64) -> Settled {
        let mut info = Info::new(self.signal as i32, 0);
        // Another stop than a signal's has none.
        let told = self.ask(ptrace::PTRACE_GETSIGINFO, 0, (&raw mut info) as u64);
        let raised = if self.event == 0 { self.signal } else { nr::SIGSTOP };
        let signal = stops + offset_of!(Stops, signal) as u64;
        let at = stops + offset_of!(Stops, info) as u64;
        // SAFETY: the structure is of whole words.
        let words: [u64; size_of::<Info>() / 8] = unsafe { core::mem::transmute(info) };
        let places = (at..).step_by(WORD as usize);
        let is_written = places.zip(words).all(|(at, word)| self.poke(at, word).is_some())
            && self.poke(signal, u64::from(self.tracee) << 32 | u64::from(raised)).is_some();
        if !is_written || self.ask(ptrace::PTRACE_CONT, 0, 0).is_none() {
            return Settled::Stopped;
        }
        let stopped = match self.next_stop(raised) {
            Next::Stopped => true,
            Next::Other => return Settled::Changed,
            // It waits for what another stopped thread holds, and stops where it is.
            Next::Nothing => {
                self.stop_here();
                self.next_stop(nr::SIGSTOP) == Next::Stopped
            }
        };
        if !stopped {
            return Settled::Changed;
        }
        self.poke(signal, 0);
        match (self.event, told) {
            (0, Some(())) => drop(self.ask(ptrace::PTRACE_SETSIGINFO, 0, (&raw const info) as u64)),
            (0, None) => {}
            _ => self.interrupt(),
        }
        Settled::Stopped
    }

    /// Waits until the tracee stops with a signal, and takes the report of that.
    fn next_stop(self, signal: u32) -> Next {
        let begin = process::now();
        while process::now() - begin < PATIENCE {
            match self.report(nr::WNOWAIT | nr::WNOHANG) {
                Some(stop) if stop == (Self { signal, event: 0, ..self }) => {
                    self.report(0);
                    return Next::Stopped;
                }
                Some(_) => return Next::Other,
                None => sys::sleep(PAUSE),
            }
        }
        Next::Nothing
    }

    /// What a wait for the tracee reports: 0 as the signal of one that has ended.
    fn report(self, options: u32) -> Option<Self> {
        /// `P_PID`.
        const PROCESS: u64 = 1;
        /// `CLD_TRAPPED`.
        const TRAPPED: u32 = 4;
        // The signal, an error, a code, padding, the process, the user, the status, and more.
        let mut info = [0_u32; 32];
        let options = nr::WEXITED | nr::WSTOPPED | nr::__WALL | options;
        let args = [PROCESS, self.tracee.into(), (&raw mut info) as u64, options.into(), 0];
        // SAFETY: the place for the answer is ours.
        unsafe { sys::call(nr::__NR_waitid, args) }.ok()?;
        let [_, _, code, _, process, _, status, ..] = info;
        let status = if code == TRAPPED { status } else { 0 };
        (process != 0).then(|| Self::new(self.tracee, status))
    }

    /// Stops the tracee where it is.
    fn stop_here(self) {
        // A thread's number is enough for the host to find it, but not for `tgkill`.
        // SAFETY: a stop of a tracee, which only its tracer sees.
        let _ = unsafe { sys::call(nr::__NR_tkill, [self.tracee.into(), nr::SIGSTOP.into()]) };
    }

    /// Stops it as `PTRACE_INTERRUPT` does, instead of with the signal that it stopped with.
    fn interrupt(self) {
        self.ask(ptrace::PTRACE_INTERRUPT, 0, 0);
        self.ask(ptrace::PTRACE_CONT, 0, 0);
        let begin = process::now();
        while self.report(nr::WNOHANG).is_none() && process::now() - begin < PATIENCE {
            sys::sleep(PAUSE);
        }
    }

    fn peek(self, address: u64) -> Option<u64> {
        let mut word = 0_u64;
        self.ask(ptrace::PTRACE_PEEKDATA, address, (&raw mut word) as u64).map(|()| word)
    }

    fn poke(self, address: u64, word: u64) -> Option<()> {
        self.ask(ptrace::PTRACE_POKEDATA, address, word)
    }

    /// Makes a request; `None` if the host refuses it.
    fn ask(self, request: u32, address: u64, data: u64) -> Option<()> {
        let args = [request.into(), self.tracee.into(), address, data];
        // SAFETY: the places for answers are ours, and only the tracee changes.
        unsafe { sys::call(nr::__NR_ptrace, args) }.ok().map(drop)
    }
}

/// How a tracee went on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It has stopped with the signal.
    Stopped,
    /// It has ended, or stopped with another one.
    Other,
    /// It has not stopped.
    Nothing,
}
