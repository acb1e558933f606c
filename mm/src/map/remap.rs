//! mremap (spec C13, C14), with the order of checks of Linux 6.17, and with `MREMAP_DONTUNMAP`.

use crate::edit::Exclusive;
use crate::error::{MapError, RemapError};
use crate::machine::{Machine, VirtAddr};
use crate::map::mmap::is_data;
use crate::map::relocate::{OldPlace, Remapped, Sizes};
use crate::map::{Placement, pages_up};
use crate::mm::Mm;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

/// Whether and where a mapping may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// It must stay where it is.
    Never,
    /// Wherever there is room, if it cannot stay (`MREMAP_MAYMOVE`).
    Anywhere,
    /// To this address, replacing existing mappings (`MREMAP_FIXED`).
    To(VirtAddr),
    /// Its pages must move, and the mapping stays where it was, as one that was never touched
    /// (`MREMAP_DONTUNMAP`). The size stays the same.
    Leaving(Placement),
}

/// A mapping to be resized or moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemapRequest {
    /// Its address.
    pub address: VirtAddr,
    /// Its length in bytes now; 0 duplicates a shared mapping.
    pub old_length: u64,
    /// Its length in bytes afterwards.
    pub new_length: u64,
    /// Whether and where it may move.
    pub movement: Move,
}

impl<M: Machine> Mm<M> {
    /// Resizes or moves a mapping and returns its new address (`mremap(2)`).
    ///
    /// Lengths are in bytes and rounded up to whole pages. An error changes nothing, except that a
    /// fixed target may have been unmapped before it, as on Linux. Takes the exclusive right to the
    /// address space, and may wait for memory. While pages move, an access to either place raises
    /// `SIGSEGV`.
    pub fn mremap(self: &Arc<Self>, request: &RemapRequest) -> Result<VirtAddr, RemapError> {
        let sizes = self.check_remap(request)?;
        let exclusive = self.exclusive();
        let (address, grown) = exclusive.remap(request, &sizes)?;
        drop(exclusive);
        if let Some(grown) = grown
            && self.containing(grown.start).is_some_and(|vma| vma.has(VmaFlags::LOCKED))
        {
            self.populate(grown);
        }
        Ok(address)
    }

    /// The checks that need no region.
    fn check_remap(&self, request: &RemapRequest) -> Result<Sizes, RemapError> {
        let RemapRequest { address, old_length, new_length, movement } = *request;
        if !address.is_page_aligned() {
            return Err(RemapError::Unaligned);
        }
        let end = self.layout.range.end.value();
        let new = pages_up(new_length).filter(|n| *n > 0).ok_or(RemapError::ZeroLength)?;
        // A length that wraps when rounded counts as 0, as on Linux. A length that leaves the
        // address space is noticed once a mapping was found.
        let old = pages_up(old_length).unwrap_or(0);
        // The page table may cover less than a program's part of the addresses.
        if new > self.manager.machine.capabilities().task_size.value().max(end) {
            return Err(RemapError::BadTarget);
        }
        if let Some(target) = movement.target() {
            if !target.is_page_aligned() {
                return Err(RemapError::Unaligned);
            }
            let overlaps = target.value() < address.value().wrapping_add(old)
                && address.value() < target.value().saturating_add(new);
            let fits = target.value().checked_add(new).is_some_and(|last| last <= end);
            if !fits || target < self.layout.range.start || overlaps {
                return Err(RemapError::BadTarget);
            }
        }
        if matches!(movement, Move::Leaving(_)) && old != new {
            return Err(RemapError::KeepsSize);
        }
        Ok(Sizes { old, new })
    }
}

impl Move {
    /// The requested address, as a hint or an order.
    const fn target(self) -> Option<VirtAddr> {
        match self {
            Self::Never | Self::Anywhere | Self::Leaving(Placement::Anywhere) => None,
            Self::To(target)
            | Self::Leaving(
                Placement::Hint(target)
                | Placement::Fixed(target)
                | Placement::FixedNoReplace(target)
                | Placement::Between(target, _),
            ) => Some(target),
        }
    }
}

impl<M: Machine> Exclusive<'_, M> {
    fn remap(&self, request: &RemapRequest, sizes: &Sizes) -> Remapped {
        let address = request.address;
        let vma = self.mm().containing(address).ok_or(RemapError::Unmapped)?;
        if vma.has(VmaFlags::SEALED) {
            return Err(RemapError::Sealed);
        }
        if sizes.old == 0 {
            return self.duplicate(request, sizes, &vma);
        }
        match request.movement {
            Move::To(target) => return self.move_to(request, sizes, target),
            Move::Leaving(placement) => return self.move_leaving(&vma, address, sizes, placement),
            Move::Never | Move::Anywhere => {}
        }
        if sizes.new <= sizes.old {
            if sizes.new < sizes.old {
                self.unmap_tail(address, sizes.new, sizes.old)?;
            }
            return Ok((address, None));
        }
        let grow = sizes.new - sizes.old;
        self.check_growth(&vma, address, sizes)?;
        let old_end = address + sizes.old;
        if vma.end == old_end && self.can_grow_in_place(old_end, grow) {
            self.charge_growth(&vma, grow)?;
            let mut longer = vma.part(self.mm().manager.vma_id(), vma.start..vma.end);
            longer.end = old_end + grow;
            self.replace_grown(&vma, longer);
            return Ok((address, Some(old_end..old_end + grow)));
        }
        if request.movement == Move::Never {
            return Err(RemapError::MustMove);
        }
        let target = self.find_gap(sizes.new).ok_or(RemapError::NoGap)?;
        self.relocate(&vma, address, sizes, target, OldPlace::Unmapped)
    }

    /// Moves the pages alone (`MREMAP_DONTUNMAP`).
    fn move_leaving(
        &self,
        vma: &Arc<Vma<M>>,
        address: VirtAddr,
        sizes: &Sizes,
        placement: Placement,
    ) -> Remapped {
        if vma.has(VmaFlags::DONTEXPAND) {
            return Err(RemapError::CannotStay);
        }
        if let Placement::Fixed(target) = placement {
            return self.move_all(address..address + sizes.old, target, OldPlace::Kept);
        }
        self.check_growth(vma, address, sizes)?;
        let target = self.place(placement, sizes.new).map_err(|error| match error {
            MapError::NoGap => RemapError::NoGap,
            _ => RemapError::BadTarget,
        })?;
        self.relocate(vma, address, sizes, target, OldPlace::Kept)
    }

    /// Unmaps the part that a mapping loses by shrinking, and all else in that range.
    fn unmap_tail(&self, address: VirtAddr, kept: u64, whole: u64) -> Result<(), RemapError> {
        let end = address.checked_add(whole).filter(|end| *end <= self.mm().layout.range.end);
        self.clear(&(address + kept..end.ok_or(RemapError::BadOldLength)?))
    }

    /// Unmaps a range, unless a part of it is sealed.
    fn clear(&self, range: &Range<VirtAddr>) -> Result<(), RemapError> {
        if self.meets_seal(range) {
            return Err(RemapError::Sealed);
        }
        self.unmap(range);
        Ok(())
    }

    /// A second mapping of the same pages of a shared object (old length 0).
    fn duplicate(&self, request: &RemapRequest, sizes: &Sizes, vma: &Arc<Vma<M>>) -> Remapped {
        if !vma.has(VmaFlags::MAYSHARE) {
            return Err(RemapError::BadOldLength);
        }
        let target = match request.movement {
            // The length cannot stay the same if the old one is 0.
            Move::Never | Move::Leaving(_) => return Err(RemapError::MustMove),
            Move::Anywhere => self.find_gap(sizes.new).ok_or(RemapError::NoGap)?,
            Move::To(target) => {
                self.clear(&(target..target + sizes.new))?;
                target
            }
        };
        let vma = self.mm().containing(request.address).ok_or(RemapError::Unmapped)?;
        self.check_growth(&vma, request.address, sizes)?;
        let copy = self.copy_at(&vma, request.address, target, sizes.new);
        if let Some(file) = &copy.file {
            file.opened();
        }
        self.insert(copy);
        Ok((target, Some(target..target + sizes.new)))
    }

    fn move_to(&self, request: &RemapRequest, sizes: &Sizes, target: VirtAddr) -> Remapped {
        let address = request.address;
        let kept = sizes.old.min(sizes.new);
        if sizes.old == sizes.new {
            return self.move_all(address..address + sizes.old, target, OldPlace::Unmapped);
        }
        let vma = self.mm().containing(address).ok_or(RemapError::Unmapped)?;
        if vma.end < address + kept {
            return Err(RemapError::Unmapped);
        }
        let sizes = Sizes { old: kept, new: sizes.new };
        self.check_growth(&vma, address, &sizes)?;
        self.clear(&(target..target + sizes.new))?;
        if self.mm().containing(address).is_none() {
            return Err(RemapError::Unmapped);
        }
        if request.old_length > kept {
            let whole = pages_up(request.old_length).unwrap_or(kept);
            self.unmap_tail(address, kept, whole)?;
        }
        // The unmapped range may have been a part of the region.
        let vma = self.mm().containing(address).ok_or(RemapError::Unmapped)?;
        self.relocate(&vma, address, &sizes, target, OldPlace::Unmapped)
    }

    /// Moves every mapping in a range, gaps and all, without changing sizes.
    fn move_all(&self, range: Range<VirtAddr>, target: VirtAddr, old: OldPlace) -> Remapped {
        let first = self.mm().containing(range.start).ok_or(RemapError::Unmapped)?;
        let length = range.end - range.start;
        if first.end >= range.end {
            self.check_growth(&first, range.start, &Sizes { old: length, new: length })?;
        }
        let parts: Vec<Range<VirtAddr>> = self
            .mm()
            .overlapping(range.clone())
            .iter()
            .map(|vma| vma.start.max(range.start)..vma.end.min(range.end))
            .collect();
        for part in parts {
            let size = part.end - part.start;
            // Mappings under a gap of the old range stay (Linux 6.17).
            let to = target + (part.start - range.start);
            if self.mm().containing(part.start).is_some_and(|vma| vma.has(VmaFlags::SEALED)) {
                return Err(RemapError::Sealed);
            }
            self.clear(&(to..to + size))?;
            // Looked up again: unmapping may have cut it.
            let vma = self.mm().containing(part.start).ok_or(RemapError::Unmapped)?;
            self.relocate(&vma, part.start, &Sizes { old: size, new: size }, to, old)?;
        }
        Ok((target, None))
    }

    /// Checks whether this mapping may be resized.
    fn check_growth(
        &self,
        vma: &Vma<M>,
        address: VirtAddr,
        sizes: &Sizes,
    ) -> Result<(), RemapError> {
        if sizes.old > vma.end - address {
            return Err(RemapError::Unmapped);
        }
        if sizes.new <= sizes.old {
            return Ok(());
        }
        let limits = &self.mm().limits;
        let grow = sizes.new - sizes.old;
        if vma.has(VmaFlags::DONTEXPAND) {
            return Err(RemapError::NotResizable);
        }
        if !self.mm().may_lock(vma.flags, grow) {
            return Err(RemapError::LockLimit);
        }
        let data = is_data(vma.flags).then(|| self.data_bytes(&(address..address)));
        if data.is_some_and(|data| data + grow > limits.data.load(Ordering::Relaxed)) {
            return Err(RemapError::DataLimit);
        }
        self.check_total(grow)
    }

    fn can_grow_in_place(&self, end: VirtAddr, grow: u64) -> bool {
        let mm = self.mm();
        let Some(new_end) = end.checked_add(grow) else { return false };
        new_end <= mm.layout.range.end
            && mm.regions.read(&mm.manager.order, |tree| tree.is_free(end..new_end))
    }

    /// Replaces a region by one that grew at its end, joined with its follower. It is not joined
    /// with its neighbour below: that was possible before the growth, and did not happen, as on
    /// Linux.
    fn replace_grown(&self, old: &Arc<Vma<M>>, longer: Vma<M>) {
        let (mut edit, _) = self.joined_above(longer);
        edit.out.push(old.clone());
        self.apply(&edit);
        self.tell_file(&edit);
    }
}
