//! Writing to objects, and writing their dirty pages back (spec D8, C18).

use crate::cache::find::Found;
use crate::cache::mapping::{Mapping, Store};
use crate::error::{FileError, Refusal};
use crate::machine::{Machine, PAGE_SHIFT, PAGE_SIZE};
use crate::page::PageFlags;
use crate::reclaim::clean::Cleaned;
use crate::sync::Rank;
use core::ops::Range;
use core::sync::atomic::Ordering;

impl From<Refusal> for FileError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OutOfMemory => Self::OutOfMemory,
            _ => Self::Io,
        }
    }
}

impl<M: Machine> Mapping<M> {
    /// Reads bytes through the page cache (`pread`); returns how many there were before the end.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, FileError> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let left = self.len()?.saturating_sub(at);
            if left == 0 {
                break;
            }
            let within = (at & (PAGE_SIZE - 1)) as usize;
            let n = (bytes.len() - done).min(PAGE_SIZE as usize - within).min(left as usize);
            let _engaged = self.manager.engage();
            let found = match self.page(at >> PAGE_SHIFT) {
                Ok(found) => found,
                // Truncated between the two looks at the length.
                Err(Refusal::Bus) if at >= self.len()? => break,
                Err(refusal) => return Err(refusal.into()),
            };
            self.manager.machine.read(found.frame, within, &mut bytes[done..done + n]);
            self.manager.unlock_and_put(found.frame);
            done += n;
        }
        Ok(done)
    }

    /// Writes bytes through the page cache (`pwrite`), growing the object if they go past its end;
    /// returns how many were written, fewer only if the next page could not be.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize, FileError> {
        if offset > i64::MAX as u64 {
            return Err(FileError::OutOfRange);
        }
        let end = offset.checked_add(bytes.len() as u64).ok_or(FileError::OutOfRange)?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let _resizing = self.resizing.lock(&self.manager.order, Rank::Layout);
        let before = self.len()?;
        if end > before {
            self.zero_tail(before)?;
            self.set_store_len(end)?;
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at & (PAGE_SIZE - 1)) as usize;
            let n = (bytes.len() - done).min(PAGE_SIZE as usize - within);
            if let Err(error) = self.write_within(at, &bytes[done..done + n]) {
                let kept = if done > 0 { before.max(at) } else { before };
                self.take_back_growth(kept, end)?;
                return if done > 0 { Ok(done) } else { Err(error) };
            }
            done += n;
        }
        Ok(done)
    }

    /// Writes all bytes as [`Mapping::write_at`] does, or returns why it stopped.
    pub fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        // At least once: even a write of no bytes checks the offset.
        let mut done = self.write_at(offset, bytes)?;
        while done < bytes.len() {
            done += self.write_at(offset.saturating_add(done as u64), &bytes[done..])?;
        }
        Ok(())
    }

    /// Writes bytes of one page, which is below the end.
    fn write_within(&self, at: u64, bytes: &[u8]) -> Result<(), FileError> {
        let within = (at & (PAGE_SIZE - 1)) as usize;
        let manager = &self.manager;
        let _engaged = manager.engage();
        let Found { frame, .. } = self.page(at >> PAGE_SHIFT)?;
        let page = manager.page(frame);
        let is_dirty = page.has(PageFlags::DIRTY);
        let allowed = if is_dirty { Ok(()) } else { self.ask_to_write(frame) };
        if allowed.is_ok() {
            manager.machine.write(frame, within, bytes);
            manager.mark_dirty(page);
        }
        manager.unlock_and_put(frame);
        Ok(allowed?)
    }

    /// After a write that grew the object to `end` and stopped at `bytes`: sets the length to the
    /// bytes written.
    fn take_back_growth(&self, bytes: u64, end: u64) -> Result<(), FileError> {
        if bytes < end {
            self.set_store_len(bytes)?;
            self.drop_pages(bytes.div_ceil(PAGE_SIZE)..u64::MAX);
        }
        Ok(())
    }

    /// Writes every dirty page back and makes the backing durable (`fsync`). An error of an
    /// earlier write-back is reported here, once (spec D8).
    pub fn sync(&self) -> Result<(), FileError> {
        let written = self.write_back(0..u64::MAX);
        if let Store::Backing(backing) = &self.store {
            self.calling(backing).sync()?;
        }
        let failed = self.failed.swap(false, Ordering::AcqRel);
        written?;
        if failed { Err(FileError::Io) } else { Ok(()) }
    }

    /// Writes the dirty pages of a range of indexes back. Shared memory has no store to write to.
    pub(crate) fn write_back(&self, indexes: Range<u64>) -> Result<(), FileError> {
        let Store::Backing(backing) = &self.store else { return Ok(()) };
        let mut result = Ok(());
        self.each_cached(indexes, |frame, index| {
            let manager = &self.manager;
            manager.lock_page(frame);
            if self.holds(frame, index) {
                let cleaned = manager.clean(frame);
                if let Err(error) = self.write_page(self.calling(backing), frame) {
                    result = Err(error);
                }
                if cleaned == Cleaned::Pinned {
                    // Later stores must be written too.
                    manager.mark_dirty(manager.page(frame));
                }
            }
            manager.unlock_page(frame);
        });
        result
    }
}
