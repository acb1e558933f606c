//! The file disk: a second block device, on which the files below `/disk` have their pages.
//!
//! The page cache is in front of it, so that these files are read when they are first touched and
//! written back when they are dirty, as files on a disk are. Which page of the disk holds which page
//! of a file is kept in memory: the files live as long as the machine.

use crate::disk::Disk;
use crate::failures::Counts;
use crate::lock::Mutex;
use crate::sleep::SleepMutex;
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use pagefault::machine::store::PageBytes;
use pagefault::machine::{Backing, IoError, PAGE_SIZE};

/// Where the files are.
pub const DIRECTORY: &str = "/disk";

static VOLUME: spin::Once<Volume> = spin::Once::new();

/// A disk and which of its pages are free.
struct Volume {
    disk: Disk,
    free: Mutex<Free>,
}

struct Free {
    /// Pages that were given back.
    returned: Vec<u32>,
    /// The pages from this one on were never used.
    unused: u32,
}

/// Begins to use a disk, all of which is free.
pub fn start(disk: Disk) {
    let free = Free { returned: Vec::new(), unused: 0 };
    VOLUME.call_once(|| Volume { disk, free: Mutex::new(free) });
}

fn volume() -> Result<&'static Volume, IoError> {
    VOLUME.get().ok_or(IoError::Device)
}

impl Volume {
    fn take(&self) -> Result<u32, IoError> {
        let mut free = self.free.lock();
        if let Some(page) = free.returned.pop() {
            return Ok(page);
        }
        let page = free.unused;
        if page == self.disk.pages() {
            return Err(IoError::Full);
        }
        free.unused += 1;
        Ok(page)
    }

    fn give_back(&self, pages: impl Iterator<Item = u32>) {
        self.free.lock().returned.extend(pages);
    }
}

/// Where a page of a file is on the disk.
#[derive(Clone, Copy)]
struct Place {
    at: u32,
    /// Whether the disk has content of the file there, not that of an earlier one.
    is_written: bool,
}

/// A file on the disk.
pub struct Stored {
    /// Where its pages are; one that is not there is a hole. Held while the disk is at work for the
    /// file, so that no page of the disk changes hands meanwhile.
    pages: SleepMutex<BTreeMap<u64, Place>>,
    length: AtomicU64,
    failures: Counts,
}

impl Stored {
    /// An empty file.
    pub fn new() -> Arc<Self> {
        let (pages, length) = (SleepMutex::new(BTreeMap::new()), AtomicU64::new(0));
        Arc::new(Self { pages, length, failures: Counts::new() })
    }

    fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// Where a page is, or is to be from now on; `None` past the end, where nothing is content.
    fn place<'a>(
        &self,
        pages: &'a mut BTreeMap<u64, Place>,
        index: u64,
    ) -> Result<Option<&'a mut Place>, IoError> {
        if index >= self.length().div_ceil(PAGE_SIZE) {
            return Ok(None);
        }
        Ok(Some(match pages.entry(index) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(vacant) => {
                vacant.insert(Place { at: volume()?.take()?, is_written: false })
            }
        }))
    }
}

/// Zeroes what is past a new end in the page that the end cuts: it must not come back when the file
/// grows again.
fn cut(pages: &BTreeMap<u64, Place>, bytes: u64) -> Result<(), IoError> {
    let (index, within) = (bytes / PAGE_SIZE, (bytes % PAGE_SIZE) as usize);
    let Some(place) = pages.get(&index).filter(|place| place.is_written && within > 0) else {
        return Ok(());
    };
    let disk = &volume()?.disk;
    let mut content = [0; PAGE_SIZE as usize];
    disk.read_page(place.at, &mut content)?;
    content[within..].fill(0);
    disk.write_page(place.at, &content)
}

impl Backing for Stored {
    fn read(&self, index: u64, page: &mut PageBytes) -> Result<(), IoError> {
        self.failures.read()?;
        match self.pages.lock().get(&index) {
            Some(Place { at, is_written: true }) => volume()?.disk.read_page(*at, page),
            _ => Ok(()),
        }
    }

    fn write(&self, index: u64, page: &[u8]) -> Result<(), IoError> {
        self.failures.write()?;
        let mut pages = self.pages.lock();
        let Some(place) = self.place(&mut pages, index)? else { return Ok(()) };
        let disk = &volume()?.disk;
        match <&PageBytes>::try_from(page) {
            Ok(whole) => disk.write_page(place.at, whole)?,
            Err(_) => {
                let mut content = [0; PAGE_SIZE as usize];
                content[..page.len()].copy_from_slice(page);
                disk.write_page(place.at, &content)?;
            }
        }
        place.is_written = true;
        Ok(())
    }

    /// Finds a place for the page, so that what is dirty can always be written.
    fn make_writable(&self, index: u64) -> Result<(), IoError> {
        self.place(&mut self.pages.lock(), index).map(drop)
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.length())
    }

    fn set_len(&self, bytes: u64) -> Result<(), IoError> {
        let mut pages = self.pages.lock();
        match self.length() {
            // Orders are for files that had content.
            0 => self.failures.forget(),
            before if bytes < before => cut(&pages, bytes)?,
            _ => {}
        }
        self.length.store(bytes, Ordering::Release);
        let dropped = pages.split_off(&bytes.div_ceil(PAGE_SIZE));
        volume()?.give_back(dropped.into_values().map(|place| place.at));
        Ok(())
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        let pages = core::mem::take(&mut *self.pages.lock());
        // Without a disk there are no pages.
        if let Ok(volume) = volume() {
            volume.give_back(pages.into_values().map(|place| place.at));
        }
    }
}
