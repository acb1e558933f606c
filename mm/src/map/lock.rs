//! mlock and munlock (spec C17).

use crate::edit::Exclusive;
use crate::error::LockError;
use crate::error::Refusal;
use crate::machine::{Machine, PAGE_SIZE, VirtAddr};
use crate::map::pages_up;
use crate::mm::Mm;
use crate::vma::VmaFlags;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

/// How pages stay in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    /// They stay, and absent pages are brought in.
    Locked,
    /// They stay once they have come in.
    LockedOnFault,
    Evictable,
}

bitflags::bitflags! {
    /// What [`Mm::mlockall`] locks, with the values of Linux's `MCL_` flags.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LockAll: u32 {
        /// Everything that is mapped.
        const CURRENT = 1;
        /// Everything that is mapped from now on. Without it, new mappings are not locked any more.
        const FUTURE = 2;
        /// Pages stay from their first touch on, and are not brought in.
        const ON_FAULT = 4;
    }
}

impl Stay {
    const fn flags(self) -> VmaFlags {
        match self {
            Self::Locked => VmaFlags::LOCKED,
            Self::LockedOnFault => VmaFlags::LOCKS,
            Self::Evictable => VmaFlags::empty(),
        }
    }
}

impl<M: Machine> Mm<M> {
    /// Keeps the pages of a range in memory, and brings them in (`mlock(2)`).
    ///
    /// The range is rounded outward to whole pages. [`LockError::Unmapped`] at the first gap or at a
    /// page that does not come in: the regions before it stay locked. The limit is
    /// [`Limits::locked`](crate::Limits::locked), in bytes; what is locked already does not
    /// count again. Takes the exclusive right to the address space, and faults after that.
    pub fn mlock(self: &Arc<Self>, address: VirtAddr, length: u64) -> Result<(), LockError> {
        self.lock(address, length, Stay::Locked)
    }

    /// Keeps the pages of a range in memory from their first touch on (`mlock2(2)` with
    /// `MLOCK_ONFAULT`). Limits and errors are those of [`mlock`](Self::mlock), but no page is brought
    /// in.
    pub fn mlock_on_fault(
        self: &Arc<Self>,
        address: VirtAddr,
        length: u64,
    ) -> Result<(), LockError> {
        self.lock(address, length, Stay::LockedOnFault)
    }

    fn lock(self: &Arc<Self>, address: VirtAddr, length: u64, stay: Stay) -> Result<(), LockError> {
        let range = outward(address, length)?;
        let exclusive = self.exclusive();
        exclusive.check_lock_limit(&range)?;
        exclusive.set_stay(&range, stay)?;
        drop(exclusive);
        if stay == Stay::Locked { self.bring_in(range) } else { Ok(()) }
    }

    /// Whether so much new memory with these flags keeps the limit on locked memory (`RLIMIT_MEMLOCK`). What it
    /// replaces counts too, as in Linux.
    pub(crate) fn may_lock(&self, flags: VmaFlags, length: u64) -> bool {
        let locked = self.usage.locked.load(Ordering::Relaxed).max(0) as u64 * PAGE_SIZE;
        let limit = self.limits.locked.load(Ordering::Relaxed);
        !flags.contains(VmaFlags::LOCKED) || locked.saturating_add(length) <= limit
    }

    /// How much of a range is locked.
    fn locked_bytes(&self, range: &Range<VirtAddr>) -> u64 {
        let regions = self.overlapping(range.clone());
        let locked = regions.iter().filter(|vma| vma.has(VmaFlags::LOCKED));
        locked.map(|vma| vma.end.min(range.end) - vma.start.max(range.start)).sum()
    }

    /// Lets the pages of a range leave memory again (`munlock(2)`); rounds as [`mlock`](Self::mlock)
    /// does.
    ///
    /// [`LockError::Unmapped`] at the first gap; what lies before it is unlocked. Takes the exclusive
    /// right to the address space.
    pub fn munlock(self: &Arc<Self>, address: VirtAddr, length: u64) -> Result<(), LockError> {
        let range = outward(address, length)?;
        self.exclusive().set_stay(&range, Stay::Evictable)
    }

    /// Keeps all mappings in memory, new ones, or both (`mlockall(2)`). A child of a fork does not inherit that.
    ///
    /// Present mappings must fit the limit together, even those that are locked already. What cannot be
    /// brought in is locked nevertheless. Takes the exclusive right to the address space, and faults after
    /// that.
    pub fn mlockall(self: &Arc<Self>, what: LockAll) -> Result<(), LockError> {
        if !what.intersects(LockAll::CURRENT | LockAll::FUTURE) {
            return Err(LockError::Nothing);
        }
        let stay = match what.contains(LockAll::ON_FAULT) {
            true => Stay::LockedOnFault,
            false => Stay::Locked,
        };
        let exclusive = self.exclusive();
        let limit = self.limits.locked.load(Ordering::Relaxed);
        let total = self.usage.total.load(Ordering::Relaxed).max(0) as u64 * PAGE_SIZE;
        if limit == 0 {
            return Err(LockError::NotPermitted);
        }
        if what.contains(LockAll::CURRENT) && total > limit {
            return Err(LockError::OverLimit);
        }
        let new = if what.contains(LockAll::FUTURE) { stay } else { Stay::Evictable };
        self.locks_new.store(new.flags().bits(), Ordering::Relaxed);
        if !what.contains(LockAll::CURRENT) {
            return Ok(());
        }
        let locked = exclusive.set_all(stay);
        drop(exclusive);
        if stay == Stay::Locked {
            locked.into_iter().for_each(|range| self.populate(range));
        }
        Ok(())
    }

    /// Lets all pages leave memory again, and those of new mappings (`munlockall(2)`). Takes the exclusive right
    /// to the address space.
    pub fn munlockall(self: &Arc<Self>) {
        let exclusive = self.exclusive();
        self.locks_new.store(0, Ordering::Relaxed);
        exclusive.set_all(Stay::Evictable);
    }

    /// Faults every page in, breaking copy-on-write now (spec C17).
    fn bring_in(self: &Arc<Self>, range: Range<VirtAddr>) -> Result<(), LockError> {
        let mut page = range.start;
        while page < range.end {
            let brought = self.fault_in_as(page, |vma| match vma.has(VmaFlags::PFNMAP) {
                true => Err(NotBrought::Device),
                false => Ok(vma.access_ahead()),
            });
            match brought {
                Ok(()) | Err(NotBrought::Device) => {}
                Err(NotBrought::Refused(Refusal::OutOfMemory)) => return Err(LockError::Again),
                Err(NotBrought::Refused(_)) => return Err(LockError::Unmapped),
            }
            page = page + PAGE_SIZE;
        }
        Ok(())
    }
}

impl<M: Machine> Exclusive<'_, M> {
    /// Checks the limit on locked memory (`RLIMIT_MEMLOCK`), before the lock of a range.
    fn check_lock_limit(&self, range: &Range<VirtAddr>) -> Result<(), LockError> {
        let mm = self.mm();
        let limit = mm.limits.locked.load(Ordering::Relaxed);
        if limit == 0 {
            return Err(LockError::NotPermitted);
        }
        let locked = mm.usage.locked.load(Ordering::Relaxed).max(0) as u64 * PAGE_SIZE;
        let sum = locked.saturating_add(range.end - range.start);
        // Memory that is already locked does not count again.
        if sum > limit && sum - mm.locked_bytes(range) > limit {
            return Err(LockError::OverLimit);
        }
        Ok(())
    }

    /// Sets how the pages of every region stay; returns the regions.
    fn set_all(&self, stay: Stay) -> Vec<Range<VirtAddr>> {
        let regions = self.mm().overlapping(self.mm().layout.range.clone());
        let ranges: Vec<_> = regions.iter().map(|vma| vma.range()).collect();
        for range in &ranges {
            // Whole regions: none is split, so there are not too many.
            let _ = self.set_stay(range, stay);
        }
        ranges
    }

    fn set_stay(&self, range: &Range<VirtAddr>, stay: Stay) -> Result<(), LockError> {
        let mut at = range.start;
        while at < range.end {
            let vma = self.mm().containing(at).ok_or(LockError::Unmapped)?;
            let part = at..range.end.min(vma.end);
            at = part.end;
            if vma.has(VmaFlags::PFNMAP) {
                // A device's memory never leaves, and does not count.
                continue;
            }
            let flags = vma.flags.difference(VmaFlags::LOCKS) | stay.flags();
            if flags != vma.flags {
                self.reflag(&vma, part, flags).map_err(|_| LockError::TooManyRegions)?;
            }
        }
        Ok(())
    }
}

/// Why mlock did not bring a page in.
enum NotBrought {
    /// It is memory of a device, which is always present.
    Device,
    Refused(Refusal),
}

impl From<Refusal> for NotBrought {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The whole pages that a range touches. A length that wraps when rounded counts as 0, as on Linux.
fn outward(address: VirtAddr, length: u64) -> Result<Range<VirtAddr>, LockError> {
    let start = address.page();
    let length = length.wrapping_add(address.page_offset() as u64);
    let length = pages_up(length).unwrap_or(0);
    let end = start.checked_add(length).ok_or(LockError::Wraps)?;
    Ok(start..end)
}
