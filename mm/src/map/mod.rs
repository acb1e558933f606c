//! The verbs that change an address space, a file each.

mod advise;
mod lock;
mod mmap;
mod protect;
mod region;
mod remap;
mod remap_file_pages;
mod report;
mod sync;
mod unmap;
pub(crate) mod zap;

pub use advise::Advice;
pub use mmap::{FileAccess, MapOptions, MapRequest, Placement, Sharing, Source};
pub use remap::{Move, RemapRequest};
pub use report::{PageReport, RegionReport};
pub use sync::SyncMode;

use crate::machine::PAGE_SIZE;

/// A length rounded up to whole pages; `None` where the sum wraps around.
pub(crate) const fn pages_up(bytes: u64) -> Option<u64> {
    match bytes.checked_add(PAGE_SIZE - 1) {
        Some(sum) => Some(sum & !(PAGE_SIZE - 1)),
        None => None,
    }
}
