//! Accesses to the memory of another process of the tree, which that process's server makes.
//!
//! A client writes its request into the tree's window ([`pagefault_control::outside`]), wakes the server, and
//! sleeps until the answer is there. The server copies by the memory manager, as the kernel would for the
//! client: an absent page comes back, and a store waits for a page that leaves. If there is no server, the
//! client asks the supervisor to have the process start one.

use super::forced::Forced;
use super::{obey_requests, room};
use crate::member::Member;
use crate::sys::{self, Errno, Result};
use crate::thread::Thread;
use crate::{process, supervisor, tracer};
use core::sync::atomic::Ordering::{Acquire, Relaxed};
use linux_raw_sys::general as nr;
use pagefault_control::Slot;
use pagefault_control::outside::{Access, Answer, Manner, Outside, Turn, WINDOW};
use pagefault_linux::store::descriptor;

/// How long a client waits for an answer, in nanoseconds: the server may have to make room.
const PATIENCE: u64 = 20_000_000_000;
/// How long it waits for a server that did not answer the last time: a stopped thread may hold what it needs.
const LITTLE: u64 = 50_000_000;
/// How long it waits until a process has started its server.
const START: u64 = 10_000_000_000;
/// When to ask for it again, in nanoseconds.
const AGAIN: u64 = 20_000_000;
/// How long between two checks, in nanoseconds.
const PAUSE: u64 = 5_000_000;

/// Answers the requests from outside; returns whether there was one. In the server, `thread`.
pub fn answer(thread: &Thread) -> bool {
    let Some(control) = process::control() else { return false };
    let own = thread.member().slot();
    let asks = control.slots.get(own).is_some_and(Slot::take_frames_asked);
    if asks {
        room::ask(room::Request::Frames);
    }
    let window = &control.outside;
    let Some(request) = window.asked(own) else { return asks };
    let Access { manner, start, len, .. } = request.access;
    let mut bytes = alloc::vec![0; WINDOW];
    if manner.writes() && !window.read_given(&request, &mut bytes) {
        return true;
    }
    let answer = match Forced::look(start, len.into()) {
        Forced::Host(len) => Answer::Host(len as u32),
        Forced::Managed(piece) => {
            let len = piece.len().min(WINDOW);
            Answer::Copied(piece.access(manner, &mut bytes[..len]).unwrap_or(0) as u32)
        }
    };
    window.answer(&request, answer, &bytes);
    sys::wake_all(window.word());
    true
}

/// Why there is no answer.
enum Missed {
    /// The server has ended.
    Ended,
    /// The client may not access the memory, or the process has ended.
    Forbidden,
    /// Patience has.
    Late,
}

type Asked<T> = core::result::Result<T, Missed>;

/// Another process of the tree that manages its memory.
pub struct Other {
    /// The process whose memory it is.
    process: u32,
    /// The slot that its memory is charged to, whose process has the server.
    owner: u32,
}

impl Other {
    /// The process of a thread; `None` where the host has all pages of its memory.
    pub fn of(thread: u32) -> Option<Self> {
        let slots = &process::control()?.slots;
        let (mut process, slot) = tracer::slot_of(thread)?;
        let owner = match slot.memory() {
            Some(owner) => {
                process = slots.get(owner)?.pid.load(Relaxed);
                owner
            }
            None => slots.number_of(process)?,
        };
        (!slots.get(owner)?.is_passive()).then_some(Self { process, owner })
    }

    /// Has the process start its server, before somebody stops its threads; whether it has one then.
    pub fn prepare(&self, member: &Member) -> bool {
        let Some(slot) = self.slot() else { return false };
        if is_served(slot) {
            return true;
        }
        let begin = process::now();
        let mut next = 0;
        while !is_served(slot) && process::now() - begin < START {
            // The host keeps one signal of a kind: a reclaim request that waits already takes this one's place.
            if process::now() >= next {
                supervisor::ask_for_server(member, self.owner);
                next = process::now() + AGAIN;
            }
            rest(|| sys::sleep(PAUSE / 5));
        }
        is_served(slot)
    }

    /// Accesses the beginning of a range, with bytes to fill or to write; `None` where nobody answers.
    pub fn access(
        &self,
        member: &Member,
        manner: Manner,
        start: u64,
        bytes: &mut [u8],
    ) -> Option<Answer> {
        let len = bytes.len().min(WINDOW);
        let bytes = &mut bytes[..len];
        let request = Access { slot: self.owner, manner, start, len: len as u32 };
        let slot = self.slot()?;
        let patience = if slot.is_unserved() { LITTLE } else { PATIENCE };
        loop {
            if !is_served(slot) && (slot.is_unserved() || !self.prepare(member)) {
                break;
            }
            match self.ask(&request, bytes, patience) {
                Ok(answer) => {
                    slot.note_answer();
                    return Some(answer);
                }
                // Another one is started.
                Err(Missed::Ended) => {}
                Err(Missed::Forbidden) => return None,
                Err(Missed::Late) => break,
            }
        }
        slot.note_silence();
        None
    }

    /// Asks until there is an answer.
    fn ask(&self, request: &Access, bytes: &mut [u8], patience: u64) -> Asked<Answer> {
        let begin = process::now();
        let is_over = || process::now() - begin > patience;
        loop {
            let turn = take_window(request, bytes, &is_over).ok_or(Missed::Late)?;
            let answer = self.wait(turn, bytes, &is_over);
            if answer.is_err() {
                let window = window()?;
                window.give_up(turn);
                sys::wake_all(window.word());
            }
            if let Some(answer) = answer? {
                return Ok(answer);
            }
        }
    }

    /// Waits for the answer to a turn; `None` if another client takes the window.
    fn wait(
        &self,
        turn: Turn,
        bytes: &mut [u8],
        is_over: &impl Fn() -> bool,
    ) -> Asked<Option<Answer>> {
        let window = window()?;
        let mut woken = None;
        loop {
            let seen = window.word().load(Acquire);
            if let Some(answer) = window.take(turn, bytes) {
                sys::wake_all(window.word());
                return Ok(Some(answer));
            }
            if window.is_lost(turn) {
                return Ok(None);
            }
            let server = self.slot().map_or(-1, |slot| slot.server_fd.load(Acquire));
            if server < 0 {
                return Err(Missed::Ended);
            }
            // Its descriptor has got another number, or another server has it.
            if woken != Some(server) && self.wake(server).is_err() {
                let is_same =
                    self.slot().is_some_and(|slot| slot.server_fd.load(Acquire) == server);
                return Err(if is_same { Missed::Forbidden } else { Missed::Ended });
            }
            woken = Some(server);
            if is_over() {
                return Err(Missed::Late);
            }
            rest(|| sys::wait_on(window.word(), seen, PAUSE));
        }
    }

    fn slot(&self) -> Option<&'static Slot> {
        process::control()?.slots.get(self.owner)
    }

    /// Wakes the server: whoever may access the memory may use the process's descriptors.
    fn wake(&self, server: i32) -> Result {
        let one = 1_u64;
        // SAFETY: the descriptors are ours, and closed again.
        unsafe {
            let open = || sys::call(nr::__NR_pidfd_open, [self.process.into(), 0]);
            let process = descriptor::with_room(open)?;
            let get = || sys::call(nr::__NR_pidfd_getfd, [process, server as u64, 0]);
            let event = descriptor::with_room(get);
            let _ = sys::call(nr::__NR_close, [process]);
            let event = event?;
            // It may be a file of the program's that got the number before the descriptor was copied.
            let is_same = self.slot().is_some_and(|slot| slot.server_fd.load(Acquire) == server);
            let write = || sys::call(nr::__NR_write, [event, (&raw const one) as u64, 8]);
            let woken = if is_same { write() } else { Err(Errno::EBADF) };
            let _ = sys::call(nr::__NR_close, [event]);
            woken
        }
    }
}

/// The tree's window.
fn window() -> Asked<&'static Outside> {
    process::control().map(|control| &control.outside).ok_or(Missed::Forbidden)
}

fn is_served(slot: &Slot) -> bool {
    slot.server_fd.load(Acquire) >= 0
}

/// Takes the window for a request, once other clients are through; `None` if patience ends.
fn take_window(request: &Access, bytes: &[u8], is_over: &impl Fn() -> bool) -> Option<Turn> {
    let window = window().ok()?;
    let bytes = if request.manner.writes() { bytes } else { &[] };
    let (mut seen, mut since) = (window.word().load(Acquire), process::now());
    while !is_over() {
        let is_stuck = process::now() - since > Outside::longest_step(seen);
        if let Some(turn) = window.ask(request, bytes, is_stuck.then_some(seen)) {
            return Some(turn);
        }
        rest(|| sys::wait_on(window.word(), seen, PAUSE));
        let now = window.word().load(Acquire);
        if now != seen {
            (seen, since) = (now, process::now());
        }
    }
    None
}

/// Sleeps, and then obeys what others ask of this process: the server may need its frames.
fn rest<R>(sleep: impl FnOnce() -> R) {
    sleep();
    obey_requests();
}
