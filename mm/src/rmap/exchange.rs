//! Enters regions into the reverse maps, and takes them out.

use crate::machine::Machine;
use crate::mm::Mm;
use crate::rmap::RegionLink;
use crate::vma::Vma;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr;

/// Takes regions out of the reverse maps of their files and families, and enters others.
///
/// Each file and family sees the whole exchange at once, so that a walk meets an entry of the page
/// table through at most one region.
pub(crate) fn exchange<M: Machine>(mm: &Arc<Mm<M>>, out: &[Arc<Vma<M>>], into: &[Arc<Vma<M>>]) {
    // Links are dropped after the locks: the last one may end a region and its file.
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
    for family in distinct(out, into, |vma| vma.families().map(|family| &**family)) {
        let of = |vma: &&Arc<Vma<M>>| vma.families().any(|f| ptr::eq(&**f, family));
        let mut regions = family.regions.lock(&mm.manager.order);
        gone.extend(out.iter().filter(of).filter_map(|vma| regions.remove(vma.pgoff, vma.id)));
        for vma in into.iter().filter(of) {
            let inserted = regions.insert(vma.indexes(), vma.id, link(vma));
            debug_assert!(inserted.is_ok(), "region linked twice");
        }
    }
}

/// The objects that any of the regions names, each once.
fn distinct<'a, M: Machine, T: 'a, I: Iterator<Item = &'a T>>(
    out: &'a [Arc<Vma<M>>],
    into: &'a [Arc<Vma<M>>],
    objects: impl Fn(&'a Arc<Vma<M>>) -> I,
) -> Vec<&'a T> {
    let mut all: Vec<&T> = Vec::new();
    for vma in out.iter().chain(into) {
        for object in objects(vma) {
            if !all.iter().any(|known| ptr::eq(*known, object)) {
                all.push(object);
            }
        }
    }
    all
}
