//! The swap areas of this process.

use pagefault::Manager;
use pagefault::swap::area::{Priority, SwapOnError};
use pagefault_control::{Config, Control, Storage, SwapSpec};
use pagefault_linux::LinuxMachine;
use pagefault_linux::store::{CompressedRam, OpenError, ReserveError, SwapFile};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, SwapDevice};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// How much better than three to one RAM may compress before slots, not bytes, run out.
const SLOTS_PER_PAGE: u64 = 4;

/// A file without a size may grow to this many times the resident limit, or to the least size.
const FILE_FACTOR: u64 = 8;
const FILE_LEAST: u64 = 256 << 20;

/// The files among the areas, which a fork concerns.
pub struct Areas {
    files: Vec<Arc<SwapFile>>,
}

/// Why a swap area could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// The file could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no address space for its tables.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// The memory manager does not take it.
    #[error("a swap area is refused: {0:?}")]
    Refused(SwapOnError),
}

impl From<SwapOnError> for SwapError {
    fn from(error: SwapOnError) -> Self {
        Self::Refused(error)
    }
}

impl Areas {
    /// Opens all areas of a configuration; the first has the highest priority.
    pub fn open(
        config: &Config,
        control: &'static Control,
        memory: &Manager<LinuxMachine>,
    ) -> Result<Self, SwapError> {
        let mut files = Vec::new();
        for (number, spec) in config.swap.iter().enumerate() {
            let store = open(spec, config.limit_bytes)?;
            if let Store::File(file) = &store {
                files.push(file.clone());
            }
            let priority = Priority::Given((config.swap.len() - number) as u16);
            memory.swap_on(Box::new(Area { store, number, control }), priority)?;
        }
        Ok(Self { files })
    }

    /// Prepares the files for a process fork.
    pub fn before_fork(&self) {
        for file in &self.files {
            // A full disk leaves the pages where they are; the next fork tries again.
            let _ = file.before_fork();
        }
    }

    /// Lets the files go on after a process fork, on either side.
    pub fn after_fork(&self) {
        self.files.iter().for_each(|file| file.after_fork());
    }
}

fn open(spec: &SwapSpec, limit: u64) -> Result<Store, SwapError> {
    let file_bytes = Some(spec.bytes.unwrap_or((limit * FILE_FACTOR).max(FILE_LEAST)));
    Ok(match &spec.storage {
        Storage::Ram => {
            let bytes = spec.bytes.unwrap_or(limit / 2);
            let slots = u32::try_from(bytes / PAGE_SIZE * SLOTS_PER_PAGE + 1).unwrap_or(u32::MAX);
            Store::Ram(Box::new(CompressedRam::new(slots, bytes)?))
        }
        Storage::File(path) => Store::File(Arc::new(SwapFile::open(as_path(path), file_bytes)?)),
        Storage::Temporary(directory) => {
            Store::File(Arc::new(SwapFile::temporary(as_path(directory), file_bytes)?))
        }
    })
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
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
            Store::File(file) => file.write(slot, page)?,
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
