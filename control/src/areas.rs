//! The swap files of the tree: each is one set of [spans](crate::Spans) for all processes, here called
//! extents.

use crate::{MOST_AREAS, MOST_PROCESSES};
use core::ops::Range;

const PAGE: u64 = 4096;

/// The pages of an extent.
pub const EXTENT_PAGES: u32 = 64;
/// The bytes of an extent: 256 KiB.
pub const EXTENT: u64 = EXTENT_PAGES as u64 * PAGE;

/// The places in the shared file of the words and columns of each swap file's extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilePlan {
    start: u64,
    /// The pages of each area; 0 for an area without a file.
    pages: [u32; MOST_AREAS],
}

impl FilePlan {
    pub(crate) const fn new(start: u64, pages: [u32; MOST_AREAS]) -> Self {
        Self { start, pages }
    }

    /// The pages that the file of an area may have; 0 if it has no file.
    pub fn pages(&self, area: usize) -> u32 {
        self.pages.get(area).copied().unwrap_or(0)
    }

    /// The extents of the file of an area.
    pub fn extents(&self, area: usize) -> u32 {
        self.pages(area).div_ceil(EXTENT_PAGES)
    }

    /// The words of the extents of an area.
    pub fn words(&self, area: usize) -> Range<u64> {
        let before = (0..area).map(|area| self.words_len(area) + self.columns_len(area));
        let start = self.start + before.sum::<u64>();
        start..start + self.words_len(area)
    }

    /// The column of bits of a slot, one for each extent of an area.
    pub fn column(&self, area: usize, slot: u32) -> Range<u64> {
        let start = self.words(area).end + u64::from(slot) * self.column_len(area);
        start..start + self.column_len(area)
    }

    /// The end of all of it.
    pub fn end(&self) -> u64 {
        self.words(MOST_AREAS).end
    }

    fn words_len(&self, area: usize) -> u64 {
        (u64::from(self.extents(area)) * 4).next_multiple_of(PAGE)
    }

    fn column_len(&self, area: usize) -> u64 {
        u64::from(self.extents(area)).div_ceil(8).next_multiple_of(PAGE)
    }

    fn columns_len(&self, area: usize) -> u64 {
        self.column_len(area) * MOST_PROCESSES as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_columns_follow_each_other() {
        let mut pages = [0; MOST_AREAS];
        (pages[1], pages[3]) = (u32::MAX, 65);
        let plan = FilePlan::new(8 * PAGE, pages);
        assert_eq!(plan.words(0), 8 * PAGE..8 * PAGE);
        assert_eq!((plan.extents(0), plan.extents(1), plan.extents(3)), (0, 1 << 26, 2));
        assert_eq!(plan.words(1), 8 * PAGE..8 * PAGE + (4 << 26));
        assert_eq!(plan.column(1, 0), plan.words(1).end..plan.words(1).end + (1 << 23));
        assert_eq!(plan.column(1, 1).start, plan.column(1, 0).end);
        assert_eq!(plan.words(3).start, plan.column(1, MOST_PROCESSES as u32 - 1).end);
        assert_eq!(plan.column(3, 7).end - plan.column(3, 7).start, PAGE);
        assert_eq!(plan.end(), plan.column(3, MOST_PROCESSES as u32 - 1).end);
        assert_eq!((plan.pages(MOST_AREAS), plan.extents(MOST_AREAS)), (0, 0));
    }
}
