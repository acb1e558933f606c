//! The frames of the tree: this process's charge, and the frames that it shares with its relatives.

use super::current;
use crate::shared::{self, ACCESS};
use crate::supervisor;
use crate::sys::Result;
use crate::thread::Thread;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU32};
use pagefault_control::{Control, Plan, Shares};
use pagefault_linux::{ChildShares, Quota};
use pagefault_machine::Frame;

/// The charge of this process.
pub struct Tree {
    control: &'static Control,
    plan: Plan,
    shares: Shares<'static>,
    /// Where the search for a free share begins.
    hint: AtomicU32,
    slot: AtomicU32,
    /// The share of each frame.
    column: AtomicPtr<AtomicU32>,
}

impl Tree {
    /// The charge of the process that has a slot.
    pub fn new(control: &'static Control, slot: u32, file: u32) -> Result<Self> {
        let plan = control.plan();
        let shares = shared::map(file, plan.shares(), ACCESS)?.cast();
        let column = shared::map(file, plan.column(slot), ACCESS)?;
        // SAFETY: the mapping has a word for each frame and one more, and is never unmapped.
        let words = unsafe { core::slice::from_raw_parts(shares, plan.frames() as usize + 1) };
        Ok(Self {
            control,
            plan,
            shares: Shares::new(words),
            hint: AtomicU32::new(1),
            slot: AtomicU32::new(slot),
            column: AtomicPtr::new(column.cast()),
        })
    }

    /// The most frames of the tree, now.
    pub fn limit(&self) -> u64 {
        self.control.frames()
    }

    /// The frames that the tree is charged with.
    pub fn charged(&self) -> u64 {
        self.control.slots.charged()
    }

    /// Charges pages to this process; false if the tree has no room for all of them.
    pub fn charge(&self, pages: u64) -> bool {
        self.charge_for(self.slot(), pages)
    }

    /// Charges pages to the process with a slot.
    pub fn charge_for(&self, slot: u32, pages: u64) -> bool {
        let fits = |pages| self.control.slots.charge(slot, pages, self.limit());
        u32::try_from(pages).is_ok_and(fits)
    }

    /// Takes a charge back.
    pub fn uncharge(&self, pages: u64) {
        self.control.slots.uncharge(self.slot(), pages as u32);
    }

    /// Whether this process has less than its part of the tree's frames.
    fn is_poor(&self) -> bool {
        let slots = &self.control.slots;
        let own = slots.get(self.slot()).map_or(0, |slot| u64::from(slot.resident()));
        // A process with all the frames in use need not count the others.
        if own >= slots.charged() {
            return false;
        }
        own.saturating_mul(slots.taken() as u64) < self.limit()
    }

    /// Takes one process out of a share.
    fn end(&self, share: u32) {
        if self.shares.leave(share) {
            self.control.slots.end_share();
        }
    }

    /// The slot of this process.
    pub fn slot(&self) -> u32 {
        self.slot.load(Relaxed)
    }

    fn share(&self, frame: Frame) -> &AtomicU32 {
        // SAFETY: a column has a word for each frame, and stays mapped while it is this one.
        unsafe { &*self.column.load(Acquire).add(frame.0 as usize) }
    }

    /// Prepares the column of a child.
    pub fn child(&'static self, slot: u32, file: u32) -> Result<Child> {
        let column = shared::map(file, self.plan.column(slot), ACCESS)?;
        Ok(Child { tree: self, slot, column: column.cast() })
    }
}

impl Quota for &'static Tree {
    fn take(&self, wanted: u32) -> u32 {
        let mut some = wanted;
        while some > 0 && !self.control.slots.charge(self.slot(), some, self.limit()) {
            some /= 2;
        }
        if some == 0 && self.is_poor() {
            supervisor::request_reclaim(Thread::current().member());
        }
        some
    }

    fn give(&self, credits: u32) {
        self.control.slots.uncharge(self.slot(), credits);
    }

    fn take_anyway(&self) {
        self.control.slots.charge(self.slot(), 1, u64::MAX);
    }

    fn free(&self) -> u32 {
        self.limit().saturating_sub(self.control.slots.charged()) as u32
    }

    fn share_of(&self, frame: Frame) -> u32 {
        self.share(frame).load(Relaxed)
    }

    fn share_word(&self, frame: Frame) -> Option<&AtomicU32> {
        Some(self.share(frame))
    }

    fn set_share(&self, frame: Frame, share: u32) {
        self.share(frame).store(share, Relaxed);
    }

    fn leave(&self, share: u32) {
        self.control.slots.leave_share(self.slot());
        self.end(share);
    }

    fn take_over(&self, share: u32) -> bool {
        let alone = self.shares.end(share);
        if alone {
            self.control.slots.leave_share(self.slot());
            self.control.slots.take_over(self.slot());
        }
        alone
    }
}

/// Takes back this process's charge, before it executes an unmanaged program.
pub fn discharge() -> u32 {
    let Some(tree) = current().map(|manager| manager.tree) else { return 0 };
    let thread = Thread::current();
    if thread.member().slot() != tree.slot() || thread.is_memory_shared(thread.member().into()) {
        // A child that shares this memory for a while has no charge of its own; one that goes on in it needs
        // what is charged.
        return 0;
    }
    let charged = tree.control.slots.get(tree.slot()).map_or(0, |slot| slot.charged());
    tree.control.slots.uncharge(tree.slot(), charged);
    charged
}

/// Restores the charge if the program could not be executed.
pub fn charge_again(charge: u32) {
    if let Some(tree) = current().map(|manager| manager.tree) {
        tree.control.slots.charge(tree.slot(), charge, u64::MAX);
    }
}

/// The column of a child that is about to be forked.
pub struct Child {
    tree: &'static Tree,
    slot: u32,
    column: *mut AtomicU32,
}

impl Child {
    /// The slot of the child.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Makes the column this process's own: in the child.
    pub fn become_this(self) {
        let old = self.tree.column.swap(self.column, Release);
        self.tree.slot.store(self.slot, Relaxed);
        self.unmap(old);
    }

    /// Undoes what was noted: there is no child.
    pub fn undo(self) {
        let frames = self.tree.plan.frames();
        for frame in 0..frames {
            // SAFETY: a column has a word for each frame.
            let share = unsafe { &*self.column.add(frame as usize) }.load(Relaxed);
            if share != 0 {
                self.tree.end(share);
            }
        }
        self.tree.control.slots.discharge(self.slot);
        self.unmap(self.column);
    }

    /// Leaves the column to the child: in the parent.
    pub fn leave_to_child(self) {
        self.unmap(self.column);
    }

    fn unmap(&self, column: *mut AtomicU32) {
        // SAFETY: nobody uses the mapping any more.
        unsafe { shared::unmap(column.cast(), self.tree.plan.column_len()) };
    }
}

impl ChildShares for Child {
    fn join(&self, frame: Frame, share: u32) -> u32 {
        let shares = &self.tree.shares;
        let share = match share {
            0 => match shares.begin(&self.tree.hint) {
                Some(share) => {
                    self.tree.control.slots.begin_share(self.tree.slot());
                    self.tree.control.slots.join_share(self.tree.slot());
                    share
                }
                None => return 0,
            },
            share => {
                shares.join(share);
                share
            }
        };
        self.tree.control.slots.join_share(self.slot);
        // SAFETY: a column has a word for each frame.
        unsafe { &*self.column.add(frame.0 as usize) }.store(share, Relaxed);
        share
    }

    fn take_anyway(&self) {
        self.tree.control.slots.charge(self.slot, 1, u64::MAX);
    }
}
