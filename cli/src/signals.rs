//! Sets of signals, and the calling thread's mask.
//!
//! By libc, because rustix has no masks: libc keeps its own signals out of them.

use libc::c_int;
use std::{mem, ptr};

/// A set of signals.
#[derive(Clone, Copy)]
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Every signal.
    pub fn all() -> Self {
        // SAFETY: all zero bytes are a sigset_t, filled by libc's function.
        unsafe {
            let mut set = mem::zeroed();
            libc::sigfillset(&raw mut set);
            Self(set)
        }
    }

    /// These signals.
    pub fn of(signals: impl IntoIterator<Item = c_int>) -> Self {
        // SAFETY: all zero bytes are a sigset_t, emptied and changed by libc's functions.
        unsafe {
            let mut set = mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, signal);
            }
            Self(set)
        }
    }

    /// Blocks exactly these in the calling thread; returns those that it blocked before.
    pub fn become_mask(&self) -> Self {
        self.change(libc::SIG_SETMASK)
    }

    /// Blocks these too in the calling thread; returns those that it blocked before.
    pub fn block(&self) -> Self {
        self.change(libc::SIG_BLOCK)
    }

    /// Blocks these no longer in the calling thread.
    pub fn unblock(&self) {
        self.change(libc::SIG_UNBLOCK);
    }

    fn change(&self, how: c_int) -> Self {
        // SAFETY: all zero bytes are a sigset_t, and both sets are valid for the call.
        unsafe {
            let mut before = mem::zeroed();
            libc::pthread_sigmask(how, ptr::from_ref(&self.0), &raw mut before);
            Self(before)
        }
    }

    /// For libc's functions.
    pub const fn as_ptr(&self) -> *const libc::sigset_t {
        ptr::from_ref(&self.0)
    }

    /// As the kernel has the set: bit n − 1 is signal n.
    pub fn bits(&self) -> u64 {
        // SAFETY: the kernel's set is the first word of the C library's.
        unsafe { self.as_ptr().cast::<u64>().read() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_changed_and_comes_back() {
        let chosen = Signals::of([libc::SIGUSR1, libc::SIGUSR2]);
        assert_eq!(chosen.bits(), 1 << (libc::SIGUSR1 - 1) | 1 << (libc::SIGUSR2 - 1));
        let before = chosen.block();
        let now = Signals::of([libc::SIGUSR1]);
        now.unblock();
        let blocked = before.become_mask().bits();
        assert_eq!(blocked, before.bits() | 1 << (libc::SIGUSR2 - 1));
        assert_eq!(before.become_mask().bits(), before.bits());
    }
}
