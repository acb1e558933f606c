//! Regions that come into being by being used: stacks that grow, and families of anonymous pages.

use crate::fault::Refusal;
use crate::machine::{Machine, PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::mm::{Edit, Mm};
use crate::rmap::AnonVma;
use crate::vma::{Vma, VmaFlags, same_object};
use alloc::sync::Arc;
use alloc::vec;
use core::sync::atomic::Ordering;

/// How many bytes must stay unmapped below a region that grows down (`stack_guard_gap`, A14).
const GUARD_GAP: u64 = 256 * PAGE_SIZE;

/// Whether a region's anonymous pages are stored to from now on, or only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stores {
    /// The first store has come.
    Begin,
    /// Pages of zeros are read, on a machine without a shared frame for them.
    Awaited,
}

impl<M: Machine> Mm<M> {
    /// The region for an access, grown down to it if it is a stack (spec A13–A15).
    #[inline]
    pub(super) fn region_for(self: &Arc<Self>, address: VirtAddr) -> Result<Arc<Vma<M>>, Refusal> {
        match self.containing(address) {
            Some(vma) => Ok(vma),
            None => self.region_grown_to(address),
        }
    }

    #[cold]
    fn region_grown_to(self: &Arc<Self>, address: VirtAddr) -> Result<Arc<Vma<M>>, Refusal> {
        loop {
            let moves = self.moves.load(Ordering::Acquire);
            match self.region_now(address) {
                // A mapping that its pages leave is out of sight while they do: whoever moves them
                // has the right that is waited for.
                Err(Refusal::NoRegion)
                    if moves % 2 == 1 || self.moves.load(Ordering::Acquire) != moves =>
                {
                    drop(self.exclusive_in_fault());
                }
                found => return found,
            }
        }
    }

    fn region_now(self: &Arc<Self>, address: VirtAddr) -> Result<Arc<Vma<M>>, Refusal> {
        let vma = self.find(address).ok_or(Refusal::NoRegion)?;
        if vma.start <= address {
            return Ok(vma);
        }
        if !vma.has(VmaFlags::GROWSDOWN) {
            return Err(Refusal::NoRegion);
        }
        self.expand(address)
    }

    /// Grows the stack above `address` down to it (`expand_stack`, spec A15).
    fn expand(self: &Arc<Self>, address: VirtAddr) -> Result<Arc<Vma<M>>, Refusal> {
        let exclusive = self.exclusive_in_fault();
        // Someone may have grown or unmapped it before this got the right to.
        let vma = self.find(address).ok_or(Refusal::NoRegion)?;
        if vma.start <= address {
            return Ok(vma);
        }
        let start = address.page();
        if !vma.has(VmaFlags::GROWSDOWN) || !self.may_expand(&vma, start) {
            return Err(Refusal::NoRegion);
        }
        let grown = (vma.start - start) >> PAGE_SHIFT;
        if vma.has(VmaFlags::ACCOUNT) && self.manager.charge(grown).is_err() {
            return Err(Refusal::NoRegion);
        }
        let mut part = vma.part(self.manager.vma_id(), start..vma.end);
        if part.written_family().is_none() {
            part.guests.extend(part.anon.replace(self.family_for(&vma)));
            part.unwritten = false;
        }
        let grown = Arc::new(part);
        exclusive.apply(&Edit { out: vec![vma], into: vec![grown.clone()] });
        Ok(grown)
    }

    fn may_expand(&self, vma: &Vma<M>, start: VirtAddr) -> bool {
        if start < self.layout.lowest_hint {
            return false;
        }
        let size = vma.end - start;
        let grow = vma.start - start;
        let below = self.regions.read(&self.manager.order, |t| t.previous(vma.start).cloned());
        if let Some(below) = below {
            let gap = start.value().checked_sub(below.end.value());
            let guarded = !below.has(VmaFlags::GROWSDOWN) && below.has(VmaFlags::ACCESS);
            match gap {
                None => return false,
                Some(gap) if guarded && gap < GUARD_GAP => return false,
                Some(_) => {}
            }
        }
        let total = self.usage.total.load(Ordering::Relaxed).max(0) as u64 * PAGE_SIZE;
        let locked = self.usage.locked.load(Ordering::Relaxed).max(0) as u64 * PAGE_SIZE;
        let limits = &self.limits;
        total + grow <= limits.address_space.load(Ordering::Relaxed)
            && size <= limits.stack.load(Ordering::Relaxed)
            && (!vma.has(VmaFlags::LOCKED)
                || locked + grow <= limits.locked.load(Ordering::Relaxed))
    }

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

    fn family_for(&self, vma: &Arc<Vma<M>>) -> Arc<AnonVma<M>> {
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
