//! The program's signals: every handler of the program's begins in one of ours, on a stack of ours.
//!
//! | module | what it does |
//! |---|---|
//! | `action` | the program's action for each signal |
//! | `alternate` | the program's alternate stack |
//! | `arrive` | a signal arrives: a call, a fault, or one of the program's |
//! | `deliver` | writes the frame of a program's handler where the kernel would have |
//! | `resume` | returns from it |
//! | `restart` | restarts an instruction whose fault was corrected |
//! | `held` | signals that the program blocks and the host cannot |
//!
//! The kernel never has to write a frame into memory that may be absent. It takes its default
//! action for signals without a handler of the program's. `SIGSYS`, `SIGBUS` and `SIGSEGV` are the
//! runtime's: they can be neither blocked nor taken away. The runtime remembers the program's own
//! mask and actions for them.
//!
//! A signal that arrives while the thread is in the runtime waits ([`Thread::defer`]) until the way
//! out, and every other is blocked until then.

pub mod action;
mod alternate;
mod arrive;
mod deliver;
mod held;
mod restart;
mod resume;

pub use alternate::{is_on_stack, set_stack};
pub use arrive::{
    install, kernel_handler, on_absence, on_call, on_fault, on_signal, tell_of_parent,
};
pub use deliver::{deliver, deliver_default, deliver_default_at_once, deliver_fault};
pub use held::Held;
pub use restart::leave_window;
pub use resume::return_from_handler;

use crate::entry::{NOT_STARTED, RESTART};
use crate::frame::Context;
use crate::sys::{self, Errno};
use crate::thread::Thread;
use linux_raw_sys::general as nr;
use pagefault_control::RECLAIM_SIGNAL;

/// A set of signals; bit n − 1 is signal n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Set(pub u64);

impl Set {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// The signals that the runtime needs at any time.
    pub const NEEDED: Self =
        Self(bit(nr::SIGSYS as i32) | bit(nr::SIGBUS as i32) | bit(nr::SIGSEGV as i32));

    /// Whether a signal is in the set.
    pub const fn contains(self, signal: i32) -> bool {
        self.0 & bit(signal) != 0
    }

    /// The signals that the kernel may block: the set without those that the runtime needs.
    pub const fn for_kernel(self) -> u64 {
        self.0 & !Self::NEEDED.0
    }

    /// One signal.
    pub const fn of(signal: i32) -> Self {
        Self(bit(signal))
    }

    /// The signals that are not in another set.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The signals of either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The signals that the host may take from the queue for the program: not a reclaim request.
    pub const fn without_requests(self) -> Self {
        self.without(Self::of(RECLAIM_SIGNAL))
    }

    /// The set as a program can have it: `SIGKILL` and `SIGSTOP` cannot be blocked.
    pub const fn blockable(self) -> Self {
        Self(self.0 & !(bit(nr::SIGKILL as i32) | bit(nr::SIGSTOP as i32)))
    }
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// All signals but those that the runtime needs: blocked while a signal waits.
pub const ALL: u64 = Set(u64::MAX).for_kernel();

/// Blocks all signals, and returns the mask before; `None` if a signal waits for delivery already, which comes
/// before whatever the caller is about to do.
pub fn shut_out(thread: &Thread) -> Option<u64> {
    let before = sys::exchange_mask(ALL);
    // Only now: none may come between the look and what follows.
    (!thread.has_pending()).then_some(before)
}

/// The mask that the program sees, if the kernel has `mask`.
pub fn virtual_mask(thread: &Thread, mask: u64) -> Set {
    Set(Set(mask).for_kernel() | thread.virtual_mask.get().0)
}

/// Makes `mask` the program's, and returns the mask for the kernel.
pub fn set_virtual_mask(thread: &Thread, mask: Set) -> u64 {
    let mask = mask.blockable();
    thread.virtual_mask.set(Set(mask.0 & Set::NEEDED.0));
    mask.for_kernel()
}

/// Delivers the signal that waits, on the way out of a call; the assembly comes here.
pub extern "C" fn deliver_pending(context: *mut Context) {
    let thread = Thread::current();
    // SAFETY: the way out passes the context of the frame that it returns through.
    let context = unsafe { &mut *context };
    if let Some(info) = thread.take_pending() {
        thread.site.forget_mask();
        deliver(thread, context, &info);
    }
    raise_held(thread);
}

/// Makes a signal wait for delivery at the way out that was kept from the program, if it now may
/// have it; whether one waits.
pub fn raise_held(thread: &Thread) -> bool {
    let blocked = thread.waiting_mask.get().unwrap_or(thread.virtual_mask.get());
    let free = Set::NEEDED.without(blocked);
    if thread.held().set().without(blocked) == Set::EMPTY || thread.has_pending() {
        return thread.has_pending();
    }
    // No signal may come while one waits.
    thread.site.note_mask(sys::exchange_mask(ALL));
    if !thread.has_pending()
        && let Some(info) = thread.held().take(free)
    {
        thread.defer(&info);
    }
    thread.has_pending()
}

/// Ends a system call of the program's: its result, or the call once more after the handler of the
/// signal that interrupted it.
pub fn end_call(thread: &Thread, context: &mut Context, number: u64, raw: i64) {
    let again = match raw {
        NOT_STARTED => true,
        RESTART => thread
            .pending()
            .is_none_or(|info| thread.member().signals().action(info.signal).restarts()),
        _ => false,
    };
    if again {
        // The instruction is two bytes long.
        context.registers.rip -= 2;
        context.registers.rax = number;
    } else if raw == RESTART {
        context.registers.rax = -i64::from(Errno::EINTR.0) as u64;
    } else {
        context.registers.rax = raw as u64;
    }
}
