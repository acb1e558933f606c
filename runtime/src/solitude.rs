//! Who could store to the program's memory: the threads that are not *away*.
//!
//! A thread that waits in a call of the host's, with every page that the call writes pinned, stores to no
//! page that may leave. While all others are away, a thread that evicts need not take from pages the
//! right to store, which would cost a call of the host's and an interrupt for each. It works in a
//! *section*: whoever comes back meanwhile waits for its end.
//!
//! Either side first says what it does and then looks at the other (Dekker): a section sees that a thread
//! is back, or the thread sees the section. A section is as long as one fault; within it nobody waits for
//! the program. As nobody else is in the manager then, its locks need no atomic exchange
//! ([`lock::set_sole`]).

use crate::thread::Thread;
use core::cell::Cell;
use core::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32};
use pagefault_linux::lock;

/// The context of the thread that is in a section by itself, or looks whether it could be; or `NOBODY`.
static SOLE: AtomicU32 = AtomicU32::new(NOBODY);
/// No thread has this context but one that has not begun.
const NOBODY: u32 = 0;
/// How many threads wait to come back. While there are any, nobody is alone.
static WAITERS: AtomicU32 = AtomicU32::new(0);

/// A thread's part in this.
#[derive(Default)]
pub struct Presence {
    is_away: AtomicBool,
    section: Cell<Phase>,
    /// Whether the thread was one of several in the last section that asked.
    had_company: Cell<bool>,
}

/// What is known in a section.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// The thread is in no section: others that are away may come back at any moment.
    #[default]
    Outside,
    /// Nobody has asked yet.
    Open,
    /// The thread is alone until the section ends.
    Sole,
    /// It is one of several.
    OneOfMany,
}

impl Presence {
    /// Whether the thread is away.
    pub fn is_away(&self) -> bool {
        self.is_away.load(SeqCst)
    }
}

/// The calling thread is away until this is dropped.
pub struct Away<'a>(&'a Thread);

/// Says that the calling thread stores to no page that is not pinned until the result is dropped.
pub fn leave(thread: &Thread) -> Away<'_> {
    thread.presence.is_away.store(true, Release);
    Away(thread)
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        come_back(self.0);
    }
}

/// Does something of the manager's in a thread that may be away: in a handler that interrupts its call.
pub fn back_for<R>(thread: &Thread, what: impl FnOnce() -> R) -> R {
    if !thread.presence.is_away() {
        return what();
    }
    come_back(thread);
    let result = what();
    thread.presence.is_away.store(true, Release);
    result
}

/// Ends being away, when no other thread is in a section.
fn come_back(thread: &Thread) {
    let is_away = &thread.presence.is_away;
    let mut waits = false;
    loop {
        is_away.store(false, SeqCst);
        let sole = SOLE.load(SeqCst);
        if sole == NOBODY {
            break;
        }
        is_away.store(true, SeqCst);
        if !waits {
            // From now on no section begins, however fast they follow each other.
            WAITERS.fetch_add(1, SeqCst);
            waits = true;
        }
        lock::wait(&SOLE, sole);
    }
    if waits {
        WAITERS.fetch_sub(1, SeqCst);
    }
}

/// The calling thread works in a section until this is dropped.
pub struct Section<'a>(Option<&'a Thread>);

/// Begins a section, or goes on with the one that the thread is in.
pub fn section(thread: &Thread) -> Section<'_> {
    let section = &thread.presence.section;
    if section.get() != Phase::Outside || thread.presence.is_away() {
        return Section(None);
    }
    section.set(Phase::Open);
    Section(Some(thread))
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let Some(thread) = self.0 else { return };
        let presence = &thread.presence;
        match presence.section.replace(Phase::Outside) {
            Phase::Sole => {
                presence.had_company.set(false);
                open();
            }
            Phase::OneOfMany => presence.had_company.set(true),
            Phase::Open | Phase::Outside => {}
        }
    }
}

/// Begins a section that gains by being sole from its start, and asks at once whether it is.
///
/// A thread that had company the last time asks only where it gains most, when it evicts: threads that work at
/// the same time would meet at their list.
pub fn long_section(thread: &Thread) -> Section<'_> {
    let begun = section(thread);
    if begun.0.is_some() && !thread.presence.had_company.get() {
        is_alone(thread);
    }
    begun
}

/// Whether no other thread could store to the program's memory, which stays so until the section ends.
/// Outside of a section those that are away count like all others.
pub fn is_alone(thread: &Thread) -> bool {
    let section = &thread.presence.section;
    match section.get() {
        Phase::Outside => thread.is_only(),
        Phase::Sole => true,
        Phase::OneOfMany => false,
        Phase::Open => {
            let alone = close(thread);
            section.set(if alone { Phase::Sole } else { Phase::OneOfMany });
            alone
        }
    }
}

/// Keeps those that are away from coming back, if all others are and none waits to.
fn close(thread: &Thread) -> bool {
    if SOLE.compare_exchange(NOBODY, thread.context(), SeqCst, Relaxed).is_err() {
        return false;
    }
    let alone = WAITERS.load(SeqCst) == 0 && thread.are_others_away();
    if alone {
        // SAFETY: all others are away and cannot come back until `open`, and whoever is away uses no
        // lock of the manager's: `SOLE`, which both sides exchange in one order, orders what they did.
        unsafe { lock::set_sole(true) };
    } else {
        open();
    }
    alone
}

/// Lets those that wait come back.
fn open() {
    // SAFETY: whoever comes back sees `SOLE` first, which is stored afterwards.
    unsafe { lock::set_sole(false) };
    SOLE.store(NOBODY, SeqCst);
    if WAITERS.load(SeqCst) > 0 {
        lock::wake_all(&SOLE);
    }
}

/// In a forked child: the threads that are not here are in no section.
pub fn after_fork_child() {
    // SAFETY: there is no other thread.
    unsafe { lock::set_sole(false) };
    SOLE.store(NOBODY, Relaxed);
    WAITERS.store(0, Relaxed);
}
