//! Waiting until a file is ready: what `poll`, `select` and `epoll` are made of.

use crate::errno::Errno;
use crate::scheduler::{self, Patience};
use crate::{clock, signal};
use core::sync::atomic::{AtomicU32, Ordering};

bitflags::bitflags! {
    /// What a file is ready for, in the numbers of `poll` and `epoll`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Ready: u32 {
        /// A read would not wait.
        const IN = 0x1;
        /// A write would not wait.
        const OUT = 0x4;
        /// A write would fail: nobody is left to read.
        const ERR = 0x8;
        /// Nobody is left to write.
        const HUP = 0x10;
        /// The file is not open.
        const INVALID = 0x20;
        /// The other side will not write any more.
        const PEER_SHUT = 0x2000;
    }
}

impl Ready {
    /// What is told even to those who did not ask.
    pub const ALWAYS: Self = Self::ERR.union(Self::HUP).union(Self::INVALID);
}

/// How long who waits does not look again by itself. The console and the clock tell nobody.
const LOOK_AGAIN: u64 = 10_000_000;

/// How many tasks wait here, and a count of what they wait for.
static WATCHERS: AtomicU32 = AtomicU32::new(0);
static CHANGES: AtomicU32 = AtomicU32::new(0);

/// Lets those who wait look again: a file may have become ready.
pub fn changed() {
    if WATCHERS.load(Ordering::SeqCst) > 0 {
        CHANGES.fetch_add(1, Ordering::SeqCst);
        scheduler::wake(&CHANGES);
    }
}

/// Waits until `look` finds something, and returns that; `None` if nothing was found in time.
pub fn wait<T>(
    deadline: u64,
    mut look: impl FnMut() -> Result<Option<T>, Errno>,
) -> Result<Option<T>, Errno> {
    WATCHERS.fetch_add(1, Ordering::SeqCst);
    let result = loop {
        let seen = CHANGES.load(Ordering::SeqCst);
        match look() {
            Ok(None) => {}
            found => break found,
        }
        let now = clock::nanoseconds();
        if now >= deadline {
            break Ok(None);
        }
        if signal::is_pending() {
            break Err(Errno::EINTR);
        }
        let next = deadline.min(now + LOOK_AGAIN);
        scheduler::wait_until(&CHANGES, seen, next, Patience::Signals);
    };
    WATCHERS.fetch_sub(1, Ordering::SeqCst);
    result
}
