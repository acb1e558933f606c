//! Gives a region its family when it gets its first anonymous page.

use crate::edit::Edit;
use crate::machine::Machine;
use crate::mm::Mm;
use crate::rmap::AnonVma;
use crate::vma::{Vma, VmaFlags, same_object};
use alloc::sync::Arc;
use alloc::vec;

/// Whether a region's anonymous pages are stored to or only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stores {
    /// The first store is here.
    Begin,
    /// Pages of zeros are only read, on a machine without a shared frame for them.
    Awaited,
}

impl<M: Machine> Mm<M> {
    /// Gives a region a family for its anonymous pages (`anon_vma_prepare`, spec B7, C5).
    ///
    /// A neighbour's family is borrowed if the two differ only in access, so that they can become
    /// one region later.
    pub(crate) fn prepare_family(self: &Arc<Self>, vma: &Arc<Vma<M>>, stores: Stores) {
        let exclusive = self.exclusive_in_fault();
        if !vma.is_alive() || vma.written_family().is_some() {
            return;
        }
        let mut with = vma.part(self.manager.vma_id(), vma.range());
        let family = match stores {
            Stores::Awaited => AnonVma::new(&self.manager),
            Stores::Begin => self.family_for(vma),
        };
        with.guests.extend(with.anon.replace(family));
        with.unwritten = stores == Stores::Awaited;
        exclusive.apply(&Edit { out: vec![vma.clone()], into: vec![Arc::new(with)] });
    }

    pub(crate) fn family_for(&self, vma: &Arc<Vma<M>>) -> Arc<AnonVma<M>> {
        self.neighbours_family(vma).unwrap_or_else(|| AnonVma::new(&self.manager))
    }

    fn neighbours_family(&self, vma: &Arc<Vma<M>>) -> Option<Arc<AnonVma<M>>> {
        let (before, after) = self.regions.read(&self.manager.order, |tree| {
            (tree.previous(vma.start).cloned(), tree.find(vma.end).cloned())
        });
        let compatible = |first: &Vma<M>, second: &Vma<M>| {
            first.end == second.start
                && first.flags.difference(VmaFlags::ACCESS)
                    == second.flags.difference(VmaFlags::ACCESS)
                && same_object(&first.file, &second.file)
                && first.pgoff.wrapping_add(first.pages()) == second.pgoff
        };
        let lends =
            |v: &Vma<M>| v.ancestors.is_empty().then(|| v.written_family().cloned()).flatten();
        after
            .filter(|after| compatible(vma, after))
            .and_then(|after| lends(&after))
            .or_else(|| before.filter(|b| compatible(b, vma)).and_then(|before| lends(&before)))
    }
}
