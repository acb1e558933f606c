//! The swap areas of this process.

use crate::file_size;
use crate::process;
use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use pagefault::Manager;
use pagefault::swap::area::{Priority, SwapOnError};
use pagefault_control::{Boot, Control, Storage, SwapSpec};
use pagefault_linux::LinuxMachine;
use pagefault_linux::store::{CompressedRam, OpenError, ReserveError, Shortage, SwapFile};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, SwapDevice};

/// How much better than three to one RAM may compress before slots, not bytes, run out.
const SLOTS_PER_PAGE: u64 = 4;

/// The files among the areas, which a fork concerns.
pub struct Areas {
    files: Vec<Arc<SwapFile>>,
}

/// Why a swap area could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// The shared memory holds no configuration.
    #[error("the configuration is damaged")]
    Config,
    /// The file could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no address space for its tables.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// The memory manager does not take it.
    #[error("no address space for the tables of a swap area ({0:?}); is `ulimit -v` set?")]
    Refused(SwapOnError),
}

impl Areas {
    /// Opens all areas of the configuration; the first has the highest priority.
    pub fn open(
        control: &'static Control,
        memory: &Manager<LinuxMachine>,
    ) -> Result<Self, SwapError> {
        let config = control.config().ok_or(SwapError::Config)?;
        let mut files = Vec::new();
        for (number, spec) in config.swap.iter().enumerate() {
            let store = match open(spec, config.limit_bytes) {
                Ok(store) => store,
                // A program that has given up rights, or its root, may not open the area.
                Err(SwapError::Open(_)) if !is_first() => match elsewhere() {
                    Some(store) => store,
                    None => continue,
                },
                Err(error) => return Err(error),
            };
            if let Store::File(file) = &store {
                files.push(file.clone());
            }
            let priority = Priority::Given((config.swap.len() - number) as u16);
            let area = Box::new(Area { store, number, control });
            memory.swap_on(area, priority).map_err(SwapError::Refused)?;
        }
        Ok(Self { files })
    }

    /// Prepares the files for a process fork.
    pub fn before_fork(&self) {
        for file in &self.files {
            // A full disk leaves the pages where they are; the next fork tries again.
            let _ = file_size::unlimited(|| file.before_fork());
        }
    }

    /// Why a file could take no page, if one could not.
    pub fn shortage(&self) -> Option<Shortage> {
        self.files.iter().find_map(|file| file.shortage())
    }

    /// Lets the files go on after a process fork, on either side.
    pub fn after_fork(&self) {
        self.files.iter().for_each(|file| file.after_fork());
    }
}

/// A file where everybody may have one.
fn elsewhere() -> Option<Store> {
    let places = [c"/var/tmp", c"/tmp"];
    let file = places.into_iter().find_map(|place| SwapFile::temporary_at(place, None).ok())?;
    Some(Store::File(Arc::new(file)))
}

/// Whether this is the program that the command was asked to run, which the areas were tried for.
pub(super) fn is_first() -> bool {
    process::boot().flags & Boot::FIRST != 0
}

fn open(spec: &SwapSpec, limit: u64) -> Result<Store, SwapError> {
    let path = |bytes: &[u8]| CString::new(bytes).map_err(|_| SwapError::Config);
    Ok(match &spec.storage {
        Storage::Ram => {
            let bytes = spec.bytes.unwrap_or(limit / 2);
            let slots = u32::try_from(bytes / PAGE_SIZE * SLOTS_PER_PAGE + 1).unwrap_or(u32::MAX);
            Store::Ram(Box::new(CompressedRam::new(slots, bytes)?))
        }
        Storage::File(file) => {
            Store::File(Arc::new(SwapFile::open_at(&path(file)?, c"/var/tmp", spec.bytes)?))
        }
        Storage::Temporary(directory) => {
            Store::File(Arc::new(SwapFile::temporary_at(&path(directory)?, spec.bytes)?))
        }
    })
}

enum Store {
    Ram(Box<CompressedRam>),
    File(Arc<SwapFile>),
}

/// An area with its traffic counted.
struct Area {
    store: Store,
    number: usize,
    control: &'static Control,
}

impl SwapDevice for Area {
    fn slots(&self) -> u32 {
        match &self.store {
            Store::Ram(ram) => ram.slots(),
            Store::File(file) => file.slots(),
        }
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        match &self.store {
            Store::Ram(ram) => ram.read(slot, page)?,
            Store::File(file) => file.read(slot, page)?,
        }
        self.control.counters.pages_in[self.number].add(1);
        Ok(())
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        let counters = &self.control.counters;
        match &self.store {
            Store::Ram(ram) => {
                let compressed = ram.write_measured(slot, page)?;
                counters.uncompressed_bytes.add(PAGE_SIZE);
                counters.compressed_bytes.add(compressed as u64);
            }
            Store::File(file) => file_size::unlimited(|| file.write(slot, page))?,
        }
        counters.pages_out[self.number].add(1);
        Ok(())
    }

    fn discard(&self, slot: u32) {
        match &self.store {
            Store::Ram(ram) => ram.discard(slot),
            Store::File(file) => file.discard(slot),
        }
    }
}
