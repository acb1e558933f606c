//! What is mapped, as `/proc/PID/maps` shows it.

use crate::machine::{Machine, Protection, VirtAddr};
use crate::mm::Mm;
use crate::vma::VmaFlags;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// A line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionReport {
    /// The addresses.
    pub range: Range<VirtAddr>,
    /// What accesses are allowed.
    pub protection: Protection,
    /// Whether stores are seen by everyone who maps the object (`s`) or go to copies (`p`).
    pub shared: bool,
    /// The page index of the start: in the object, or of the anonymous memory.
    pub index: u64,
    /// The number of the object, if there is one.
    pub object: Option<u64>,
}

impl<M: Machine> Mm<M> {
    /// The regions that overlap a range, in order, whole.
    pub fn maps(self: &Arc<Self>, range: Range<VirtAddr>) -> Vec<RegionReport> {
        self.overlapping(range)
            .iter()
            .map(|vma| RegionReport {
                range: vma.range(),
                protection: vma.flags.protection(),
                shared: vma.has(VmaFlags::MAYSHARE),
                index: vma.pgoff,
                object: vma.file.as_ref().map(|file| file.id),
            })
            .collect()
    }
}
