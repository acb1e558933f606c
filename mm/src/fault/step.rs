//! The state of one fault, and the result of an attempt.

use crate::event::{Correction, Weight};
use crate::machine::{Access, Machine, PAGE_SIZE, VirtAddr};
use crate::swap::area::UnusedSlot;
use core::ops::Range;

/// The result of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The access may be tried again.
    Done(Correction),
    /// Part of the work is done; look again.
    Partly(Correction),
    /// Something changed meanwhile, or was prepared; look again.
    Again,
}

/// Why a page is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An access in progress.
    Access,
    /// A guess that an access will come.
    Guess,
}

/// The state of one fault through its attempts (FreeBSD's `faultstate`).
pub(crate) struct Fault<M: Machine> {
    /// The page's address.
    pub(crate) page: VirtAddr,
    pub(crate) access: Access,
    pub(crate) purpose: Purpose,
    pub(crate) weight: Weight,
    /// A slot that the attempt made unused under the cursor, to be freed after it.
    pub(super) unused: Option<UnusedSlot<M::Mutex>>,
}

impl<M: Machine> Fault<M> {
    pub(super) const fn at(page: VirtAddr, access: Access) -> Self {
        Self { page, access, purpose: Purpose::Access, weight: Weight::Minor, unused: None }
    }

    pub(super) const fn guessed(page: VirtAddr, access: Access) -> Self {
        let purpose = Purpose::Guess;
        Self { page, access, purpose, weight: Weight::Minor, unused: None }
    }
}

/// The range of one page.
pub(crate) fn page_range(page: VirtAddr) -> Range<VirtAddr> {
    page..page + PAGE_SIZE
}
