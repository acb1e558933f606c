//! The state of a process in the kernel's sense: a forked child, or one that shares this memory for
//! a while (`vfork`), has its own.

use crate::signal::action::Actions;
use crate::sys::{Errno, Result};
use crate::{keeper, process, sys};
use alloc::boxed::Box;
use core::ptr::NonNull;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use pagefault_control::{Slot, Slots, Ticket};

/// A process of this address space.
pub struct Member {
    actions: Actions,
    /// Its place in the control memory.
    slot: u32,
    /// The ticket of its slot, if a parent took it.
    ticket: Option<Ticket>,
    /// Whether the keeper knows it, and gives the slot back at its end.
    enrolled: AtomicBool,
    /// Whether its parent waits until it ends or executes a program (`vfork`).
    waited_for: AtomicBool,
    /// Whether it wants its parent to trace it, once the parent can.
    traced: AtomicBool,
}

impl Member {
    /// A process of its own.
    pub fn new(actions: Actions, slot: u32) -> NonNull<Self> {
        let [enrolled, waited_for, traced] = [(); 3].map(|()| AtomicBool::new(false));
        let member = Self { actions, slot, ticket: None, enrolled, waited_for, traced };
        NonNull::from(Box::leak(Box::new(member)))
    }

    /// A child that does not share this process's actions.
    pub fn forked(&self) -> Result<NonNull<Self>> {
        let Some(control) = process::control() else {
            return Ok(Self::new(self.actions.copied(), u32::MAX));
        };
        let number = self.take_slot(&control.slots)?;
        let mut ticket = None;
        if let (Some(own), Some(child)) = (control.slots.get(self.slot), control.slots.get(number))
        {
            copy(own, child);
            ticket = Some(child.ticket());
        }
        let mut member = Self::new(self.actions.copied(), number);
        // SAFETY: it is new, and nobody else knows it.
        unsafe { member.as_mut() }.ticket = ticket;
        Ok(member)
    }

    /// Takes a slot for a child; without one, fails like the host at its limit of processes.
    fn take_slot(&self, slots: &Slots) -> Result<u32> {
        /// How often to ask the keeper to look for children that were killed early, and the time it
        /// has for that, in nanoseconds.
        const ASKED: usize = 1000;
        const PAUSE: u64 = 2_000_000;
        for _ in 0..ASKED {
            match slots.take() {
                Some(slot) => return Ok(slot),
                None if slots.unborn().next().is_none() => break,
                None => keeper::press(self),
            }
            let pause = [0, PAUSE];
            // SAFETY: the time lives for the call.
            let _ = unsafe { sys::call(nr::__NR_nanosleep, [(&raw const pause) as u64, 0]) };
        }
        Err(Errno::EAGAIN)
    }

    /// Frees a process, and its slot if the keeper does not know it.
    ///
    /// # Safety
    /// No thread of this address space belongs to it.
    pub unsafe fn end(member: NonNull<Self>, child: Child) {
        // SAFETY: made by `new`; the caller vouches for the rest.
        let member = unsafe { Box::from_raw(member.as_ptr()) };
        if let (Some(control), Child::Gone, false) =
            (process::control(), child, member.enrolled.load(Relaxed))
        {
            control.slots.release(member.slot);
        }
    }

    /// The ticket of its slot; `None` if no parent of this tree took it.
    pub fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }

    /// Its place in the control memory.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Notes that the keeper knows it.
    pub fn enrol(&self) {
        self.enrolled.store(true, Relaxed);
    }

    /// Notes that its parent waits until it ends or executes a program.
    pub fn is_waited_for(&self) {
        self.waited_for.store(true, Relaxed);
    }

    /// Notes that its parent should trace it; returns whether that must wait until it executes a
    /// program.
    ///
    /// A tracee stops at every signal, and so at every system call, until its tracer continues it.
    /// A parent that waits for it cannot.
    pub fn defer_tracing(&self) -> bool {
        let waits = self.waited_for.load(Relaxed);
        self.traced.store(waits, Relaxed);
        waits
    }

    /// Whether its parent should trace the program that it executes.
    pub fn is_to_be_traced(&self) -> bool {
        self.traced.load(Relaxed)
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
    Gone,
}

/// The parent's state that a child inherits.
fn copy(own: &'static Slot, child: &'static Slot) {
    child.control_fd.store(own.control_fd.load(Relaxed), Relaxed);
    child.socket_fd.store(own.socket_fd.load(Relaxed), Relaxed);
    child.code_fd.store(own.code_fd.load(Relaxed), Relaxed);
    for (own, child) in own.swap_fds.iter().zip(&child.swap_fds) {
        child.store(own.load(Relaxed), Relaxed);
    }
    child.nofile_soft.store(own.nofile_soft.load(Relaxed), Relaxed);
    child.nofile_hard.store(own.nofile_hard.load(Relaxed), Relaxed);
    child.file_size_below.store(own.file_size_below.load(Relaxed), Relaxed);
    let limits = |slot: &'static Slot| slot.addresses_below.iter().chain(&slot.data_below);
    for (own, child) in limits(own).zip(limits(child)) {
        child.store(own.load(Relaxed), Relaxed);
    }
}
