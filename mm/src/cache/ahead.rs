//! Reading a file ahead of need (spec D3).
//!
//! The program's advice for the region decides what is read. Without advice, a miss reads the pages
//! *around* it, until misses prevail. For sequential access, a *window* runs ahead of the accesses:
//! touching its marker page reads the next window, twice as large. For random access, a miss reads
//! its page alone.
//!
//! A [`Backing`](crate::machine::Backing) reads while its caller waits. So the faulting page is mapped
//! first, and its neighbours are read before the fault returns.

use crate::cache::{Advised, Mapping, Store, Touch};
use crate::error::Refusal;
use crate::event::{Event, Weight};
use crate::machine::Machine;
use crate::manager::Manager;
use crate::reclaim::batch::Batch;

impl<M: Machine> Mapping<M> {
    /// After a fault, reads the pages that the next faults will need; returns whether it read any.
    pub(crate) fn read_ahead(&self, touch: Touch) -> Weight {
        let manager = &self.manager;
        if !self.is_read_ahead() || touch.advised == Advised::Random {
            return Weight::Minor;
        }
        let may_read = touch.missed || touch.advised == Advised::Sequential;
        let most = if may_read { manager.most_ahead(manager.config.file_read_ahead) } else { 0 };
        let wanted = self.reading.lock(&manager.order).wanted(touch, most);
        let Some(wanted) = wanted else { return Weight::Minor };
        // Errors here do not matter: the thread that touches the page meets them again.
        let Ok(end) = self.pages() else { return Weight::Minor };
        let mut read = 0;
        for index in wanted.start..wanted.end.min(end) {
            match self.read_unasked(index) {
                Ok(did) => read += u64::from(did),
                Err(_) => break,
            }
        }
        manager.stats.of(&*manager.machine).file_read_ahead.add(&*manager.machine, read);
        if read > 0 { Weight::Major } else { Weight::Minor }
    }

    /// Notes that a fault mapped cached pages around its own.
    pub(crate) fn note_hits(&self, pages: u64) {
        if pages > 0 && self.is_read_ahead() {
            let pages = u32::try_from(pages).unwrap_or(u32::MAX);
            self.reading.lock(&self.manager.order).hits(pages);
        }
    }

    /// The marker page, whose first touch must fault: it must not be mapped early.
    pub(crate) fn awaited(&self) -> Option<u64> {
        self.is_read_ahead().then(|| self.reading.lock(&self.manager.order).marker())?
    }

    fn is_read_ahead(&self) -> bool {
        self.manager.config.file_read_ahead > 1 && matches!(self.store, Store::Backing(_))
    }

    /// Reads a page that is not in the cache; returns whether it did. The error means that there is
    /// no room.
    fn read_unasked(&self, index: u64) -> Result<bool, Refusal> {
        let manager = &self.manager;
        if let Some(frame) = self.cached(index) {
            manager.put(frame);
            return Ok(false);
        }
        let low = manager.watermarks.low;
        if manager.machine.free_frames() <= low && manager.reclaim(Batch::<M>::SIZE) == 0 {
            return Err(Refusal::OutOfMemory);
        }
        let Some(frame) = self.insert_new(index)? else { return Ok(false) };
        // The object may have been truncated while the page was read (spec D2).
        let is_there = self.complete(frame, index).is_ok() && self.has_page(index) == Ok(true);
        if is_there {
            manager.observe(|| Event::ReadAhead { frame });
        } else {
            self.forget(frame);
        }
        manager.unlock_and_put(frame);
        Ok(is_there)
    }
}

impl<M: Machine> Manager<M> {
    /// How many of `most` pages may be read ahead: at most half of the frames whose use wakes no reclaim
    /// and of the pages that leave first.
    ///
    /// If page tables hold nearly all frames, few pages can leave at all. Read-ahead must not evict those:
    /// programs run from them.
    pub(crate) fn most_ahead(&self, most: u32) -> u32 {
        let spare = self.machine.free_frames().saturating_sub(self.watermarks.high);
        let lengths = self.queues.lengths(&self.order);
        let inactive = lengths.small.min(lengths.all() / 4);
        most.min(spare.saturating_add(inactive) / 2)
    }
}
