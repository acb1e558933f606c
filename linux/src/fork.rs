//! A fork of the whole process: the child goes on with a copy of everything and a userfaultfd of
//! its own.
//!
//! The kernel shares the pages between parent and child, copy-on-write, and drops the child's
//! registrations and write protections. Windows are not inherited at all: they would look empty in
//! a child that nobody manages. What a child inherits without going on with it does nothing: its
//! faults are not ours, and neither userfaultfd nor threads of the parent are touched.

use crate::frame::Home;
use crate::machine::LinuxMachine;
use crate::probe::ProbeError;
use crate::quota::ChildShares;
use crate::space::LinuxSpace;
use crate::store::descriptor;
use crate::uffd::Mapped;
use core::ops::Range;
#[cfg(feature = "std")]
use lock_api::RawRwLock;
use pagefault_machine::{Frame, VirtAddr};
use rustix::fd::{AsFd, AsRawFd, RawFd};
use rustix::io::Errno;

/// Why a child cannot go on with its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// The child gets no userfaultfd.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A range can no longer be registered, or no thread started.
    #[error("the kernel refuses to manage the memory of a forked process: {0}")]
    Host(Errno),
}

impl LinuxMachine {
    /// Brings the machine's own threads to rest, holding no lock. The caller sees to it that no
    /// other thread is inside the memory manager, and calls one of the two functions below after.
    pub fn before_fork(&self) {
        #[cfg(feature = "std")]
        // SAFETY: unlocked by `after_fork_parent` or `after_fork_child`.
        unsafe { self.shared.pagers.threads.gate.raw() }.lock_exclusive();
    }

    /// Shares what stands on the host with a child that is about to be forked, where the machine's
    /// frames are paid for by a quota. `is_kept` names frames whose pages the host stores to by
    /// itself, which stay the parent's own.
    pub fn share_with_child(
        &self,
        child: &dyn ChildShares,
        is_kept: impl Fn(Frame) -> bool,
    ) -> Result<(), Errno> {
        self.shared.share_with_child(child, is_kept)
    }

    /// Goes on in the parent, or after a fork that failed.
    pub fn after_fork_parent(&self) {
        #[cfg(feature = "std")]
        // SAFETY: locked by `before_fork`.
        unsafe {
            self.shared.pagers.threads.gate.raw().unlock_exclusive()
        };
    }

    /// Goes on in the child: manages `ranges` of the identity space `space`, with a userfaultfd of its
    /// own.
    ///
    /// # Safety
    /// This is the only thread of a forked child, [`before_fork`](Self::before_fork) was called before
    /// the fork, and `ranges` are those that were registered in the parent and that the child has.
    pub unsafe fn after_fork_child(
        &self,
        space: &LinuxSpace,
        ranges: impl Iterator<Item = Range<VirtAddr>>,
    ) -> Result<(), ForkError> {
        let shared = &self.shared;
        shared.credits.begin_child();
        // SAFETY: the caller's is the only thread.
        descriptor::with_room_for_all(|| unsafe { self.begin_in_child() })?;
        for range in ranges {
            debug_assert!(range.end <= space.range().end);
            let host = range.start.value()..range.end.value();
            shared.descriptor.register(host).map_err(ForkError::Host)?;
        }
        self.protect_anew().map_err(ForkError::Host)?;
        self.after_fork_parent();
        #[cfg(feature = "std")]
        self.start_threads_anew()?;
        Ok(())
    }

    /// Goes on in a child of a process that manages nothing yet. The child needs no userfaultfd of its
    /// own before it manages something ([`begin_in_child`](Self::begin_in_child)): most end before that.
    pub fn after_fork_idle_child(&self) {
        self.shared.credits.begin_child();
        self.after_fork_parent();
    }

    /// Gets a forked child a userfaultfd of its own, if it has none.
    ///
    /// # Safety
    /// No other thread uses the machine meanwhile.
    pub unsafe fn begin_in_child(&self) -> Result<(), ForkError> {
        let shared = &self.shared;
        if !self.is_inherited() {
            return Ok(());
        }
        let descriptor = shared.probe.open_by(shared.delivery, shared.device.as_ref())?;
        // SAFETY: passed on to the caller.
        unsafe {
            shared.descriptor.continue_with(descriptor);
            shared.sweep.after_fork_child();
        }
        Ok(())
    }

    /// Protects the pages that may not be stored to unnoticed: the child's mappings lack it.
    fn protect_anew(&self) -> Result<(), Errno> {
        let shared = &self.shared;
        let protected = (0..shared.frames.used()).filter_map(|number| {
            match shared.frames.peek(Frame(number)) {
                Home::At(host, Mapped::WriteProtected) => Some(host),
                _ => None,
            }
        });
        shared.protect_pages(protected.collect())
    }

    /// The parent's threads are not here: starts as many.
    #[cfg(feature = "std")]
    fn start_threads_anew(&self) -> Result<(), ForkError> {
        match self.shared.pagers.threads.forget() {
            0 => Ok(()),
            count => crate::deliver::thread::start(&self.shared, count).map_err(ForkError::Host),
        }
    }

    /// Whether this is a forked child that inherited the machine and did not go on with it: nothing
    /// can be done with its memory here.
    pub fn is_inherited(&self) -> bool {
        !self.shared.descriptor.is_ours()
    }

    /// The descriptors that the machine needs, which the program must not close.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let shared = &self.shared;
        let device = shared.device.as_ref().map(|device| device.as_fd().as_raw_fd());
        let own = [Some(shared.descriptor.as_fd().as_raw_fd()), shared.sweep.descriptor(), device];
        let own = own.into_iter().flatten();
        #[cfg(feature = "std")]
        let own = own.chain(shared.pagers.threads.descriptors());
        own
    }
}
