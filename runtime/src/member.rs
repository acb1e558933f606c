//! The state of a process in the kernel's sense: a forked child, or one that shares this memory for
//! a while (`vfork`), has its own.

use crate::lock::Mutex;
use crate::signal::action::{Action, Actions};
use crate::sys::{Errno, Result};
use crate::{process, supervisor, sys};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU32};
use linux_raw_sys::general::SA_RESETHAND;
use pagefault_control::{Birth, Disposition, Slot, Slots, Ticket};

/// A process of this address space.
pub struct Member {
    /// Shared with its parent (`CLONE_SIGHAND`), or its own.
    actions: Arc<Actions>,
    /// Its place in the control memory.
    slot: u32,
    /// The ticket of its slot, if a parent took it.
    ticket: Option<Ticket>,
    /// Whether the supervisor knows it, and gives the slot back at its end.
    enrolled: AtomicBool,
    /// How it came about.
    kind: Kind,
    /// Whether it wants its parent to trace it, once the parent can.
    traced: AtomicBool,
    /// Held by the thread that executes a program.
    exec: Mutex<()>,
}

/// How a process came about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has a memory of its own.
    Whole,
    /// It shares this memory, and its parent waits until it ends or executes a program (`vfork`).
    Waited,
    /// It shares this memory for as long as it likes.
    Apart,
}

/// What is known of a child that is to be made.
pub struct Wanted {
    /// How it comes about.
    pub kind: Kind,
    /// Whether it shares its parent's actions.
    pub shares_actions: bool,
    /// How the supervisor comes to know it, if it shares the memory.
    pub birth: Birth,
}

impl Wanted {
    /// A copy of its parent.
    pub const FORK: Self = Self { kind: Kind::Whole, shares_actions: false, birth: Birth::Told };
}

impl Member {
    /// A process of its own.
    pub fn new(actions: Actions, slot: u32) -> NonNull<Self> {
        Self::with(Arc::new(actions), slot, None, Kind::Whole)
    }

    fn with(actions: Arc<Actions>, slot: u32, ticket: Option<Ticket>, kind: Kind) -> NonNull<Self> {
        let [enrolled, traced] = [(); 2].map(|()| AtomicBool::new(false));
        let exec = Mutex::new(());
        let member = Self { actions, slot, ticket, enrolled, kind, traced, exec };
        NonNull::from(Box::leak(Box::new(member)))
    }

    /// A child.
    pub fn child(&self, wanted: &Wanted) -> Result<NonNull<Self>> {
        let actions = match wanted.shares_actions {
            true => self.actions.clone(),
            false => Arc::new(self.actions.copied()),
        };
        let Some(control) = process::control() else {
            return Ok(Self::with(actions, u32::MAX, None, wanted.kind));
        };
        let number = self.take_slot(&control.slots)?;
        let mut ticket = None;
        if let (Some(own), Some(child)) = (control.slots.get(self.slot), control.slots.get(number))
        {
            child.inherit(own);
            ticket = Some(child.ticket());
            if wanted.kind != Kind::Whole {
                let memory = own.memory().unwrap_or(self.slot);
                control.slots.share_memory(number, memory, wanted.birth);
            }
        }
        Ok(Self::with(actions, number, ticket, wanted.kind))
    }

    /// Takes a slot for a child; without one, fails like the host at its limit of processes.
    fn take_slot(&self, slots: &Slots) -> Result<u32> {
        /// How often to ask the supervisor to look for children that were killed early, and the time it
        /// has for that, in nanoseconds.
        const ASKED: usize = 1000;
        const PAUSE: u64 = 2_000_000;
        for _ in 0..ASKED {
            match slots.take() {
                Some(slot) => return Ok(slot),
                None if slots.unborn().next().is_none() => break,
                None => supervisor::request_reclaim(self),
            }
            sys::sleep(PAUSE);
        }
        Err(Errno::EAGAIN)
    }

    /// Frees a process, and its slot if the supervisor does not know it.
    ///
    /// # Safety
    /// No thread of this address space belongs to it.
    pub unsafe fn end(member: NonNull<Self>, child: Child) {
        // SAFETY: made by `new`; the caller vouches for the rest.
        let member = unsafe { Box::from_raw(member.as_ptr()) };
        let (Some(control), false) = (process::control(), member.enrolled.load(Relaxed)) else {
            return;
        };
        let number = match child {
            Child::Gone { number } => number,
            Child::Lives => return,
        };
        // The supervisor may have found it since its parent's parent died.
        if control.slots.get(member.slot).is_some_and(|slot| slot.claim(member.ticket, number)) {
            control.slots.release(member.slot);
        }
    }

    /// The ticket of its slot; `None` if no parent of this tree took it.
    pub fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }

    /// Whether it has executed the program that it runs. Otherwise it is a copy of its parent, or shares
    /// its memory.
    pub fn has_executed(&self) -> bool {
        self.ticket.is_none() && self.kind == Kind::Whole
    }

    /// Notes what the program does with each signal, for whoever reads the process's status. Whoever
    /// changes the actions by another way than the methods here calls it afterwards.
    pub fn note_actions(&self) {
        if let Some(slot) = self.own_slot() {
            slot.note_actions(self.actions.dispositions());
        }
    }

    /// Resets each handled signal to its default (`CLONE_CLEAR_SIGHAND`). The caller belongs to it.
    pub fn clear_handlers(&self) {
        self.actions.clear_handlers();
        self.note_actions();
    }

    /// Replaces the action of a signal, and returns the old one (`rt_sigaction`).
    pub fn exchange_action(&self, signal: i32, new: Option<Action>) -> Result<Action> {
        let old = self.actions.exchange(signal, new)?;
        if let (Some(slot), Some(new)) = (self.own_slot(), new) {
            slot.note_action(signal, new.disposition());
        }
        Ok(old)
    }

    /// Takes a signal's handler for one call; `SA_RESETHAND` resets it.
    pub fn take_action(&self, signal: i32) -> Action {
        let action = self.actions.take(signal);
        if let Some(slot) =
            self.own_slot().filter(|_| action.is_handled() && action.has(SA_RESETHAND))
        {
            slot.note_action(signal, Disposition::Default);
        }
        action
    }

    fn own_slot(&self) -> Option<&'static Slot> {
        process::control()?.slots.get(self.slot)
    }

    /// Its place in the control memory.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Whether it is to tell the supervisor of itself, if it shares the memory.
    pub fn is_told_of(&self) -> bool {
        self.own_slot().is_some_and(Slot::is_told_of)
    }

    /// Where the host is to write its number as it makes it; `None` where nobody looks there.
    pub fn number_of_waited(&self) -> Option<&AtomicU32> {
        let slot = self.own_slot()?;
        (self.kind == Kind::Waited && !slot.is_told_of()).then(|| slot.number())
    }

    /// Notes that the supervisor is told of it.
    pub fn enrol(&self) {
        self.enrolled.store(true, Relaxed);
    }

    /// How it came about.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Notes that its parent should trace it; returns whether that must wait until it executes a
    /// program.
    ///
    /// A tracee stops at every signal, and so at every system call, until its tracer continues it.
    /// A parent that waits for it cannot.
    pub fn defer_tracing(&self) -> bool {
        let waits = self.kind == Kind::Waited;
        self.traced.store(waits, Relaxed);
        waits
    }

    /// Whether its parent should trace the program that it executes.
    pub fn is_to_be_traced(&self) -> bool {
        self.traced.load(Relaxed)
    }

    /// Waits until no other thread of the process executes a program (Linux: `cred_guard_mutex`).
    ///
    /// The slot has room for one request. And an exec waits until the supervisor has reaped the other threads
    /// that it traces, while the supervisor's next request to trace would wait for the exec.
    pub fn begin_exec(&self) -> impl Drop {
        self.exec.lock()
    }

    /// Its signal actions.
    pub fn signals(&self) -> &Actions {
        &self.actions
    }
}

/// The outcome of a child's process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// It runs, elsewhere.
    Lives,
    /// It was not made, or has ended, or executed a program.
    Gone {
        /// Its number; 0 where it was not made.
        number: u32,
    },
}
