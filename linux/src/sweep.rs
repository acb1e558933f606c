//! Drops many pages with one call.
//!
//! If two processors run in one address space, every flush interrupts the other one.
//! `process_madvise` drops up to a batch of scattered ranges with a single flush.

use crate::host::{self, PAGE};
use crate::store::descriptor::{self, Kept};
use crate::sys::{self, Vector};
use arrayvec::ArrayVec;
use core::ops::Range;
use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

/// The most pages that one batch takes.
pub const BATCH: usize = 64;

/// A list of host ranges to be dropped, adjacent ones merged as they come.
pub struct Ranges {
    list: ArrayVec<Range<u64>, BATCH>,
}

impl Ranges {
    /// No ranges.
    pub const fn new() -> Self {
        Self { list: ArrayVec::new_const() }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds the page at host address `page`. At most [`BATCH`] pages fit, best in ascending order.
    pub fn push(&mut self, page: u64) {
        let end = page + PAGE as u64;
        match self.list.last_mut() {
            Some(last) if last.end == page => last.end = end,
            _ => self.list.push(page..end),
        }
    }

    /// The merged ranges as the host takes them.
    pub fn vectors(&self) -> ArrayVec<Vector, BATCH> {
        self.list.iter().map(Vector::from).collect()
    }

    /// The merged ranges.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.list.iter().cloned()
    }
}

/// How this host drops pages.
pub struct Sweep {
    /// A descriptor of this very process, if the host drops in batches.
    process: Option<Kept>,
}

impl Sweep {
    /// Finds out whether the host drops in batches, and prepares for it.
    pub fn new() -> Self {
        let process = pidfd_open(getpid(), PidfdFlags::empty()).ok();
        Self { process: process.map(descriptor::keep).filter(works) }
    }

    /// Whether the host drops in batches.
    pub fn is_batched(&self) -> bool {
        self.process.is_some()
    }

    /// The descriptor in use, which the program must not close.
    pub fn descriptor(&self) -> Option<i32> {
        self.process.as_ref().map(|process| process.as_fd().as_raw_fd())
    }

    /// Makes the descriptor name this process again after a process fork.
    ///
    /// # Safety
    /// No other thread drops pages meanwhile.
    pub unsafe fn after_fork_child(&self) {
        let Some(old) = &self.process else { return };
        let open = || pidfd_open(getpid(), PidfdFlags::empty());
        if let Ok(new) = descriptor::with_room(open) {
            // If it still names the parent, the host refuses, and pages are dropped one by one.
            let _ = old.replace(&new);
        }
    }

    /// Drops the pages of all ranges.
    ///
    /// # Safety
    /// As for [`host::discard`], for every range.
    pub unsafe fn drop_pages(&self, ranges: &Ranges) -> Result<(), Errno> {
        let mut done = 0;
        if let (Some(process), true) = (&self.process, ranges.list.len() > 1) {
            done = advise(process, ranges);
        }
        let mut result = Ok(());
        for range in ranges.iter() {
            let len = range.end - range.start;
            let skip = done.min(len);
            done -= skip;
            if skip < len {
                // SAFETY: the caller vouches for every range.
                result = unsafe { host::discard(range.start + skip..range.end) }.and(result);
            }
        }
        result
    }
}

/// Returns the number of bytes dropped, counted from the first range on.
fn advise(process: &Kept, ranges: &Ranges) -> u64 {
    // SAFETY: the descriptor names this process, and the caller of `drop_pages` gave up the content
    // of the ranges.
    unsafe { sys::drop_ranges(process.as_fd(), &ranges.vectors()) }.unwrap_or(0) as u64
}

/// Tries it: a host that does not drop pages so refuses even an empty range.
fn works(process: &Kept) -> bool {
    // SAFETY: nothing is dropped.
    unsafe { sys::drop_ranges(process.as_fd(), &[Vector::EMPTY]) }.is_ok()
}
