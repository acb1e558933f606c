//! The program's action for each signal.

use super::{ALL, Set, arrive};
use crate::lock::Mutex;
use crate::sys::{self, Errno, Result};
use linux_raw_sys::general as nr;
use pagefault_control::Disposition;

/// The number of signals.
pub const SIGNALS: usize = 64;

/// `struct sigaction` as the kernel knows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// The handler, `SIG_DFL` or `SIG_IGN`.
    pub handler: u64,
    /// `SA_` flags.
    pub flags: u64,
    /// What a handler returns to.
    pub restorer: u64,
    /// What is blocked during the handler.
    pub mask: Set,
}

/// `SIG_DFL`.
pub const DEFAULT: u64 = 0;
/// `SIG_IGN`.
pub const IGNORE: u64 = 1;

/// The flags that the kernel keeps; it clears all others, so that programs can ask for them.
const KNOWN: u64 = (nr::SA_NOCLDSTOP
    | nr::SA_NOCLDWAIT
    | nr::SA_SIGINFO
    | nr::SA_EXPOSE_TAGBITS
    | nr::SA_RESTORER
    | nr::SA_ONSTACK
    | nr::SA_RESTART
    | nr::SA_NODEFER
    | nr::SA_RESETHAND) as u64;

impl Action {
    /// Whether a handler of the program's is called.
    pub fn is_handled(&self) -> bool {
        self.handler > IGNORE
    }

    /// What becomes of the signal.
    pub fn disposition(&self) -> Disposition {
        match self.handler {
            DEFAULT => Disposition::Default,
            IGNORE => Disposition::Ignored,
            _ => Disposition::Handled,
        }
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u32) -> bool {
        self.flags & u64::from(flag) != 0
    }

    /// Whether calls that the handler interrupts restart.
    pub fn restarts(&self) -> bool {
        self.has(nr::SA_RESTART) || !self.is_handled()
    }
}

/// The actions of a process.
pub struct Actions(Mutex<[Action; SIGNALS]>);

impl Actions {
    /// Every signal's default.
    pub const fn new() -> Self {
        let none = Action { handler: DEFAULT, flags: 0, restorer: 0, mask: Set::EMPTY };
        Self(Mutex::new([none; SIGNALS]))
    }

    /// The actions of a process that does not share its parent's.
    pub fn copied(&self) -> Self {
        Self(Mutex::new(*self.0.lock()))
    }

    /// What a signal does.
    pub fn action(&self, signal: i32) -> Action {
        self.0.lock()[signal as usize - 1]
    }

    /// What the program does with each signal.
    pub fn dispositions(&self) -> impl Iterator<Item = (i32, Disposition)> {
        let actions = *self.0.lock();
        (1..).zip(actions).map(|(signal, action)| (signal, action.disposition()))
    }

    /// Takes a signal's handler for one call; `SA_RESETHAND` resets it.
    pub fn take(&self, signal: i32) -> Action {
        let mut actions = self.0.lock();
        let slot = &mut actions[signal as usize - 1];
        let action = *slot;
        if action.is_handled() && action.has(nr::SA_RESETHAND) {
            slot.handler = DEFAULT;
            arrive::settle(signal, slot);
        }
        action
    }

    /// `rt_sigaction(2)`: changes a signal's action, and returns the old one.
    pub fn exchange(&self, signal: i32, new: Option<Action>) -> Result<Action> {
        let valid = (1..=SIGNALS as i32).contains(&signal);
        let fixed = signal == nr::SIGKILL as i32 || signal == nr::SIGSTOP as i32;
        if !valid || fixed && new.is_some() {
            return Err(Errno::EINVAL);
        }
        self.while_closed(|actions| {
            let slot = &mut actions[signal as usize - 1];
            let old = *slot;
            if let Some(mut new) = new {
                new.flags &= KNOWN;
                new.mask = new.mask.blockable();
                *slot = new;
                arrive::settle(signal, &new);
            }
            Ok(old)
        })
    }

    /// Works on the actions while no signal comes: its handler would wait for the lock of the code that it
    /// interrupted.
    fn while_closed<R>(&self, f: impl FnOnce(&mut [Action; SIGNALS]) -> R) -> R {
        let mask = sys::exchange_mask(ALL);
        let result = f(&mut self.0.lock());
        sys::exchange_mask(mask);
        result
    }

    /// Notes the kernel's action for a signal at the program's start.
    pub fn inherit(&self, signal: i32, handler: u64) {
        self.0.lock()[signal as usize - 1].handler = handler;
    }

    /// Resets each handled signal to its default (`CLONE_CLEAR_SIGHAND`). The caller belongs to the
    /// process.
    pub fn clear_handlers(&self) {
        let mut actions = self.0.lock();
        for (signal, action) in (1..).zip(actions.iter_mut()) {
            if action.is_handled() {
                *action = Action::default();
                arrive::settle(signal, action);
            }
        }
    }

    /// The actions after an exec: ignored signals stay ignored.
    pub fn settle_for_exec(&self) {
        // The kernel resets handlers by itself; of the signals that the runtime takes, it knows no
        // more what the program wants.
        self.while_closed(|actions| {
            for signal in 1..=SIGNALS as i32 {
                if Set::NEEDED.contains(signal) && actions[signal as usize - 1].handler == IGNORE {
                    arrive::ignore(signal);
                }
            }
        });
    }
}
