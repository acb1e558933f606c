//! Prepares and completes a process fork.
//!
//! The child is a copy with one thread. The forking thread holds the gate exclusively, so that no
//! other thread is inside the memory manager. The child then continues with a userfaultfd of its
//! own.

use super::{GATE, Manager, PAGE, addresses, current, events, lock, passive, quota, swap};
use crate::lock::Mutex;
use crate::stops::Gate;
use crate::sys::{Errno, Result};
use crate::{files, process};
use alloc::vec::Vec;
use core::ops::Range;
use linux_raw_sys::general as nr;
use lock_api::RwLockWriteGuard;

/// What is held from before a fork until both sides go on.
pub struct Fork(Option<Held>);

struct Held {
    gate: RwLockWriteGuard<'static, Gate, ()>,
    child: Child,
}

/// Opens the descriptors that the memory manager needs for a takeover before a thread gets another
/// descriptor table: a later descriptor would be in only one of the tables.
pub fn before_other_descriptors() {
    let Some(manager) = current() else { return };
    let _gate = GATE.write();
    manager.begin_machine();
}

/// The holdings in the child's name.
struct Child {
    frames: quota::Child,
    swap: swap::Child,
}

/// Ranges that a child does not inherit unchanged.
static EXCEPTIONS: Mutex<Exceptions> =
    Mutex::new(Exceptions { withheld: Vec::new(), wiped: Vec::new() });

struct Exceptions {
    /// `MADV_DONTFORK`: the child has no such mapping.
    withheld: Vec<Range<u64>>,
    /// `MADV_WIPEONFORK`: the child's mapping is empty.
    wiped: Vec<Range<u64>>,
}

/// Notes advice that concerns forks.
pub fn note(range: &Range<u64>, advice: u32) {
    let mut exceptions = EXCEPTIONS.lock();
    match advice {
        nr::MADV_DONTFORK => insert(&mut exceptions.withheld, range),
        nr::MADV_DOFORK => remove(&mut exceptions.withheld, range),
        nr::MADV_WIPEONFORK => insert(&mut exceptions.wiped, range),
        nr::MADV_KEEPONFORK => remove(&mut exceptions.wiped, range),
        _ => {}
    }
}

/// Forgets the notes on a range whose mapping is gone.
pub fn forget(range: &Range<u64>) {
    let mut exceptions = EXCEPTIONS.lock();
    remove(&mut exceptions.withheld, range);
    remove(&mut exceptions.wiped, range);
}

fn insert(ranges: &mut Vec<Range<u64>>, range: &Range<u64>) {
    remove(ranges, range);
    ranges.push(range.clone());
}

fn remove(ranges: &mut Vec<Range<u64>>, range: &Range<u64>) {
    let mut kept = Vec::new();
    for old in ranges.drain(..) {
        let before = old.start..old.end.min(range.start);
        let after = old.start.max(range.end)..old.end;
        kept.extend([before, after].into_iter().filter(|piece| piece.start < piece.end));
    }
    *ranges = kept;
}

/// Stops the memory manager before the child with `slot` is made.
pub fn before_fork(slot: u32) -> Result<Fork> {
    let Some(manager) = current() else { return Ok(Fork(None)) };
    let gate = GATE.write();
    if passive::is_passive() && !manager.forks_passive(slot) {
        manager.convert(&(0..0));
    }
    // Unmapped pages would exist twice, and the tree would exceed its limit.
    manager.mm().manager().evict_standby();
    manager.swap.before_fork();
    manager.machine.before_fork();
    let child = match child(manager, slot) {
        Ok(child) => child,
        Err(errno) => {
            // SAFETY: `before_fork` was called above.
            unsafe { manager.machine.after_fork_parent() };
            return Err(errno);
        }
    };
    let memory = manager.mm().manager();
    let shared = manager.machine.share_with_child(&child.frames, |frame| memory.is_pinned(frame));
    let fork = Fork(Some(Held { gate, child }));
    match shared {
        Ok(()) => Ok(fork),
        Err(errno) => {
            after_fork_in_parent(fork, Made::No);
            Err(Errno(errno.raw_os_error()))
        }
    }
}

impl Manager {
    /// Gives a passive child a userfaultfd of its own, if it has none. The gate is held exclusively.
    pub(super) fn begin_machine(&self) {
        // SAFETY: whoever uses the machine holds the gate.
        if let Err(error) = unsafe { self.machine.begin_in_child() } {
            process::stop(format_args!("a forked process cannot manage its memory: {error}"));
        }
    }

    /// Continues with the parent's pages in an active child.
    fn go_on_full(&self) {
        let ranges = self.parts(&(PAGE..crate::user::END));
        let ranges = ranges.iter().map(|(range, _)| addresses(range));
        // SAFETY: this is the child's only thread, and the ranges are those of its regions.
        let gone_on = unsafe { self.machine.after_fork_child(self.mm().space(), ranges) };
        if let Err(error) = gone_on {
            process::stop(format_args!("a forked process cannot go on: {error}"));
        }
    }

    /// Charges a passive child that is about to be forked; false if it must not be passive.
    ///
    /// A passive child could change all of the parent's pages, and pays for all of them. A active child
    /// pays only for the pages that it does change. It is impossible to learn later which pages two
    /// passive processes share: when they become active, each pays for all its pages. So memory is paid
    /// for twice only if there is plenty.
    fn forks_passive(&self, slot: u32) -> bool {
        const MUCH: u64 = 16;
        const PLENTY: u64 = 4;
        let paid = self.bound.lock().paid;
        let limit = self.tree.limit();
        let is_tight = paid > limit / MUCH && self.tree.charged() + paid > limit / PLENTY;
        !is_tight && self.tree.charge_for(slot, paid)
    }
}

/// Prepares what is held in the child's name.
fn child(manager: &'static Manager, slot: u32) -> Result<Child> {
    let [file, ..] = files::shared();
    let frames = manager.tree.child(slot, file)?;
    match manager.swap.child(slot, file) {
        Ok(swap) => Ok(Child { frames, swap }),
        Err(errno) => {
            frames.undo();
            Err(errno)
        }
    }
}

impl Child {
    fn become_this(self) {
        self.frames.become_this();
        self.swap.become_this();
    }

    fn leave_to_child(self) {
        self.frames.leave_to_child();
        self.swap.leave_to_child();
    }

    fn undo(self) {
        self.frames.undo();
        self.swap.undo();
    }
}

/// Whether there is a child.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Made {
    Yes,
    No,
}

/// Continues in the parent, or after a fork that failed.
pub fn after_fork_in_parent(fork: Fork, made: Made) {
    let (Some(manager), Some(Held { gate, child })) = (current(), fork.0) else { return };
    match made {
        Made::Yes => child.leave_to_child(),
        Made::No => child.undo(),
    }
    // SAFETY: a `Fork` that holds a child comes from `before_fork`, which called the machine's.
    unsafe { manager.machine.after_fork_parent() };
    drop(gate);
}

/// Continues in the child.
pub fn after_fork_in_child(fork: Fork) {
    let (Some(manager), Some(Held { gate, child })) = (current(), fork.0) else { return };
    let slot = child.frames.slot();
    child.become_this();
    leave_what_is_not_inherited(manager);
    if passive::is_passive() {
        // SAFETY: as in `after_fork_in_parent`, in a copy of the thread.
        unsafe { manager.machine.after_fork_idle_child() };
    } else {
        manager.go_on_full();
    }
    passive::say(manager);
    if let Some(control) = process::control() {
        control.counters.forks.add(1);
        let [file, ..] = files::shared();
        events::after_fork_in_child(control, slot, file);
    }
    drop(gate);
}

/// Forgets what the host did not give to the child: some ranges, and all locks.
fn leave_what_is_not_inherited(manager: &Manager) {
    lock::leave_in_child(manager);
    let Exceptions { withheld, wiped } = &mut *EXCEPTIONS.lock();
    for range in core::mem::take(withheld) {
        manager.replaced_unnoted(&range);
    }
    for range in wiped.iter() {
        manager.unguard(range);
        manager.parts(range).iter().for_each(|(part, _)| manager.dropped(part));
    }
}
