//! A tracee that stopped in its memory manager leaves it before its tracer is told ([`crate::stops`]).
//!
//! The tracer's runtime writes the signal into the tracee's block, and lets it go on. The tracee raises the signal as it
//! leaves the manager, and stops with it.

use super::listing;
use super::seen::Seen;
use crate::frame::Info;
use crate::memory::dump::SIGNALS;
use crate::stops::{MARK, ROOM, Raise, Request, Stops};
use crate::thread::{BLOCK, Thread};
use crate::{files, process, sys, tracer};
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use linux_raw_sys::ptrace;

/// How long a tracee may take to leave its manager, in nanoseconds: it may have to make room.
const PATIENCE: u64 = 1_000_000_000;
/// How long until others that have stopped are asked to leave as well.
const SHORT: u64 = 2_000_000;
/// How long between two looks.
const PAUSE: u64 = 20_000;
/// `PTRACE_EVENT_STOP`: what `PTRACE_INTERRUPT` makes.
const EVENT_STOP: u32 = 128;
/// Whether a tracee may have stopped in its manager for good.
static INSIDE: AtomicBool = AtomicBool::new(false);
const WORD: u64 = 8;
const INFO_WORDS: usize = size_of::<Info>() / WORD as usize;
/// The last signal.
const LAST: u32 = 64;
/// The last signal that waits once, however often it was sent.
const LAST_THAT_MERGES: u32 = 31;

/// What `PTRACE_O_TRACESYSGOOD` adds to the signal of a call's stop.
pub(super) const OF_CALL: u32 = 0x80;

/// What the host tells for the number of a call at the end of `rt_sigreturn`.
const RETURNED: u32 = u32::MAX;

/// Whether the runtime makes a call of the host's as the one that the program asks for.
fn is_made_for(made: u32, asked: u64) -> bool {
    let makes_process = |number| {
        matches!(number, nr::__NR_clone | nr::__NR_clone3 | nr::__NR_fork | nr::__NR_vfork)
    };
    // While it asks for none, no call is the program's.
    let Ok(asked) = u32::try_from(asked) else { return false };
    // The host itself makes a call again by another number.
    made == asked || makes_process(made) && makes_process(asked) || made == nr::__NR_restart_syscall
}

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
        let settled = match self.begin_to_leave() {
            Some(leaving) => leaving.settle(),
            None => self.restore_late(),
        };
        if INSIDE.load(Relaxed) && settled == Settled::Stopped {
            // What one of them waited for is free now, perhaps.
            INSIDE.store(false, Relaxed);
            self.push_others_out();
        }
        settled
    }

    /// Has other threads of the process that have stopped in the manager leave it.
    fn push_others_out(self) {
        let others: Vec<_> = self.others().filter_map(Self::begin_to_leave).collect();
        for other in &others {
            if other.finish(SHORT) == Next::Nothing {
                other.stop_inside();
            }
        }
    }

    /// The other threads of the process that have stopped.
    fn others(self) -> impl Iterator<Item = Self> {
        let mut path = [0; 32];
        let path = files::path(&mut path, format_args!("/proc/{}/task\0", self.tracee));
        let threads = path.map_or_else(Vec::new, listing::numbers_in);
        let others = threads.into_iter().filter(move |thread| *thread != self.tracee);
        others.filter_map(Self::of)
    }

    /// How a tracee has stopped; `None` if it has not.
    fn of(tracee: u32) -> Option<Self> {
        let mut info = Info::new(0, 0);
        let stop = Self { tracee, signal: 0, event: 0 };
        stop.ask(ptrace::PTRACE_GETSIGINFO, 0, (&raw mut info) as u64)?;
        let is_event = info.signal as u32 == nr::SIGTRAP && info.code & 0x7f == info.signal;
        let event = if is_event { info.code as u32 >> 8 } else { 0 };
        Some(Self { signal: info.signal as u32, event, ..stop })
    }

    /// Where the [`Stops`] of a thread are that can stop once more: it stands on its block, or `gs` leads there.
    fn stops(self) -> Option<u64> {
        let is_interrupted = self.event == EVENT_STOP && self.signal == nr::SIGTRAP;
        let is_signalled = self.event == 0 && self.signal <= LAST && self.signal != nr::SIGTRAP;
        if !is_interrupted && !is_signalled {
            return None;
        }
        self.stops_of(&self.registers()?)
    }

    fn registers(self) -> Option<Seen> {
        let mut seen = Seen::default();
        self.ask(ptrace::PTRACE_GETREGS, 0, (&raw mut seen) as u64)?;
        Some(seen)
    }

    /// The [`Stops`] of a thread with these registers.
    fn stops_of(self, seen: &Seen) -> Option<u64> {
        let stops = |at: u64| (at & !(BLOCK as u64 - 1)) + offset_of!(Thread, stops) as u64;
        [seen.stack(), seen.thread()].map(stops).into_iter().find(|at| self.peek(*at) == Some(MARK))
    }

    /// Whether the tracee enters or leaves a call that its runtime makes for itself (`PTRACE_SYSCALL`).
    pub(super) fn is_call_of_runtime(self) -> bool {
        if self.event != 0 || self.signal & !OF_CALL != nr::SIGTRAP {
            return false;
        }
        let mut info = Info::new(0, 0);
        let told = self.ask(ptrace::PTRACE_GETSIGINFO, 0, (&raw mut info) as u64);
        let is_call = info.code as u32 & !OF_CALL == nr::SIGTRAP;
        let Some(seen) = told.filter(|()| is_call).and_then(|()| self.registers()) else {
            return false;
        };
        // The runtime alone returns from handlers. At the end of that call the registers are those of before.
        if seen.call() == RETURNED {
            return tracer::slot_of(self.tracee).is_some();
        }
        let asked = |stops| self.peek(stops + offset_of!(Stops, asked) as u64);
        let asked = self.stops_of(&seen).and_then(asked);
        asked.is_some_and(|asked| !is_made_for(seen.call(), asked))
    }

    /// Whether the tracee ends by a signal of which its tracer has been told: the runtime handled it, and now its default
    /// follows.
    pub(super) fn is_told(self) -> bool {
        if self.event != 0 || !SIGNALS.contains(&self.signal) {
            return false;
        }
        let mut info = Info::new(0, 0);
        let known = self.ask(ptrace::PTRACE_GETSIGINFO, 0, (&raw mut info) as u64);
        if known.is_some() && tracer::is_told(&info) {
            return true;
        }
        // Only a process's first thread may say what the kernel says.
        let stops = self.registers().and_then(|seen| self.stops_of(&seen));
        let ends = stops.and_then(|stops| self.peek(stops + offset_of!(Stops, ends) as u64));
        ends == Some(self.signal.into())
    }

    /// Makes a stop that a tracee made on its way out, later than its tracer waited, the one that it was.
    fn restore_late(self) -> Settled {
        let Some((at, raised)) = self.take_raised() else { return Settled::Stopped };
        if raised.event != 0 {
            self.ask(ptrace::PTRACE_INTERRUPT, 0, 0);
            self.ask(ptrace::PTRACE_CONT, 0, 0);
            return Settled::Changed;
        }
        let mut words = [0; INFO_WORDS];
        let mut places = words.iter_mut().zip((at.info()..).step_by(WORD as usize));
        if places.all(|(word, at)| self.peek(at).map(|found| *word = found).is_some()) {
            self.ask(ptrace::PTRACE_SETSIGINFO, 0, words.as_ptr() as u64);
        }
        Settled::Stopped
    }

    /// The request for the signal that stopped the tracee, if it raised that itself. Signals of one kind that waited
    /// at the same time came as one.
    fn take_raised(self) -> Option<(At, Raise)> {
        let stops = self.stops().filter(|_| self.event == 0)?;
        let mut found = None;
        for at in At::all(stops) {
            let is_it = |it: &Raise| it.thread == self.tracee && it.signal == self.signal;
            let asked = Raise::of(self.peek(at.asked())?);
            if self.signal <= LAST_THAT_MERGES
                && asked.is_some_and(|it| it.event == 0 && is_it(&it))
            {
                // Another one of its kind was faster.
                self.poke(at.asked(), 0)?;
                continue;
            }
            let raised = Raise::of(self.peek(at.raised())?);
            if let Some(raised) = raised.filter(is_it) {
                self.poke(at.raised(), 0)?;
                found = found.or(Some((at, raised)));
                if self.signal > LAST_THAT_MERGES {
                    break;
                }
            }
        }
        found
    }

    /// Lets a tracee that is in its manager go on until it leaves that.
    fn begin_to_leave(self) -> Option<Leaving> {
        let stops = self.stops()?;
        if self.peek(stops + offset_of!(Stops, held) as u64)? == 0 {
            return None;
        }
        let is_told = self.report(nr::WNOWAIT | nr::WNOHANG).is_none();
        let mut info = Info::new(self.signal as i32, 0);
        let has_info = self.ask(ptrace::PTRACE_GETSIGINFO, 0, (&raw mut info) as u64).is_some();
        let raised = if self.event == 0 { self.signal } else { nr::SIGSTOP };
        let asked = Raise { thread: self.tracee, signal: raised, event: self.event };
        let Some(at) = self.place_of(asked, stops) else {
            // It stays where it is until its tracer lets it go on.
            INSIDE.store(true, Relaxed);
            return None;
        };
        let leaving = Leaving {
            stop: self,
            raised: Self { signal: raised, event: 0, ..self },
            at,
            info: has_info.then_some(info),
            is_told,
        };
        // SAFETY: the structure is of whole words.
        let words: [u64; INFO_WORDS] = unsafe { core::mem::transmute(info) };
        let mut places = (at.info()..).step_by(WORD as usize).zip(words);
        let is_written = places.all(|(at, word)| self.poke(at, word).is_some())
            && self.poke(at.raised(), 0).is_some()
            && self.poke(at.asked(), asked.word()).is_some()
            && self.poke(stops + offset_of!(Stops, waits) as u64, 1).is_some();
        (is_written && self.ask(ptrace::PTRACE_CONT, 0, 0).is_some()).then_some(leaving)
    }

    /// A place for one more signal: others may wait already, since each let the tracee go on. Signals of one kind that
    /// wait at the same time come as one.
    fn place_of(self, raise: Raise, stops: u64) -> Option<At> {
        let merges = raise.event == 0 && raise.signal <= LAST_THAT_MERGES;
        let is_same = |at: &At| self.peek(at.asked()) == Some(raise.word());
        if let Some(same) = At::all(stops).find(|at| merges && is_same(at)) {
            return Some(same);
        }
        let is_unasked = |at: &At| self.peek(at.asked()) == Some(0);
        let is_free = |at: &At| is_unasked(at) && self.peek(at.raised()) == Some(0);
        At::all(stops).find(is_free).or_else(|| At::all(stops).find(is_unasked))
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

    /// Whether one more of its signal waits for the tracee alone.
    fn waits(self) -> bool {
        /// The structure that says which of the signals to copy: from the first one on, those of the thread, one.
        fn nth(number: u64) -> [u64; 2] {
            [number, 1 << 32]
        }
        let mut info = Info::new(0, 0);
        let mut copy = |number| {
            let which = nth(number);
            let [from, to] = [which.as_ptr() as u64, (&raw mut info) as u64];
            let args = [ptrace::PTRACE_PEEKSIGINFO.into(), self.tracee.into(), from, to];
            // SAFETY: the structure and the place for one answer are ours.
            let copied = unsafe { sys::call(nr::__NR_ptrace, args) };
            (copied == Ok(1)).then_some(info.signal as u32)
        };
        (0..).map_while(&mut copy).any(|signal| signal == self.signal)
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

/// Where one of a thread's [`Request`]s is.
#[derive(Clone, Copy)]
struct At(u64);

impl At {
    /// Those of the [`Stops`] at an address.
    fn all(stops: u64) -> impl Iterator<Item = Self> {
        let first = stops + offset_of!(Stops, requests) as u64;
        (0..ROOM).map(move |number| Self(first + (number * size_of::<Request>()) as u64))
    }

    const fn asked(self) -> u64 {
        self.0 + offset_of!(Request, asked) as u64
    }

    const fn raised(self) -> u64 {
        self.0 + offset_of!(Request, raised) as u64
    }

    const fn info(self) -> u64 {
        self.0 + offset_of!(Request, info) as u64
    }
}

/// A tracee on its way out of its manager.
struct Leaving {
    stop: Stop,
    /// The stop that it makes there.
    raised: Stop,
    /// Where it finds what to raise.
    at: At,
    /// What its first stop told of the signal.
    info: Option<Info>,
    /// Whether that stop was reported.
    is_told: bool,
}

impl Leaving {
    /// Waits until the tracee has left, and stops it inside if it does not.
    fn settle(&self) -> Settled {
        let begin = process::now();
        loop {
            match self.finish(SHORT) {
                Next::Stopped => return Settled::Stopped,
                Next::Other => return Settled::Changed,
                Next::Nothing if process::now() - begin > PATIENCE => return self.stop_inside(),
                // It may wait for what other stopped threads hold, or threads that stop meanwhile.
                Next::Nothing => self.stop.push_others_out(),
            }
        }
    }

    /// Waits until the tracee has left, and makes its stop the one that it was.
    fn finish(&self, patience: u64) -> Next {
        match self.next_stop(self.raised, patience) {
            // A signal of the same kind was faster.
            Next::Stopped if self.stop.peek(self.at.raised()) == Some(0) => Next::Other,
            Next::Stopped => {
                self.restore();
                Next::Stopped
            }
            other => other,
        }
    }

    /// Waits until the tracee stops so.
    fn next_stop(&self, stop: Stop, patience: u64) -> Next {
        let begin = process::now();
        loop {
            match self.stop.report(nr::WNOWAIT | nr::WNOHANG) {
                Some(next) if next == stop => return Next::Stopped,
                Some(_) => return Next::Other,
                None if process::now() - begin > patience => return Next::Nothing,
                None => sys::sleep(PAUSE),
            }
        }
    }

    /// Makes the stop the one that it was, and takes its report if there was one before.
    fn restore(&self) {
        let stop = self.stop;
        stop.poke(self.at.asked(), 0);
        stop.poke(self.at.raised(), 0);
        if stop.event != 0 {
            stop.report(nr::WNOHANG);
            stop.ask(ptrace::PTRACE_INTERRUPT, 0, 0);
            stop.ask(ptrace::PTRACE_CONT, 0, 0);
            self.next_stop(stop, PATIENCE);
        } else if let Some(info) = &self.info {
            stop.ask(ptrace::PTRACE_SETSIGINFO, 0, core::ptr::from_ref(info) as u64);
        }
        if self.is_told {
            stop.report(nr::WNOHANG);
        }
    }

    /// Stops a tracee that does not leave, where it is.
    fn stop_inside(&self) -> Settled {
        INSIDE.store(true, Relaxed);
        let here = Stop { signal: nr::SIGSTOP, event: 0, ..self.stop };
        // SAFETY: a stop of a tracee, which only its tracer sees. `tgkill` would need its process.
        let _ = unsafe { sys::call(nr::__NR_tkill, [here.tracee.into(), here.signal.into()]) };
        let mut next = self.next_stop(here, PATIENCE);
        if next != Next::Nothing && self.has_stopped_by_itself(here) {
            // Ours still waits: it would stop the tracee after its tracer has let it go.
            self.stop.report(nr::WNOHANG);
            self.stop.ask(ptrace::PTRACE_CONT, 0, 0);
            next = self.next_stop(here, PATIENCE);
        }
        match next {
            Next::Stopped => {
                self.restore();
                Settled::Stopped
            }
            _ => Settled::Changed,
        }
    }

    /// Whether the tracee has left its manager and stopped with the signal that it was to raise, when another was on its
    /// way to stop it.
    fn has_stopped_by_itself(&self, other: Stop) -> bool {
        self.stop.report(nr::WNOWAIT | nr::WNOHANG) == Some(self.raised) && other.waits()
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
