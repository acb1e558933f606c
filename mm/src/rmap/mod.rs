//! Reverse maps: from a page to the entries that name it (spec F15, F19, J7).
//!
//! An anonymous page names a *family* of regions, an [`AnonVma`]; a page of a file names its
//! [`Mapping`](crate::cache::Mapping). Either keeps its regions in an interval tree over page
//! indexes, so that a page's index gives the few addresses where it can be.
//!
//! A fork gives each copied region a family of its own, for the pages that it makes from then on,
//! and enters it into the families of all its ancestors too, whose pages it may still show. So the
//! walk for a page that was made after the fork visits no relative.

pub(crate) mod family;
pub(crate) mod walk;

use crate::interval::IntervalTree;
use crate::machine::Machine;
use crate::manager::Manager;
use crate::mm::Mm;
use crate::sync::{Mutex, Rank};
use crate::vma::Vma;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// A region as a reverse map knows it.
///
/// It does not keep its address space alive, whose end takes the links out: whoever finds one under
/// the lock finds the address space too.
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

/// Takes regions out of the reverse maps of their files and families, and enters others.
///
/// Each file and family sees the whole exchange at once, so that a walk meets an entry of the page
/// table through at most one region.
pub(crate) fn exchange<M: Machine>(mm: &Arc<Mm<M>>, out: &[Arc<Vma<M>>], into: &[Arc<Vma<M>>]) {
    // Links are dropped after the locks: the last one may end the life of a region, and of its file.
    let mut gone = Vec::new();
    let link = |vma: &Arc<Vma<M>>| RegionLink { mm: Arc::downgrade(mm), vma: vma.clone() };
    for file in distinct(out, into, |vma| vma.file.iter().map(|file| &**file)) {
        let over = |vma: &&Arc<Vma<M>>| vma.file.as_ref().is_some_and(|f| f.id == file.id);
        let mut regions = file.regions.lock(&mm.manager.order);
        gone.extend(out.iter().filter(over).filter_map(|vma| regions.remove(vma)));
        for vma in into.iter().filter(over) {
            regions.insert(vma, link(vma));
        }
    }
    for family in distinct(out, into, |vma| vma.families()) {
        let of = |vma: &&Arc<Vma<M>>| vma.families().any(|f| Arc::ptr_eq(f, family));
        let mut regions = family.regions.lock(&mm.manager.order);
        gone.extend(out.iter().filter(of).filter_map(|vma| regions.remove(vma.pgoff, vma.id)));
        for vma in into.iter().filter(of) {
            let inserted = regions.insert(vma.indexes(), vma.id, link(vma));
            debug_assert!(inserted.is_ok(), "region linked twice");
        }
    }
}

/// The objects that any of the regions names, each once.
fn distinct<'a, M: Machine, T: 'a, I: Iterator<Item = &'a Arc<T>>>(
    out: &'a [Arc<Vma<M>>],
    into: &'a [Arc<Vma<M>>],
    objects: impl Fn(&'a Arc<Vma<M>>) -> I,
) -> Vec<&'a Arc<T>> {
    let mut all: Vec<&Arc<T>> = Vec::new();
    for vma in out.iter().chain(into) {
        for object in objects(vma) {
            if !all.iter().any(|known| Arc::ptr_eq(known, object)) {
                all.push(object);
            }
        }
    }
    all
}
