//! A file or shared object in the page cache (Linux's `address_space` and its `inode`).

use crate::cache::Key;
use crate::cache::device::Device;
use crate::cache::reading::Reading;
use crate::error::{FileError, Refusal};
use crate::interval::IntervalTree;
use crate::machine::{Backing, Frame, IoError, Machine, PAGE_SIZE};
use crate::manager::Manager;
use crate::rmap::RegionLink;
use crate::sync::{Mutex, Rank, SleepLock};
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The source of an object's content.
pub(crate) enum Store {
    /// A user's backing: dirty pages are written to it.
    Backing(Arc<dyn Backing>),
    /// Shared anonymous memory of this many bytes: dirty pages go to swap (spec D11).
    Shared(AtomicU64),
    /// Memory of a device: nothing is cached (spec B13).
    Device(Device),
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

/// An object in the page cache. Outside of this crate only a [`File`] leads to it, so that nobody
/// reads or writes an object whose last handle is gone.
pub struct Mapping<M: Machine> {
    pub(crate) id: u64,
    pub(crate) manager: Arc<Manager<M>>,
    pub(crate) store: Store,
    pub(crate) regions: Mutex<M, FileRegions<M>>,
    /// How many pages of the object are in the page cache.
    pub(crate) cached: AtomicU32,
    /// What is known about the order in which its pages are touched.
    pub(super) reading: Mutex<M, Reading>,
    /// Writing a page failed since this was last asked (spec D8).
    pub(crate) failed: AtomicBool,
    /// Serialises changes of the length.
    pub(crate) resizing: SleepLock,
    /// The pages promised to a shared anonymous object.
    pub(crate) charged: AtomicU64,
    /// The number of handles.
    pub(super) users: AtomicUsize,
}

/// A handle on an object in the page cache, as an open file is one on an inode.
///
/// Regions over the object have one each. The last drop writes dirty pages back and takes the
/// object out of the cache. A caller that needs the errors calls [`Mapping::sync`] first. It
/// dereferences to the object, [`Mapping`], which has `read_at`, `write_at`, `truncate` and so on.
pub struct File<M: Machine>(pub(super) Arc<Mapping<M>>);

impl<M: Machine> Clone for File<M> {
    fn clone(&self) -> Self {
        self.0.users.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<M: Machine> Deref for File<M> {
    type Target = Mapping<M>;
    fn deref(&self) -> &Mapping<M> {
        &self.0
    }
}

impl<M: Machine> fmt::Debug for File<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({})", self.0.id)
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

impl<M: Machine> fmt::Debug for Mapping<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({})", self.id)
    }
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

    /// Another handle. `None` if the last one is gone: then the object is ending, and none of its
    /// pages may enter the cache any more.
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
            Store::Device(_) => Err(IoError::Unsupported),
        }
    }

    pub(crate) fn set_store_len(&self, bytes: u64) -> Result<(), FileError> {
        match &self.store {
            Store::Backing(backing) => Ok(self.calling(backing).set_len(bytes)?),
            Store::Shared(len) => {
                len.store(bytes, Ordering::Release);
                Ok(())
            }
            Store::Device(_) => Err(FileError::Unsupported),
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

    /// The backing, for a call that may be slow: the caller holds no short lock.
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

    /// Tells the backing that a region over it has gone (spec D1).
    pub(crate) fn closed(&self) {
        match &self.store {
            Store::Backing(backing) => self.calling(backing).closed(),
            Store::Device(device) => device.memory.closed(),
            Store::Shared(_) => {}
        }
    }

    /// Tells the backing that a region over it was duplicated.
    pub(crate) fn opened(&self) {
        match &self.store {
            Store::Backing(backing) => self.calling(backing).opened(),
            Store::Device(device) => device.memory.opened(),
            Store::Shared(_) => {}
        }
    }

    /// Prepares for the first store to a locked page since it was cleaned: asks the backing
    /// (`page_mkwrite`, spec B16). No thread is writing the page back, since that needs the page
    /// lock.
    pub(crate) fn first_store(&self, frame: Frame) -> Result<(), Refusal> {
        self.ask_to_write(frame).map_err(|_| Refusal::Bus)
    }

    /// Asks the backing whether a locked page may become dirty; if so, the backing has room for it.
    pub(super) fn ask_to_write(&self, frame: Frame) -> Result<(), IoError> {
        match &self.store {
            Store::Backing(backing) => {
                self.calling(backing).make_writable(self.manager.page(frame).index())
            }
            Store::Shared(_) => Ok(()),
            Store::Device(_) => Err(IoError::Unsupported),
        }
    }

    /// Counts a page of the object that entered or left the page cache.
    pub(crate) fn count_cached(&self, change: i32) {
        self.cached.fetch_add(change as u32, Ordering::Relaxed);
        if !self.is_shared_memory() {
            self.manager.file_pages.fetch_add(change as u32, Ordering::Relaxed);
        }
    }
}
