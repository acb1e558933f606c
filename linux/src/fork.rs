//! A fork of the whole process: the child continues with a copy of everything and a userfaultfd of
//! its own.
//!
//! The kernel shares the pages between parent and child, copy-on-write, and drops the child's
//! registrations and write protections. Windows are not inherited at all: they would look empty in
//! an unmanaged child. A machine that a child inherits but does not continue is inert: the child's
//! faults are not ours, and the parent's userfaultfd and threads stay untouched.

use crate::frame::Location;
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

/// Why a child cannot continue with its memory.
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
    /// Stops the machine's own threads at a point where they hold no lock. The caller ensures that
    /// no other thread is inside the memory manager, and calls one of the three functions
    /// `after_fork_…` afterwards. A second call before that waits forever.
    pub fn before_fork(&self) {
        #[cfg(feature = "std")]
        // SAFETY: unlocked by `after_fork_parent` or `after_fork_child`.
        unsafe { self.shared.pagers.threads.gate.raw() }.lock_exclusive();
    }

    /// Shares the mapped frames with a child that is about to be forked, if a quota pays for the
    /// machine's frames. Frames for which `is_kept` is true stay the parent's own: the host itself
    /// stores to their pages.
    pub fn share_with_child(
        &self,
        child: &dyn ChildShares,
        is_kept: impl Fn(Frame) -> bool,
    ) -> Result<(), Errno> {
        self.shared.share_with_child(child, is_kept)
    }

    /// Continues in the parent, or after a fork that failed.
    ///
    /// # Safety
    /// This thread called [`before_fork`](Self::before_fork), and none of these functions since.
    pub unsafe fn after_fork_parent(&self) {
        #[cfg(feature = "std")]
        // SAFETY: locked by `before_fork`, as the caller says.
        unsafe {
            self.shared.pagers.threads.gate.raw().unlock_exclusive()
        };
    }

    /// Continues in the child: manages `ranges` of the identity space `space`, with a userfaultfd
    /// of its own.
    ///
    /// # Safety
    /// This is the only thread of a forked child. [`before_fork`](Self::before_fork) was called
    /// before the fork. `ranges` were registered in the parent and exist in the child.
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
        // SAFETY: the caller's thread is a copy of the one that called `before_fork`.
        unsafe { self.after_fork_parent() };
        #[cfg(feature = "std")]
        self.start_threads_anew()?;
        Ok(())
    }

    /// Continues in a child of a process that manages nothing yet. The child needs a userfaultfd of
    /// its own only once it manages something ([`begin_in_child`](Self::begin_in_child)); most end
    /// before that.
    ///
    /// # Safety
    /// As for [`after_fork_parent`](Self::after_fork_parent), of the thread that this one is a copy of.
    pub unsafe fn after_fork_idle_child(&self) {
        self.shared.credits.begin_child();
        // SAFETY: passed on to the caller.
        unsafe { self.after_fork_parent() };
    }

    /// Gives a forked child a userfaultfd of its own, if it has none.
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
            shared.descriptor.continue_with(descriptor).map_err(ForkError::Host)?;
            shared.sweep.after_fork_child();
            shared.pipes.after_fork_child();
            shared.buffers.forget_targets();
        }
        Ok(())
    }

    /// Protects the pages whose stores must be noticed: the child's mappings have lost the
    /// protection.
    fn protect_anew(&self) -> Result<(), Errno> {
        let shared = &self.shared;
        let protected = (0..shared.frames.used()).filter_map(|number| {
            match shared.frames.peek(Frame(number)) {
                Location::At(host, Mapped::WriteProtected) => Some(host),
                _ => None,
            }
        });
        shared.protect_pages(protected.collect())
    }

    /// The child has none of the parent's threads: starts as many.
    #[cfg(feature = "std")]
    fn start_threads_anew(&self) -> Result<(), ForkError> {
        match self.shared.pagers.threads.forget() {
            0 => Ok(()),
            count => crate::deliver::thread::start(&self.shared, count).map_err(ForkError::Host),
        }
    }

    /// Whether this is a forked child that inherited the machine without continuing it: its memory
    /// is unusable here.
    pub fn is_inherited(&self) -> bool {
        !self.shared.descriptor.is_ours()
    }

    /// The descriptors that the machine needs, which the program must not close.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let shared = &self.shared;
        let device = shared.device.as_ref().map(|device| device.as_fd().as_raw_fd());
        let own = [Some(shared.descriptor.as_fd().as_raw_fd()), shared.sweep.descriptor(), device];
        let own = own.into_iter().flatten().chain(shared.pipes.descriptors());
        #[cfg(feature = "std")]
        let own = own.chain(shared.pagers.threads.descriptors());
        own
    }
}
