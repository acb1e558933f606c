//! mlock and munlock (spec C17).

use crate::edit::Exclusive;
use crate::error::LockError;
use crate::error::Refusal;
use crate::machine::{Machine, PAGE_SIZE, VirtAddr};
use crate::map::pages_up;
use crate::mm::Mm;
use crate::vma::VmaFlags;
use alloc::sync::Arc;
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
