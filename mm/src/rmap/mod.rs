//! Reverse maps: from a page to the entries that name it (spec F15, F19, J7).
//!
//! An anonymous page names a *family* of regions, an [`AnonVma`]; a page of a file names its
//! [`Mapping`](crate::cache::Mapping). Either keeps its regions in an interval tree over page
//! indexes, so that a page's index gives the few addresses where it can be.
//!
//! A fork gives each copied region a family of its own for its future pages, and enters it into the
//! families of all its ancestors, whose pages it may still show. So the walk for a page made after
//! the fork visits no relative.

pub(crate) mod exchange;
pub(crate) mod family;
pub(crate) mod walk;

use crate::interval::IntervalTree;
use crate::machine::Machine;
use crate::manager::Manager;
use crate::mm::Mm;
use crate::sync::{Mutex, Rank};
use crate::vma::Vma;
use alloc::sync::{Arc, Weak};

/// A region as a reverse map knows it.
///
/// It does not keep its address space alive. The end of the space takes the links out, so a link
/// found under the lock has a living address space.
pub(crate) struct RegionLink<M: Machine> {
    pub(crate) mm: Weak<Mm<M>>,
    pub(crate) vma: Arc<Vma<M>>,
}

/// A family of regions that anonymous pages belong to (Linux's `anon_vma`).
pub struct AnonVma<M: Machine> {
    pub(crate) id: u64,
    pub(crate) regions: Mutex<M, IntervalTree<RegionLink<M>>>,
}

impl<M: Machine> Clone for RegionLink<M> {
    fn clone(&self) -> Self {
        Self { mm: self.mm.clone(), vma: self.vma.clone() }
    }
}

impl<M: Machine> AnonVma<M> {
    /// A new family without regions.
    pub(crate) fn new(manager: &Manager<M>) -> Arc<Self> {
        manager.families.add(&manager.order, |id| Self {
            id,
            regions: Mutex::new(Rank::AnonRegions, IntervalTree::new()),
        })
    }
}
