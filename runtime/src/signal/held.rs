//! Signals that other processes sent and the program has blocked, but the host must not block,
//! since the runtime needs them.

use super::Set;
use crate::frame::Info;
use core::cell::Cell;
use linux_raw_sys::general as nr;

/// The signals that the runtime needs, in the order in which the host delivers them.
const NEEDED: [u32; 3] = [nr::SIGBUS, nr::SIGSEGV, nr::SIGSYS];

/// A thread's signals that wait until the program unblocks them; one of each, as on the host.
#[derive(Default)]
pub struct Held {
    signals: [Cell<Option<Info>>; 3],
    /// Their numbers.
    set: Cell<Set>,
}

impl Held {
    /// Which signals wait.
    pub fn set(&self) -> Set {
        self.set.get()
    }

    /// Keeps a signal, unless one with its number waits.
    pub fn put(&self, info: &Info) {
        if self.set().contains(info.signal) {
            return;
        }
        if let Some(place) = self.place(info.signal) {
            place.set(Some(*info));
            self.set.set(self.set().union(Set::of(info.signal)));
        }
    }

    /// Takes a signal of a set.
    pub fn take(&self, from: Set) -> Option<Info> {
        let signal = NEEDED
            .into_iter()
            .map(|signal| signal as i32)
            .find(|signal| self.set().contains(*signal) && from.contains(*signal))?;
        self.set.set(self.set().without(Set::of(signal)));
        self.place(signal)?.take()
    }

    /// Forgets them all: in a forked child.
    pub fn clear(&self) {
        while self.take(Set::NEEDED).is_some() {}
    }

    fn place(&self, signal: i32) -> Option<&Cell<Option<Info>>> {
        let index = NEEDED.iter().position(|needed| *needed as i32 == signal)?;
        Some(&self.signals[index])
    }
}
