//! msync (spec C18).

use crate::error::{FileError, MincoreError, SyncError};
use crate::machine::{Cursor, Machine, PAGE_SIZE, VirtAddr};
use crate::map::pages_up;
use crate::mm::Mm;
use crate::vma::VmaFlags;
use alloc::sync::Arc;

/// What msync does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Only check the range: dirty pages are known and will be written.
    Async,
    /// Write the dirty pages of the objects now.
    Sync,
    /// Make other mappings agree; here they always do.
    Invalidate,
}

impl<M: Machine> Mm<M> {
    /// Writes the objects that are mapped shared in a range back to their stores (`msync(2)`), each
    /// object whole.
    ///
    /// `address` is page-aligned; `length` is rounded up to whole pages. Gaps are skipped and reported
    /// at the end as [`SyncError::Unmapped`]; any other error stops at once, and what lies before is
    /// written. Takes page locks, and waits for I/O; not the exclusive right.
    pub fn msync(
        self: &Arc<Self>,
        address: VirtAddr,
        length: u64,
        mode: SyncMode,
    ) -> Result<(), SyncError> {
        if !address.is_page_aligned() {
            return Err(SyncError::Unaligned);
        }
        // A length that wraps when rounded counts as 0, as on Linux.
        let length = pages_up(length).unwrap_or(0);
        let end = address.checked_add(length).ok_or(SyncError::Wraps)?;
        let covered = self.each_region(address..end, |vma, range| {
            if mode == SyncMode::Invalidate && vma.has(VmaFlags::LOCKED) {
                return Err(SyncError::Locked);
            }
            if mode == SyncMode::Sync
                && vma.has(VmaFlags::SHARED)
                && let Some(file) = &vma.file
            {
                file.sync().map_err(|error| match error {
                    FileError::Full => SyncError::Full,
                    _ => SyncError::Io,
                })?;
            }
            Ok(range.end)
        })?;
        if covered { Ok(()) } else { Err(SyncError::Unmapped) }
    }

    /// Checks that a whole range is mapped, and returns for each page whether it is resident
    /// (`mincore`).
    pub fn mincore(
        self: &Arc<Self>,
        address: VirtAddr,
        length: u64,
        mut resident: impl FnMut(VirtAddr, bool),
    ) -> Result<(), MincoreError> {
        if !address.is_page_aligned() {
            return Err(MincoreError::Unaligned);
        }
        let length = pages_up(length).ok_or(MincoreError::Unmapped)?;
        let end = address.checked_add(length).ok_or(MincoreError::Unmapped)?;
        if end > self.layout.range.end {
            return Err(MincoreError::Unmapped);
        }
        let mut page = address;
        while page < end {
            let vma = self.containing(page).ok_or(MincoreError::Unmapped)?;
            let mapped = self
                .existing_entries(page..page + PAGE_SIZE)
                .is_some_and(|cursor| cursor.entry(page).frame().is_some());
            let cached = || {
                let frame = vma.file.as_ref().and_then(|file| file.cached(vma.index_of(page)));
                frame.map(|frame| self.manager.put(frame)).is_some()
            };
            resident(page, mapped || cached());
            page = page + PAGE_SIZE;
        }
        Ok(())
    }
}
