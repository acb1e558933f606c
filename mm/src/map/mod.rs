//! The verbs that change an address space, each in its own file.

mod advise;
mod brk;
mod guard;
mod lock;
mod mmap;
mod protect;
mod region;
mod relocate;
mod remap;
mod remap_file_pages;
mod report;
mod seal;
mod sync;
mod unmap;
pub(crate) mod zap;

pub use advise::Advice;
pub use lock::LockAll;
pub use mmap::{FileAccess, MapOptions, MapRequest, Placement, Sharing, Source};
pub use remap::{Move, RemapRequest};
pub use report::{PageReport, RegionReport};
pub use sync::SyncMode;

use crate::machine::{Machine, PAGE_SIZE, VirtAddr};
use crate::mm::Mm;
use crate::vma::Vma;
use alloc::sync::Arc;
use core::ops::Range;

/// A length rounded up to whole pages; `None` where the sum wraps around.
pub(crate) const fn pages_up(bytes: u64) -> Option<u64> {
    match bytes.checked_add(PAGE_SIZE - 1) {
        Some(sum) => Some(sum & !(PAGE_SIZE - 1)),
        None => None,
    }
}

impl<M: Machine> Mm<M> {
    /// Calls `f` with every region in a range and its part of it, in order, until a call fails;
    /// returns whether the regions cover the range. `f` returns how far it came, and the next
    /// region is looked up there. So `f` may change the region, and may stop early if another
    /// thread did.
    fn each_region<E>(
        &self,
        range: Range<VirtAddr>,
        mut f: impl FnMut(&Arc<Vma<M>>, Range<VirtAddr>) -> Result<VirtAddr, E>,
    ) -> Result<bool, E> {
        let (mut at, mut covered) = (range.start, true);
        while at < range.end {
            let Some(vma) = self.find(at).filter(|vma| vma.start < range.end) else {
                return Ok(false);
            };
            covered &= vma.start <= at;
            at = f(&vma, at.max(vma.start)..range.end.min(vma.end))?;
        }
        Ok(covered)
    }
}
