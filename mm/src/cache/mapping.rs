//! A file or shared object in the page cache (Linux's `address_space` and its `inode`).

use crate::cache::Key;
use crate::cache::reading::Reading;
use crate::error::FileError;
use crate::error::Refusal;
use crate::event::Weight;
use crate::interval::IntervalTree;
use crate::machine::{Backing, Frame, IoError, Machine, PAGE_SHIFT, PAGE_SIZE, SwapSlot};
use crate::manager::Manager;
use crate::page::PageFlags;
use crate::rmap::RegionLink;
use crate::sync::{Mutex, Rank, SleepLock};
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Where the content of an object comes from.
pub(crate) enum Store {
    /// A user's backing: dirty pages are written to it.
    Backing(Arc<dyn Backing>),
    /// Shared anonymous memory of this many bytes: dirty pages go to swap (spec D11).
    Shared(AtomicU64),
}

/// The regions over an object.
pub(crate) struct FileRegions<M: Machine> {
    pub(crate) linear: IntervalTree<RegionLink<M>>,
    /// Regions whose entries may name pages out of order.
    pub(crate) nonlinear: Vec<RegionLink<M>>,
}

impl<M: Machine> FileRegions<M> {
    pub(crate) fn insert(&mut self, vma: &Vma<M>, link: RegionLink<M>) {
        if vma.has(VmaFlags::NONLINEAR) {
            self.nonlinear.push(link);
        } else {
            let inserted = self.linear.insert(vma.indexes(), vma.id, link);
            debug_assert!(inserted.is_ok(), "region linked twice");
        }
    }

    pub(crate) fn remove(&mut self, vma: &Vma<M>) -> Option<RegionLink<M>> {
        if vma.has(VmaFlags::NONLINEAR) {
            let at = self.nonlinear.iter().position(|link| link.vma.id == vma.id)?;
            Some(self.nonlinear.swap_remove(at))
        } else {
            self.linear.remove(vma.pgoff, vma.id)
        }
    }
}

/// An object in the page cache.
pub struct Mapping<M: Machine> {
    pub(crate) id: u64,
    pub(crate) manager: Arc<Manager<M>>,
    pub(crate) store: Store,
    pub(crate) regions: Mutex<M, FileRegions<M>>,
    /// How many pages of the object are in the page cache.
    pub(crate) cached: AtomicU32,
    /// What is known of the order in which its pages are touched.
    pub(super) reading: Mutex<M, Reading>,
    /// Writing a page failed since this was last asked (spec D8).
    pub(crate) failed: AtomicBool,
    /// Who changes the length.
    pub(crate) resizing: SleepLock,
    /// Pages promised to a shared anonymous object.
    pub(crate) charged: AtomicU64,
    /// How many handles there are.
    users: AtomicUsize,
}

/// A handle on an object in the page cache, as an open file is one on an inode.
///
/// Regions over the object have one each. When the last one goes, dirty pages are written back and
/// the object leaves the cache; whoever cares about errors calls [`Mapping::sync`] first.
pub struct File<M: Machine>(Arc<Mapping<M>>);

impl<M: Machine> Clone for File<M> {
    fn clone(&self) -> Self {
        self.0.users.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<M: Machine> Drop for File<M> {
    fn drop(&mut self) {
        // Reclaim borrows the object for a moment without being a user: it holds page locks, for
        // which the end of the object has to wait.
        if self.0.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.end();
        }
    }
}

impl<M: Machine> Deref for File<M> {
    type Target = Arc<Mapping<M>>;
    fn deref(&self) -> &Arc<Mapping<M>> {
        &self.0
    }
}

impl<M: Machine> File<M> {
    /// Opens a backing: its pages are cached and can be mapped.
    ///
    /// Two files over one backing have two caches; open once and clone the handle.
    pub fn open(manager: &Arc<Manager<M>>, backing: Arc<dyn Backing>) -> Self {
        Mapping::create(manager, Store::Backing(backing), 0)
    }

    /// Makes a shared anonymous object (Linux: a file on tmpfs, spec D11). Its pages go to swap.
    pub fn shared(manager: &Arc<Manager<M>>, bytes: u64) -> Self {
        Mapping::create(manager, Store::Shared(AtomicU64::new(bytes)), 0)
    }
}

/// A page of an object, locked and with a reference.
pub(crate) struct Found {
    pub(crate) frame: Frame,
    pub(crate) weight: Weight,
}

impl<M: Machine> Mapping<M> {
    /// Makes an object and the first handle on it.
    pub(crate) fn create(manager: &Arc<Manager<M>>, store: Store, charged: u64) -> File<M> {
        let regions = FileRegions { linear: IntervalTree::new(), nonlinear: Vec::new() };
        File(manager.mappings.add(&manager.order, |id| Self {
            id,
            manager: manager.clone(),
            store,
            regions: Mutex::new(Rank::FileRegions, regions),
            cached: AtomicU32::new(0),
            reading: Mutex::new(Rank::Reading, Reading::default()),
            failed: AtomicBool::new(false),
            resizing: SleepLock::new(),
            charged: AtomicU64::new(charged),
            users: AtomicUsize::new(1),
        }))
    }

    /// The last handle is gone: nobody can find a page of the object any more but in the cache.
    fn end(&self) {
        // Nobody can be told of an error any more.
        let _ = self.write_back(0..u64::MAX);
        self.drop_pages(0..u64::MAX);
        self.manager.uncharge(self.charged.swap(0, Ordering::Relaxed));
    }

    /// Another handle, unless the last one is gone: then the object is ending, and no page of it may
    /// come into the cache any more.
    pub(crate) fn handle(self: &Arc<Self>) -> Option<File<M>> {
        let more = |users: usize| (users > 0).then_some(users + 1);
        let taken = self.users.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more);
        taken.is_ok().then(|| File(self.clone()))
    }

    /// Its number, as reports of regions name it.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The length in bytes.
    pub fn len(&self) -> Result<u64, FileError> {
        Ok(self.store_len()?)
    }

    /// Whether the object is empty.
    pub fn is_empty(&self) -> Result<bool, FileError> {
        Ok(self.len()? == 0)
    }

    /// The length in bytes, or what the backing says instead.
    pub(super) fn store_len(&self) -> Result<u64, IoError> {
        match &self.store {
            Store::Backing(backing) => self.calling(backing).len(),
            Store::Shared(len) => Ok(len.load(Ordering::Acquire)),
        }
    }

    /// The length in pages, the last partial one counted.
    pub(crate) fn pages(&self) -> Result<u64, IoError> {
        Ok(self.store_len()?.div_ceil(PAGE_SIZE))
    }

    /// Whether a page is below the end.
    pub(super) fn has_page(&self, index: u64) -> Result<bool, Refusal> {
        self.pages().map(|pages| index < pages).map_err(|_| Refusal::Bus)
    }

    /// Whether a first store to each page is awaited, so that dirty pages are known (spec D7).
    pub(crate) const fn accounts_dirty(&self) -> bool {
        matches!(self.store, Store::Backing(_))
    }

    pub(crate) const fn is_shared_memory(&self) -> bool {
        matches!(self.store, Store::Shared(_))
    }

    pub(crate) const fn key(&self, index: u64) -> Key {
        Key::File { mapping: self.id, index }
    }

    /// The backing, for a call: it may take its time, so that no short lock is to be held.
    pub(crate) fn calling<'a>(&self, backing: &'a Arc<dyn Backing>) -> &'a dyn Backing {
        self.manager.order.assert_may_sleep();
        &**backing
    }

    /// Whether any region may store to the object.
    pub fn is_mapped_to_write(&self) -> bool {
        let regions = self.regions.lock(&self.manager.order);
        let stores =
            |link: &RegionLink<M>| link.vma.flags.contains(VmaFlags::SHARED | VmaFlags::MAYWRITE);
        regions.linear.iter().any(|entry| stores(&entry.value))
            || regions.nonlinear.iter().any(stores)
    }

    /// Tells the backing that a region over it went away (spec D1).
    pub(crate) fn closed(&self) {
        if let Store::Backing(backing) = &self.store {
            self.calling(backing).closed();
        }
    }

    /// Tells the backing that a region over it was duplicated.
    pub(crate) fn opened(&self) {
        if let Store::Backing(backing) = &self.store {
            self.calling(backing).opened();
        }
    }

    /// Prepares for the first store to a locked page since it was cleaned: asks the backing
    /// (`page_mkwrite`, spec B16). Nobody is writing the page: that would be under its lock.
    pub(crate) fn first_store(&self, frame: Frame) -> Result<(), Refusal> {
        self.ask_to_write(frame).map_err(|_| Refusal::Bus)
    }

    /// Asks the backing whether a locked page may become dirty, which it then has room for.
    pub(super) fn ask_to_write(&self, frame: Frame) -> Result<(), IoError> {
        match &self.store {
            Store::Backing(backing) => {
                self.calling(backing).make_writable(self.manager.page(frame).index())
            }
            Store::Shared(_) => Ok(()),
        }
    }

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
                    // Nobody may find it when the object grows again.
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

    /// Puts a new page, locked, in the cache; `None` if another was faster.
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

    /// Counts a page of the object that came into the page cache, or left it.
    pub(crate) fn count_cached(&self, change: i32) {
        self.cached.fetch_add(change as u32, Ordering::Relaxed);
        if !self.is_shared_memory() {
            self.manager.file_pages.fetch_add(change as u32, Ordering::Relaxed);
        }
    }

    /// Brings the content of a locked page in, if it is not there yet.
    pub(super) fn complete(&self, frame: Frame, index: u64) -> Result<Weight, Refusal> {
        let page = self.manager.page(frame);
        if page.has(PageFlags::UPTODATE) {
            page.set(PageFlags::REFERENCED);
            return Ok(Weight::Minor);
        }
        let weight = match &self.store {
            Store::Backing(backing) => {
                self.read(self.calling(backing), frame, index).map_err(|_| Refusal::Bus)?;
                Weight::Major
            }
            Store::Shared(_) => self.bring_back(frame, index)?,
        };
        page.set(PageFlags::UPTODATE);
        self.manager.enqueue(frame, Some(self.key(index).hash()));
        Ok(weight)
    }

    fn read(&self, backing: &dyn Backing, frame: Frame, index: u64) -> Result<(), FileError> {
        let manager = &self.manager;
        let context = manager.machine.context();
        manager.stats.file_reads.add(context, 1);
        let read = manager.machine.fill(frame, |bytes| {
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
            manager.stats.io_errors.add(context, 1);
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
        let read = manager.read_slot(frame, slot);
        let ours = read.is_ok() && manager.swap.disown(slot, self.id, index);
        if ours {
            manager.release_and_free(slot);
            manager.mark_dirty(manager.page(frame));
        } else {
            // Unreadable, or truncated meanwhile: then what was read is not the page any more.
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
}
