//! The pages of an object: found in the page cache, or brought in.

use crate::cache::Mapping;
use crate::cache::mapping::Store;
use crate::error::{FileError, Refusal};
use crate::event::Weight;
use crate::machine::{Backing, Frame, Machine, PAGE_SHIFT, PAGE_SIZE, SwapSlot};
use crate::page::{Owner, PageFlags};
use core::ops::Range;
use core::sync::atomic::Ordering;

/// A page of an object, locked and with a reference.
pub(crate) struct Found {
    pub(crate) frame: Frame,
    pub(crate) weight: Weight,
}

impl<M: Machine> Mapping<M> {
    /// The page at `index`, if it is cached, with a reference but not locked.
    pub(crate) fn cached(&self, index: u64) -> Option<Frame> {
        let manager = &self.manager;
        manager.cache.find(&manager.pages, &manager.order, self.key(index))
    }

    /// Finds a page or brings it in (`filemap_fault`, `shmem_fault`; spec D2, D11).
    pub(crate) fn page(&self, index: u64) -> Result<Found, Refusal> {
        let mut weight = Weight::Minor;
        loop {
            if !self.has_page(index)? {
                return Err(Refusal::Bus);
            }
            let frame = match self.cached(index) {
                Some(frame) => {
                    self.manager.lock_page(frame);
                    frame
                }
                None => match self.insert_new(index)? {
                    Some(frame) => frame,
                    None => continue,
                },
            };
            if self.holds(frame, index) {
                match self.complete(frame, index) {
                    Ok(Weight::Major) => weight = Weight::Major,
                    Ok(Weight::Minor) => {}
                    Err(refusal) => {
                        self.forget(frame);
                        self.manager.unlock_and_put(frame);
                        return Err(refusal);
                    }
                }
                // The object may have been truncated while the page was read (spec D2).
                match self.has_page(index) {
                    Ok(true) => return Ok(Found { frame, weight }),
                    // No thread may find it when the object grows again.
                    Ok(false) => self.forget(frame),
                    // It may be dirty, and stays.
                    Err(refusal) => {
                        self.manager.unlock_and_put(frame);
                        return Err(refusal);
                    }
                }
            }
            self.manager.unlock_and_put(frame);
        }
    }

    /// Whether a locked page is still this object's at `index`: it may have been truncated.
    pub(crate) fn holds(&self, frame: Frame, index: u64) -> bool {
        self.key(index).matches(self.manager.page(frame))
    }

    /// Puts a new page, locked, in the cache; `None` if another thread was faster.
    pub(super) fn insert_new(&self, index: u64) -> Result<Option<Frame>, Refusal> {
        let manager = &self.manager;
        let frame = manager.allocate()?;
        manager.lock_page(frame);
        match manager.cache.insert(
            &manager.counts,
            &manager.pages,
            &manager.order,
            self.key(index),
            frame,
        ) {
            Ok(()) => {
                self.count_cached(1);
                Ok(Some(frame))
            }
            Err(there) => {
                manager.put(there);
                manager.unlock_and_put(frame);
                Ok(None)
            }
        }
    }

    /// Takes a locked page out of the cache, and drops the cache's reference.
    pub(crate) fn forget(&self, frame: Frame) {
        let manager = &self.manager;
        if manager.cache.remove(&manager.counts, &manager.pages, &manager.order, frame, None) {
            self.count_cached(-1);
            manager.put(frame);
        }
    }

    /// Reads the content of a locked page, if it is not there yet.
    pub(super) fn complete(&self, frame: Frame, index: u64) -> Result<Weight, Refusal> {
        let page = self.manager.page(frame);
        if page.has(PageFlags::UPTODATE) {
            page.set(&*self.manager.machine, PageFlags::REFERENCED);
            return Ok(Weight::Minor);
        }
        let weight = match &self.store {
            Store::Backing(backing) => {
                self.read(self.calling(backing), frame, index).map_err(|_| Refusal::Bus)?;
                Weight::Major
            }
            Store::Shared(_) => self.bring_back(frame, index)?,
            Store::Device(_) => return Err(Refusal::Bus),
        };
        page.set(&*self.manager.machine, PageFlags::UPTODATE);
        self.manager.enqueue(frame, Some(self.key(index).hash()));
        Ok(weight)
    }

    fn read(&self, backing: &dyn Backing, frame: Frame, index: u64) -> Result<(), FileError> {
        let manager = &self.manager;
        let machine = &*manager.machine;
        manager.stats.of(machine).file_reads.add(machine, 1);
        let read = machine.fill(frame, |bytes| {
            bytes.fill(0);
            let tail = backing.len()?.saturating_sub(index << PAGE_SHIFT);
            backing.read(index, bytes)?;
            // Bytes past the end read as zero, whatever the backing left there (spec D5).
            if tail < PAGE_SIZE {
                bytes[tail as usize..].fill(0);
            }
            Ok(())
        });
        read.map_err(|error: crate::machine::IoError| {
            manager.stats.of(machine).io_errors.add(machine, 1);
            error.into()
        })
    }

    /// Fills a page of shared memory: from swap, if it was evicted, else with zeros (spec D11).
    fn bring_back(&self, frame: Frame, index: u64) -> Result<Weight, Refusal> {
        let manager = &self.manager;
        let Some(slot) = self.hold_slot(index) else {
            manager.machine.zero(frame);
            return Ok(Weight::Minor);
        };
        let read = manager.read_slot(frame, slot, |bytes| manager.swap.read(slot, bytes));
        let ours = read.is_ok() && manager.swap.disown(slot, self.id, index);
        if ours {
            manager.release_and_free(slot);
            manager.mark_dirty(manager.page(frame));
        } else {
            // Unreadable, or truncated meanwhile: then the content read is no longer the page's.
            manager.machine.zero(frame);
        }
        manager.release_and_free(slot);
        read.map_err(|_| Refusal::Bus)?;
        Ok(Weight::Major)
    }

    /// The slot of an evicted page of shared memory, with a reference, so that a truncation cannot
    /// give it to another page meanwhile.
    fn hold_slot(&self, index: u64) -> Option<SwapSlot> {
        let swap = &self.manager.swap;
        let slot = swap.find_owner(self.id, index)?;
        swap.duplicate(slot).ok()?;
        if swap.find_owner(self.id, index) == Some(slot) {
            return Some(slot);
        }
        self.manager.release_and_free(slot);
        None
    }

    /// Calls `f` with every cached page in a range of indexes, engaged and with a reference held.
    ///
    /// Goes through the range or through all frames, whichever is shorter.
    pub(crate) fn each_cached(&self, indexes: Range<u64>, mut f: impl FnMut(Frame, u64)) {
        let manager = &self.manager;
        let frames = manager.pages.len();
        let indexes = indexes.start..indexes.end.min(u64::MAX >> PAGE_SHIFT);
        if indexes.end.saturating_sub(indexes.start) <= u64::from(frames) {
            for index in indexes {
                let _engaged = manager.engage();
                if let Some(frame) = self.cached(index) {
                    f(frame, index);
                    manager.put(frame);
                }
            }
            return;
        }
        for number in 0..frames {
            if self.cached.load(Ordering::Relaxed) == 0 {
                return;
            }
            let page = manager.page(Frame(number));
            let index = page.index();
            if page.owner() != Owner::File(self.id) || !indexes.contains(&index) {
                continue;
            }
            let _engaged = manager.engage();
            // The owner was read without a lock: the cache confirms it.
            if let Some(frame) = self.cached(index) {
                f(frame, index);
                manager.put(frame);
            }
        }
    }
}
