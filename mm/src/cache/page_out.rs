//! Writing a page of an object to its backing.

use crate::cache::Mapping;
use crate::error::FileError;
use crate::machine::{Backing, Frame, Machine, PAGE_SHIFT, PAGE_SIZE};
use core::sync::atomic::Ordering;

impl<M: Machine> Mapping<M> {
    /// Writes a locked page, no entry of which is writable, to the backing, if it is dirty.
    pub(crate) fn write_page(&self, backing: &dyn Backing, frame: Frame) -> Result<(), FileError> {
        let manager = &self.manager;
        let page = manager.page(frame);
        if !manager.mark_clean(page) {
            return Ok(());
        }
        let index = page.index();
        manager.stats.of(&*manager.machine).file_writes.add(&*manager.machine, 1);
        let written = self.store_len().and_then(|length| {
            let bytes = length.saturating_sub(index << PAGE_SHIFT).min(PAGE_SIZE) as usize;
            manager.machine.drain(frame, |content| backing.write(index, &content[..bytes]))
        });
        written.map_err(|error| {
            manager.mark_dirty(page);
            self.failed.store(true, Ordering::Release);
            manager.stats.of(&*manager.machine).io_errors.add(&*manager.machine, 1);
            error.into()
        })
    }
}
