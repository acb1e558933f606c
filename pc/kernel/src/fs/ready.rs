//! Waiting until a file is ready: what `poll`, `select` and `epoll` are made of.

use super::Reading;
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
        /// A write would fail: no reader is left.
        const ERR = 0x8;
        /// No writer is left.
        const HUP = 0x10;
        /// The file is not open.
        const INVALID = 0x20;
        /// The other side will not write any more.
        const PEER_SHUT = 0x2000;
    }
}

impl Ready {
    /// The events that are reported even without a request.
    pub const ALWAYS: Self = Self::ERR.union(Self::HUP).union(Self::INVALID);
}

/// How long a waiter sleeps before it checks again. The console and the clock wake no waiter.
const LOOK_AGAIN: u64 = 10_000_000;

/// How many tasks wait here, and a count of what they wait for.
static WATCHERS: AtomicU32 = AtomicU32::new(0);
static CHANGES: AtomicU32 = AtomicU32::new(0);

/// Counts what changes about one thing, for those who wait for it.
#[derive(Default)]
pub struct Changes(AtomicU32);

impl Changes {
    /// No change yet.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The count now. Who is to wait reads it before looking at the thing.
    pub fn now(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Lets those who wait look again.
    pub fn tell(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
        scheduler::wake(&self.0);
        changed();
    }

    /// Waits for a change after the count was `seen`, unless the caller does not want to wait or has
    /// a signal.
    pub fn wait(&self, seen: u32, reading: Reading) -> Result<(), Errno> {
        self.wait_until(seen, u64::MAX, reading)
    }

    /// The same, to a time at most.
    pub fn wait_until(&self, seen: u32, deadline: u64, reading: Reading) -> Result<(), Errno> {
        if reading == Reading::NonBlocking {
            return Err(Errno::EAGAIN);
        }
        if signal::is_pending() {
            return Err(Errno::EINTR);
        }
        scheduler::wait_until(&self.0, seen, deadline, Patience::Signals);
        Ok(())
    }
}

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
