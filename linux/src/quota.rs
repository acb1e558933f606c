//! Frames under a limit that several machines share: those of a tree of processes.
//!
//! A machine spends a *credit* for each frame that it allocates, and gets credits from the tree in
//! batches. After a process fork both processes show the same host pages: the frames that stand
//! there are *shared*, and one credit pays for all who show a page. Whoever stores to its page gets
//! a copy from the host, and leaves the share with a credit of its own; the last who leaves gives
//! the share's credit back.

use crate::frame::{Held, Home};
use crate::lock;
use crate::machine::Shared;
use crate::uffd::Mapped;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use pagefault_machine::{Frame, PAGE_SIZE};
use rustix::io::Errno;

/// Who gives credits, and knows which frames are shared. Called under a frame's lock: nothing here
/// may wait.
pub trait Quota: Send + Sync {
    /// Gives up to `wanted` credits; 0 if the tree has none left.
    fn take(&self, wanted: u32) -> u32;
    /// Takes credits back.
    fn give(&self, credits: u32);
    /// Takes a credit for a page that is resident already, whatever the limit.
    fn take_anyway(&self);
    /// The credits that could be had at present.
    fn free(&self) -> u32;
    /// The share that a frame is in; 0 for none.
    fn share_of(&self, frame: Frame) -> u32;
    /// Says which share a frame is in.
    fn set_share(&self, frame: Frame, share: u32);
    /// Leaves a share; the last one to leave gives its credit back to the tree.
    fn leave(&self, share: u32);
    /// Takes the credit of a share that nobody else is in; whether that was so.
    fn take_over(&self, share: u32) -> bool;
}

/// The other side of a fork: where the child's shares are noted before it begins.
pub trait ChildShares {
    /// Puts a frame into `share`, or into a new share where that is 0, for parent and child; returns
    /// the share, or 0 where there is no room for one more.
    fn join(&self, frame: Frame, share: u32) -> u32;
    /// Takes a credit in the child's name for a frame that it has to itself.
    fn take_anyway(&self);
}

/// How many credits are asked for at once.
const BATCH: u32 = 32;

/// The credits of one machine.
pub struct Credits {
    quota: Option<Box<dyn Quota>>,
    /// Credits that were given and not spent.
    unspent: AtomicU32,
}

impl Credits {
    pub fn new(quota: Option<Box<dyn Quota>>) -> Self {
        Self { quota, unspent: AtomicU32::new(0) }
    }

    /// Spends a credit for one frame; false if there is none to be had.
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

    /// Takes credits that the tree has been charged with already.
    pub fn grant(&self, credits: u32) {
        if self.quota.is_some() {
            self.unspent.fetch_add(credits, Relaxed);
        }
    }

    /// Gives back what is not spent.
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

    /// Forgets what was given to the parent: in a forked child.
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

    /// Whether other machines have the frame too.
    pub fn is_shared(&self, frame: Frame) -> bool {
        self.quota.as_ref().is_some_and(|quota| quota.share_of(frame) != 0)
    }

    /// Makes a frame this machine's own whose content is about to be in a page of its own.
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

    /// The same where the page can stay shared; false if that takes a credit and there is none.
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
    /// Shares the frames that stand on the host with a child that is about to be forked, and makes
    /// their next stores fault. Those for which `is_kept` says so are nobody else's: the host itself
    /// stores there.
    pub fn share_with_child(
        &self,
        child: &dyn ChildShares,
        is_kept: impl Fn(Frame) -> bool,
    ) -> Result<(), Errno> {
        let Some(quota) = &self.credits.quota else { return Ok(()) };
        let mut writable = Vec::new();
        for number in 0..self.frames.used() {
            let held = self.frames.hold(Frame(number));
            match held.home() {
                Home::Free => {}
                Home::At(host, mapped) if !is_kept(held.frame()) => {
                    let share = child.join(held.frame(), quota.share_of(held.frame()));
                    if share == 0 {
                        child.take_anyway();
                        continue;
                    }
                    quota.set_share(held.frame(), share);
                    if mapped == Mapped::Writable {
                        held.set_home(Home::At(host, Mapped::WriteProtected));
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
            let range = *first..*last + PAGE_SIZE;
            self.descriptor.write_protect(range, Mapped::WriteProtected)?;
        }
        Ok(())
    }

    /// Makes a frame this machine's own before its page is stored to.
    pub fn own_for_store(&self, held: &Held<'_>) -> Result<(), Errno> {
        if self.credits.try_own(held.frame()) { Ok(()) } else { Err(Errno::NOBUFS) }
    }
}
