//! The window: one process's access to the memory of another one, which that one's manager makes.
//!
//! An absent page is known to its own process alone. A debugger, or another reader from outside, therefore asks
//! that process's server, and the bytes go through this window (Linux: `access_remote_vm`). There is one window for
//! the tree: a debugger has one access at a time.
//!
//! The window's word holds a *turn* beside its state. A client that died, or gave up, loses its turn, and the server
//! writes bytes only while it holds the turn in which they were asked for.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// The most bytes of one access.
pub const WINDOW: usize = 16 << 10;

/// Nobody uses the window.
const FREE: u32 = 0;
/// A client writes its request.
const TAKEN: u32 = 1;
/// The server is to answer.
const ASKED: u32 = 2;
/// The server writes its answer.
const ANSWERING: u32 = 3;
/// The answer is there.
const ANSWERED: u32 = 4;
const STATE: u32 = 7;
/// One turn.
const TURN: u32 = 8;

/// The window.
#[repr(C)]
pub struct Outside {
    /// A futex: the turn and the state.
    word: AtomicU32,
    /// The slot of the memory.
    slot: AtomicU32,
    manner: AtomicU32,
    /// The bytes asked for, then those of the answer.
    len: AtomicU32,
    /// One of the kinds of an answer.
    kind: AtomicU32,
    start: AtomicU64,
    bytes: [AtomicU8; WINDOW],
}

/// How an access is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As a load of the program's.
    Read = 0,
    /// As a store of the program's.
    Write = 1,
    /// Whatever the protection, as a debugger's.
    ForcedRead = 2,
    /// The same for a store.
    ForcedWrite = 3,
}

impl Manner {
    fn of(word: u32) -> Self {
        match word {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::ForcedRead,
            _ => Self::ForcedWrite,
        }
    }

    /// Whether it changes the memory.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ForcedWrite)
    }

    /// Whether it ignores the protection.
    pub const fn is_forced(self) -> bool {
        matches!(self, Self::ForcedRead | Self::ForcedWrite)
    }
}

/// An access to a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The slot that the memory is charged to.
    pub slot: u32,
    /// How it is made.
    pub manner: Manner,
    /// The address of its first byte.
    pub start: u64,
    /// Its length in bytes, at most [`WINDOW`].
    pub len: u32,
}

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// So many bytes were copied, and none where the memory refuses the access.
    Copied(u32),
    /// So many bytes from the first one on are not managed: the host accesses them.
    Host(u32),
}

/// A client's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn(u32);

/// A request that the server has seen.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What is asked for.
    pub access: Access,
    word: u32,
}

impl Outside {
    /// The word that changes with every step, a futex of the tree's.
    pub const fn word(&self) -> &AtomicU32 {
        &self.word
    }

    /// The client's first step: takes the window, and asks. `bytes` are those to write, if it writes. `None` while
    /// another client has the window; `stuck` is a word that was seen too long, whose client loses its turn.
    pub fn ask(&self, access: &Access, bytes: &[u8], stuck: Option<u32>) -> Option<Turn> {
        let word = self.word.load(Acquire);
        if word & STATE != FREE && stuck != Some(word) {
            return None;
        }
        let turn = (word & !STATE).wrapping_add(TURN);
        self.word.compare_exchange(word, turn | TAKEN, AcqRel, Relaxed).ok()?;
        self.slot.store(access.slot, Relaxed);
        self.manner.store(access.manner as u32, Relaxed);
        self.start.store(access.start, Relaxed);
        self.len.store(access.len.min(WINDOW as u32), Relaxed);
        self.put(bytes);
        let asked = self.word.compare_exchange(turn | TAKEN, turn | ASKED, AcqRel, Relaxed);
        asked.is_ok().then_some(Turn(turn))
    }

    /// The client's second step: takes the answer, with its bytes, if it is there.
    pub fn take(&self, turn: Turn, bytes: &mut [u8]) -> Option<Answer> {
        if self.word.load(Acquire) != turn.0 | ANSWERED {
            return None;
        }
        let len = self.len.load(Relaxed).min(WINDOW as u32);
        let answer = match self.kind.load(Relaxed) {
            0 => Answer::Copied(len),
            _ => Answer::Host(len),
        };
        if answer == Answer::Copied(len) {
            for (to, from) in bytes.iter_mut().zip(&self.bytes[..len as usize]) {
                *to = from.load(Relaxed);
            }
        }
        let freed = self.word.compare_exchange(turn.0 | ANSWERED, turn.0 | FREE, AcqRel, Relaxed);
        freed.is_ok().then_some(answer)
    }

    /// How long the step that a word names may take, in nanoseconds. A client that does not take its answer, or does
    /// not write its request, has died or been stopped.
    pub const fn longest_step(word: u32) -> u64 {
        match word & STATE {
            ASKED | ANSWERING => 20_000_000_000,
            _ => 1_000_000_000,
        }
    }

    /// Whether a turn is over without an answer: somebody else took the window.
    pub fn is_lost(&self, turn: Turn) -> bool {
        self.word.load(Acquire) & !STATE != turn.0
    }

    /// The client waits no longer.
    pub fn give_up(&self, turn: Turn) {
        let begun = |word: u32| (word & !STATE == turn.0).then_some(turn.0 | FREE);
        let _ = self.word.fetch_update(AcqRel, Relaxed, begun);
    }

    /// The request to the server of a slot.
    pub fn asked(&self, slot: u32) -> Option<Request> {
        let word = self.word.load(Acquire);
        let access = Access {
            slot: self.slot.load(Relaxed),
            manner: Manner::of(self.manner.load(Relaxed)),
            start: self.start.load(Relaxed),
            len: self.len.load(Relaxed).min(WINDOW as u32),
        };
        let is_it = word & STATE == ASKED && access.slot == slot;
        // Otherwise another client has begun to write meanwhile.
        (is_it && self.word.load(Acquire) == word).then_some(Request { access, word })
    }

    /// Reads the bytes that a request is to write; false if its client waits no longer.
    pub fn read_given(&self, request: &Request, bytes: &mut [u8]) -> bool {
        let given = &self.bytes[..request.access.len as usize];
        bytes.iter_mut().zip(given).for_each(|(to, from)| *to = from.load(Relaxed));
        self.word.load(Acquire) == request.word
    }

    /// Answers a request, with the bytes that were read; not if its client waits no longer.
    pub fn answer(&self, request: &Request, answer: Answer, bytes: &[u8]) {
        let turn = request.word & !STATE;
        let answering = turn | ANSWERING;
        if self.word.compare_exchange(request.word, answering, AcqRel, Relaxed).is_err() {
            return;
        }
        let (kind, len) = match answer {
            Answer::Copied(len) => (0, len),
            Answer::Host(len) => (1, len),
        };
        self.kind.store(kind, Relaxed);
        self.len.store(len, Relaxed);
        if !request.access.manner.writes() && kind == 0 {
            self.put(&bytes[..(len as usize).min(bytes.len())]);
        }
        let _ = self.word.compare_exchange(answering, turn | ANSWERED, Release, Relaxed);
    }

    fn put(&self, bytes: &[u8]) {
        for (to, from) in self.bytes.iter().zip(bytes) {
            to.store(*from, Relaxed);
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::{Control, Plan};

    fn access(manner: Manner) -> Access {
        Access { slot: 3, manner, start: 0x7000, len: 5 }
    }

    #[test]
    fn bytes_go_to_the_server_and_back() {
        let (_file, control) =
            Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
        let window = &control.outside;
        let mut seen = [0; 8];
        assert!(window.asked(3).is_none());
        let turn = window.ask(&access(Manner::ForcedWrite), b"hello", None).unwrap();
        assert!(window.ask(&access(Manner::Read), b"", None).is_none(), "one at a time");
        assert!(window.asked(4).is_none(), "another one's");
        let request = window.asked(3).unwrap();
        assert!(window.read_given(&request, &mut seen));
        assert_eq!((request.access, &seen[..5]), (access(Manner::ForcedWrite), &b"hello"[..]));
        assert_eq!(window.take(turn, &mut []), None);
        window.answer(&request, Answer::Copied(5), &[]);
        assert_eq!(window.take(turn, &mut []), Some(Answer::Copied(5)));

        let turn = window.ask(&access(Manner::Read), b"", None).unwrap();
        let request = window.asked(3).unwrap();
        window.answer(&request, Answer::Copied(3), b"abcdef");
        let mut read = [0; 5];
        assert_eq!(window.take(turn, &mut read), Some(Answer::Copied(3)));
        assert_eq!(&read, b"abc\0\0");
    }

    #[test]
    fn who_gave_up_gets_no_answer_and_a_late_answer_is_nobody_s() {
        let (_file, control) =
            Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
        let window = &control.outside;
        let late = window.ask(&access(Manner::Read), b"", None).unwrap();
        let request = window.asked(3).unwrap();
        window.give_up(late);
        assert!(!window.read_given(&request, &mut []));
        let turn = window.ask(&access(Manner::Read), b"", None).unwrap();
        window.answer(&request, Answer::Copied(5), b"wrong");
        assert_eq!(window.take(turn, &mut [0; 5]), None);
        let request = window.asked(3).unwrap();
        window.answer(&request, Answer::Host(5), &[]);
        assert!(window.is_lost(late) && !window.is_lost(turn));
        assert_eq!(window.take(turn, &mut [0; 5]), Some(Answer::Host(5)));

        // A client that died loses its turn to whoever saw it too long.
        window.ask(&access(Manner::Read), b"", None).unwrap();
        let stuck = window.word().load(Acquire);
        assert!(window.ask(&access(Manner::Read), b"", Some(stuck ^ 1)).is_none());
        assert!(window.ask(&access(Manner::Read), b"", Some(stuck)).is_some());
    }
}
