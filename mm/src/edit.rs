//! The right to change the regions of an address space, and how they are changed.

use crate::machine::Machine;
use crate::mm::Mm;
use crate::rmap::exchange::exchange;
use crate::sync::{Rank, SleepGuard};
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// The sole right to change an address space's regions (Linux: `mmap_lock` held for writing).
pub(crate) struct Exclusive<'a, M: Machine> {
    mm: &'a Arc<Mm<M>>,
    _guard: SleepGuard<'a, M>,
}

impl<M: Machine> Mm<M> {
    pub(crate) fn exclusive<'a>(self: &'a Arc<Self>) -> Exclusive<'a, M> {
        self.manager.order.assert_may_sleep();
        Exclusive { mm: self, _guard: self.exclusive.lock(&self.manager.order, Rank::Layout) }
    }

    /// Like [`exclusive`](Self::exclusive), for a fault, which is engaged.
    pub(crate) fn exclusive_in_fault<'a>(self: &'a Arc<Self>) -> Exclusive<'a, M> {
        let _blocked = self.manager.block();
        self.exclusive()
    }

    /// The right to enter regions into an address space that no other thread knows yet, while the
    /// caller also holds the parent's.
    pub(crate) fn exclusive_of_new(self: &Arc<Self>) -> Exclusive<'_, M> {
        Exclusive { mm: self, _guard: self.exclusive.lock_unranked(&self.manager.order) }
    }
}

/// The regions that replace others.
pub(crate) struct Edit<M: Machine> {
    pub(crate) out: Vec<Arc<Vma<M>>>,
    pub(crate) into: Vec<Arc<Vma<M>>>,
}

impl<'a, M: Machine> Exclusive<'a, M> {
    /// The address space.
    pub(crate) const fn mm(&self) -> &'a Arc<Mm<M>> {
        self.mm
    }

    /// Whether the owner of the address space is gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.mm.ended.load(Ordering::Relaxed)
    }

    /// Replaces regions by others, in one step for every look-up.
    pub(crate) fn apply(&self, edit: &Edit<M>) {
        self.apply_moving(edit, &[], &[]);
    }

    /// Like [`apply`](Self::apply), while pages move. Regions that only the reverse maps know leave
    /// or enter them in the same exchange, so a walk finds every page at every moment.
    pub(crate) fn apply_moving(
        &self,
        edit: &Edit<M>,
        leaving: &[Arc<Vma<M>>],
        entering: &[Arc<Vma<M>>],
    ) {
        let all = |own: &[Arc<Vma<M>>], more: &[Arc<Vma<M>>]| [own, more].concat();
        let out = all(&edit.out, leaving);
        exchange(self.mm, &out, &all(&edit.into, entering));
        self.mm.regions.write(&self.mm.manager.order, |tree| {
            for vma in &edit.out {
                tree.remove(vma.start);
            }
            for vma in &out {
                vma.kill();
            }
            for vma in &edit.into {
                let inserted = tree.insert(vma.clone());
                debug_assert!(inserted.is_ok(), "regions overlap");
            }
        });
        self.count(edit);
    }

    /// Enters a region as it is.
    pub(crate) fn enter(&self, vma: Arc<Vma<M>>) {
        self.apply(&Edit { out: Vec::new(), into: alloc::vec![vma] });
    }

    fn count(&self, edit: &Edit<M>) {
        let sum = |vmas: &[Arc<Vma<M>>], only: VmaFlags| -> i64 {
            vmas.iter().filter(|v| v.flags.contains(only)).map(|v| v.pages() as i64).sum()
        };
        let all = VmaFlags::empty();
        let locked = VmaFlags::LOCKED;
        let usage = &self.mm.usage;
        usage.total.fetch_add(sum(&edit.into, all) - sum(&edit.out, all), Ordering::Relaxed);
        usage.locked.fetch_add(sum(&edit.into, locked) - sum(&edit.out, locked), Ordering::Relaxed);
    }
}
