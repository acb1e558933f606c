//! Frames under a limit shared by several machines, those of a tree of processes.
//!
//! A machine spends a *credit* for each frame that it allocates, and gets credits from the tree in
//! batches. After a process fork both processes map the same host pages: their frames are *shared*,
//! and one credit pays for all members of the share. A process that stores to its page gets a copy
//! from the host, and leaves the share with a credit of its own. The last member to leave gives the
//! share's credit back.

use crate::frame::{Held, Location};
use crate::host;
use crate::lock;
use crate::machine::Shared;
use crate::uffd::Mapped;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use pagefault_machine::{Frame, PAGE_SIZE};
use rustix::io::Errno;

/// Gives credits, and knows which frames are shared. Called under a frame's lock: no method may
/// wait.
pub trait Quota: Send + Sync {
    /// Gives up to `wanted` credits; 0 if the tree has none left.
    fn take(&self, wanted: u32) -> u32;
    /// Takes credits back.
    fn give(&self, credits: u32);
    /// Takes a credit for a page that is already resident, whatever the limit.
    fn take_anyway(&self);
    /// The credits available at present.
    fn free(&self) -> u32;
    /// The share of a frame; 0 for none.
    fn share_of(&self, frame: Frame) -> u32;
    /// The word that tells the share of a frame, if there is one in memory.
    fn share_word(&self, _frame: Frame) -> Option<&AtomicU32> {
        None
    }
    /// Notes the share of a frame.
    fn set_share(&self, frame: Frame, share: u32);
    /// Leaves a share; the last one to leave gives its credit back to the tree.
    fn leave(&self, share: u32);
    /// Takes the credit of a share if the caller is its only member; returns whether it did.
    fn take_over(&self, share: u32) -> bool;
}

/// The child's side of a fork, which notes its shares before it begins.
pub trait ChildShares {
    /// Puts a frame into `share`, or into a new share if that is 0, for parent and child. Returns
    /// the share, or 0 if there is no room for another.
    fn join(&self, frame: Frame, share: u32) -> u32;
    /// Takes a credit on the child's behalf for a frame of its own.
    fn take_anyway(&self);
}

/// How many credits to request at once.
const BATCH: u32 = 32;

/// The credits of one machine.
pub struct Credits {
    quota: Option<Box<dyn Quota>>,
    /// Unspent credits.
    unspent: AtomicU32,
}

impl Credits {
    pub fn new(quota: Option<Box<dyn Quota>>) -> Self {
        Self { quota, unspent: AtomicU32::new(0) }
    }

    /// Spends a credit for one frame; false if none is available.
    pub fn spend(&self) -> bool {
        let Some(quota) = &self.quota else { return true };
        let one = |unspent: u32| unspent.checked_sub(1);
        if lock::is_sole() {
            if let Some(left) = one(self.unspent.load(Relaxed)) {
                self.unspent.store(left, Relaxed);
                return true;
            }
        } else if self.unspent.fetch_update(Relaxed, Relaxed, one).is_ok() {
            return true;
        }
        let Some(more) = quota.take(BATCH).checked_sub(1) else { return false };
        self.unspent.fetch_add(more, Relaxed);
        true
    }

    /// Takes back the credit of a frame.
    pub fn refund(&self) {
        let Some(quota) = &self.quota else { return };
        if self.unspent.fetch_add(1, Relaxed) >= 2 * BATCH {
            let some = |unspent: u32| unspent.checked_sub(BATCH);
            if self.unspent.fetch_update(Relaxed, Relaxed, some).is_ok() {
                quota.give(BATCH);
            }
        }
    }

    /// Takes credits that are already charged to the tree.
    pub fn grant(&self, credits: u32) {
        if self.quota.is_some() {
            self.unspent.fetch_add(credits, Relaxed);
        }
    }

    /// Gives back unspent credits.
    pub fn give_back(&self) {
        if let Some(quota) = &self.quota {
            quota.give(self.unspent.swap(0, Relaxed));
        }
    }

    /// The frames that could be paid for.
    pub fn free(&self) -> u32 {
        let Some(quota) = &self.quota else { return u32::MAX };
        quota.free().saturating_add(self.unspent.load(Relaxed))
    }

    /// In a forked child, forgets the parent's credits.
    pub fn begin_child(&self) {
        self.unspent.store(0, Relaxed);
    }

    /// Ends the use of a frame.
    pub fn release(&self, frame: Frame) {
        let Some(quota) = &self.quota else { return };
        match quota.share_of(frame) {
            0 => self.refund(),
            share => {
                quota.set_share(frame, 0);
                quota.leave(share);
            }
        }
    }

    /// Begins to load what is noted about a frame.
    pub fn prefetch(&self, frame: Frame) {
        if let Some(word) = self.quota.as_ref().and_then(|quota| quota.share_word(frame)) {
            host::prefetch(word);
        }
    }

    /// Whether other machines have the frame too.
    pub fn is_shared(&self, frame: Frame) -> bool {
        self.quota.as_ref().is_some_and(|quota| quota.share_of(frame) != 0)
    }

    /// Makes a frame this machine's own, whose content is about to get a page of its own.
    pub fn own(&self, frame: Frame) {
        if self.try_own(frame) {
            return;
        }
        let Some(quota) = &self.quota else { return };
        let share = quota.share_of(frame);
        quota.take_anyway();
        quota.set_share(frame, 0);
        quota.leave(share);
    }

    /// The same if the page could stay shared; false if this needs a credit and there is none.
    pub fn try_own(&self, frame: Frame) -> bool {
        let Some(quota) = &self.quota else { return true };
        let share = quota.share_of(frame);
        if share == 0 {
            return true;
        }
        if quota.take_over(share) {
            quota.set_share(frame, 0);
            return true;
        }
        if !self.spend() {
            return false;
        }
        quota.set_share(frame, 0);
        quota.leave(share);
        true
    }
}

impl Shared {
    /// Shares the mapped frames with a child that is about to be forked, and makes their next
    /// stores fault. Frames for which `is_kept` is true are not shared: the host itself stores
    /// there.
    pub fn share_with_child(
        &self,
        child: &dyn ChildShares,
        is_kept: impl Fn(Frame) -> bool,
    ) -> Result<(), Errno> {
        let Some(quota) = &self.credits.quota else { return Ok(()) };
        let mut writable = Vec::new();
        for number in 0..self.frames.used() {
            let held = self.frames.hold(Frame(number));
            match held.location() {
                Location::Free => {}
                Location::At(host, mapped) if !is_kept(held.frame()) => {
                    let share = child.join(held.frame(), quota.share_of(held.frame()));
                    if share == 0 {
                        child.take_anyway();
                        continue;
                    }
                    quota.set_share(held.frame(), share);
                    if mapped == Mapped::Writable {
                        held.set_location(Location::At(host, Mapped::WriteProtected));
                        writable.push(host);
                    }
                }
                _ => child.take_anyway(),
            }
        }
        self.protect_pages(writable)
    }

    /// Write-protects pages, run by run.
    pub fn protect_pages(&self, mut hosts: Vec<u64>) -> Result<(), Errno> {
        hosts.sort_unstable();
        for run in hosts.chunk_by(|a, b| a + PAGE_SIZE == *b) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            self.protect_range(*first..*last + PAGE_SIZE)?;
        }
        Ok(())
    }

    /// Makes a frame this machine's own before its page is stored to.
    pub fn own_for_store(&self, held: &Held<'_>) -> Result<(), Errno> {
        if self.credits.try_own(held.frame()) { Ok(()) } else { Err(Errno::NOBUFS) }
    }
}
