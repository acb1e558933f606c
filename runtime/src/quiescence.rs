//! Which threads could store to the program's memory: those that are not *quiescent*.
//!
//! A thread that waits in a host call, with all pages that the call writes pinned, stores to no page that
//! may be evicted. While all other threads are quiescent, an evicting thread need not write-protect pages,
//! which would cost a host call and an interrupt each. It works in a *section*: a thread that comes back
//! meanwhile waits for its end.
//!
//! Each side first announces itself and then checks the other (Dekker): the section sees that a thread is
//! back, or the thread sees the section. A section is as long as one fault, and never waits for the
//! program. Since no other thread is in the manager meanwhile, its locks need no atomic exchange
//! ([`lock::set_sole`]).

use crate::thread::Thread;
use core::cell::Cell;
use core::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32};
use pagefault_linux::lock;

/// The context of the thread that is alone in a section, or checks whether it could be; or `NOBODY`.
static SOLE: AtomicU32 = AtomicU32::new(NOBODY);
/// No started thread has this context.
const NOBODY: u32 = 0;
/// How many threads wait to come back. While there are any, no thread becomes alone.
static WAITERS: AtomicU32 = AtomicU32::new(0);

/// A thread's state.
#[derive(Default)]
pub struct Presence {
    is_quiescent: AtomicBool,
    section: Cell<Phase>,
    /// Whether the thread was one of several in the last section that asked.
    had_company: Cell<bool>,
}

/// What a thread knows about its section.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// The thread is in no section: others may come back at any moment.
    #[default]
    Outside,
    /// It has not asked yet whether it is alone.
    Open,
    /// The thread is alone until the section ends.
    Sole,
    /// It is one of several.
    OneOfMany,
}

impl Presence {
    /// Whether the thread is quiescent.
    pub fn is_quiescent(&self) -> bool {
        self.is_quiescent.load(SeqCst)
    }
}

/// The calling thread is quiescent until this is dropped.
pub struct Quiescent<'a>(&'a Thread);

/// Declares that the calling thread stores only to pinned pages until the result is dropped.
pub fn leave(thread: &Thread) -> Quiescent<'_> {
    thread.presence.is_quiescent.store(true, Release);
    Quiescent(thread)
}

impl Drop for Quiescent<'_> {
    fn drop(&mut self) {
        come_back(self.0);
    }
}

/// A thread that may be quiescent is not until this is dropped.
pub struct Back<'a>(Option<&'a Thread>);

/// Begins work of the manager in a thread that may be quiescent: in a handler that interrupts its call, or where
/// the call's preparation meets an absent page.
pub fn back(thread: &Thread) -> Back<'_> {
    if !thread.presence.is_quiescent() {
        return Back(None);
    }
    come_back(thread);
    Back(Some(thread))
}

impl Drop for Back<'_> {
    fn drop(&mut self) {
        if let Some(thread) = self.0 {
            thread.presence.is_quiescent.store(true, Release);
        }
    }
}

/// Ends being quiescent, once no other thread is alone in a section.
fn come_back(thread: &Thread) {
    let is_quiescent = &thread.presence.is_quiescent;
    let mut waits = false;
    loop {
        is_quiescent.store(false, SeqCst);
        let sole = SOLE.load(SeqCst);
        if sole == NOBODY {
            break;
        }
        is_quiescent.store(true, SeqCst);
        if !waits {
            // From now on no thread becomes alone, even if sections follow each other closely.
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

/// Begins a section, or continues the thread's current one.
pub fn section(thread: &Thread) -> Section<'_> {
    let section = &thread.presence.section;
    if section.get() != Phase::Outside || thread.presence.is_quiescent() {
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

/// Begins a section that gains from being alone from its start, and asks at once whether it is.
///
/// A thread that was not alone the last time asks only when it evicts, where being alone gains most: threads
/// that ask at the same time would contend for the list of threads.
pub fn long_section(thread: &Thread) -> Section<'_> {
    let begun = section(thread);
    if begun.0.is_some() && !thread.presence.had_company.get() {
        is_alone(thread);
    }
    begun
}

/// Whether no other thread can store to the program's memory. In a section, the answer holds until its
/// end. Outside, threads that are quiescent count like all others.
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

/// Keeps the other threads quiescent, if all are quiescent and none waits to come back.
fn close(thread: &Thread) -> bool {
    if SOLE.compare_exchange(NOBODY, thread.context(), SeqCst, Relaxed).is_err() {
        return false;
    }
    let alone = WAITERS.load(SeqCst) == 0 && thread.are_others_quiescent();
    if alone {
        // SAFETY: all others are quiescent and cannot come back until `open`, and threads that are quiescent
        // use no lock of the manager. The sequentially consistent accesses to `SOLE` order their earlier work
        // before this.
        unsafe { lock::set_sole(true) };
    } else {
        open();
    }
    alone
}

/// Lets the waiting threads come back.
fn open() {
    // SAFETY: a thread that comes back reads `SOLE` first, which is stored afterwards.
    unsafe { lock::set_sole(false) };
    SOLE.store(NOBODY, SeqCst);
    if WAITERS.load(SeqCst) > 0 {
        lock::wake_all(&SOLE);
    }
}

/// In a forked child: the parent's other threads do not exist, and are in no section.
pub fn after_fork_child() {
    // SAFETY: there is no other thread.
    unsafe { lock::set_sole(false) };
    SOLE.store(NOBODY, Relaxed);
    WAITERS.store(0, Relaxed);
}
