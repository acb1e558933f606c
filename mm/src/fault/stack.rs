//! Stacks that grow.

use crate::edit::Edit;
use crate::error::Refusal;
use crate::machine::{Machine, PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::mm::Mm;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use alloc::vec;
use core::sync::atomic::Ordering;

/// How many bytes must stay unmapped below a region that grows down (`stack_guard_gap`, A14).
pub(crate) const GUARD_GAP: u64 = 256 * PAGE_SIZE;

impl<M: Machine> Mm<M> {
    /// The region for an access, grown down to it if it is a stack (spec A13–A15).
    #[inline]
    pub(crate) fn region_for(self: &Arc<Self>, address: VirtAddr) -> Result<Arc<Vma<M>>, Refusal> {
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
                // A mapping is invisible while its pages move away. The mover holds the right that
                // this waits for.
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
        // Another thread may have grown or unmapped it before this one got the right.
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
        let limits = &self.limits;
        total + grow <= limits.address_space.load(Ordering::Relaxed)
            && size <= limits.stack.load(Ordering::Relaxed)
            && self.may_lock(vma.flags, grow)
    }
}
