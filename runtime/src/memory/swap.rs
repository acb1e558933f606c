//! The swap areas of this process.

use super::extents::{self, Extents};
use super::offload::{self, Offload};
use super::pool::{self, Pool};
use crate::file_size;
use crate::process;
use crate::sys::Errno;
use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use pagefault::Manager;
use pagefault::swap::area::{Priority, SwapOnError};
use pagefault_control::{Boot, Control, Storage, SwapSpec};
use pagefault_linux::LinuxMachine;
use pagefault_linux::store::pool::Pool as _;
use pagefault_linux::store::{
    Compressed, CompressedRam, ReserveError, Shortage, ShortageKind, SwapFile,
};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, Part, SwapDevice};

/// How much better than three to one RAM may compress before slots, not bytes, run out.
const SLOTS_PER_PAGE: u64 = 4;

/// The areas, for forks.
pub struct Areas {
    files: Vec<(Arc<SwapFile>, &'static Extents)>,
    ram: Vec<Arc<CompressedRam>>,
    /// The compressor of the first area of compressed memory.
    offload: Option<&'static Offload>,
    pool: &'static Pool,
    /// A file that could not be made when the tree began, because the disk was full.
    missing: Option<Shortage>,
    specs: Vec<SwapSpec>,
}

/// Why a swap area could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// The shared memory holds no configuration.
    #[error("the configuration is damaged")]
    Config,
    /// There is no address space for its tables.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// There is no address space for compressed memory.
    #[error("no address space for compressed memory: error {}; is `ulimit -v` set?", .0.0)]
    Pool(Errno),
    /// The memory manager refuses it.
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
        let boot = process::boot();
        let pool =
            Pool::new(control, boot.slot, boot.control_fd as u32).map_err(SwapError::Pool)?;
        let pool = &*Box::leak(Box::new(pool));
        let (files, ram) = (Vec::new(), Vec::new());
        let specs = config.swap.clone();
        let mut areas = Self { files, ram, offload: None, pool, missing: None, specs };
        for (number, spec) in config.swap.iter().enumerate() {
            // The other areas may be enough.
            let Some(store) = areas.open_one(number, spec)? else { continue };
            let priority = Priority::Given((config.swap.len() - number) as u16);
            let area = Box::new(Area { store, number, control });
            memory.swap_on(area, priority).map_err(SwapError::Refused)?;
        }
        Ok(areas)
    }

    fn open_one(&mut self, number: usize, spec: &SwapSpec) -> Result<Option<Store>, SwapError> {
        let path = match &spec.storage {
            Storage::Ram => return self.open_ram(number).map(Store::Ram).map(Some),
            Storage::File(path) | Storage::Temporary(path) => path,
        };
        let place = CString::new(&path[..]).map_err(|_| SwapError::Config)?;
        if spec.pages == 0 {
            let place = place.as_c_str().into();
            self.missing = Some(Shortage { place, kind: ShortageKind::Disk });
            return Ok(None);
        }
        let extents = Extents::new(self.pool.control(), number);
        let extents = &*Box::leak(Box::new(extents));
        let file = SwapFile::shared(Box::new(extents), spec.pages, &place, spec.bytes)?;
        let file = Arc::new(file);
        self.files.push((file.clone(), extents));
        Ok(Some(Store::File(file)))
    }

    /// An area of compressed memory. The first one is used most, and has a compressor.
    fn open_ram(&mut self, number: usize) -> Result<Arc<CompressedRam>, SwapError> {
        let part = self.pool.part(number)?;
        let (limit, pages) = (part.limit(), part.limit() / PAGE_SIZE);
        let slots = u32::try_from(pages * SLOTS_PER_PAGE + 1).unwrap_or(u32::MAX);
        let mut ram = CompressedRam::over(slots, Box::new(part))?;
        if self.offload.is_none() {
            let offload = Offload::new(self.pool.control(), number, limit);
            let offload = &*Box::leak(Box::new(offload));
            self.offload = Some(offload);
            ram = ram.with_offload(Box::new(offload));
        }
        let ram = Arc::new(ram);
        self.ram.push(ram.clone());
        Ok(ram)
    }

    /// Prepares the areas for a process fork.
    pub fn before_fork(&self) {
        self.ram.iter().for_each(|ram| count(self.pool.control(), ram.before_fork()));
        for (file, _) in &self.files {
            // On a full disk the pages keep waiting, on both sides.
            let _ = file_size::unlimited(|| file.before_fork());
        }
    }

    /// Makes the child with `slot` hold this process's compressed memory and parts of files.
    pub fn child(&self, slot: u32, file: u32) -> Result<Child, Errno> {
        let mut child = Child { spans: None, mailbox: None, extents: Vec::new() };
        match self.fill(&mut child, slot, file) {
            Ok(()) => Ok(child),
            Err(errno) => {
                child.undo();
                Err(errno)
            }
        }
    }

    fn fill(&self, child: &mut Child, slot: u32, file: u32) -> Result<(), Errno> {
        if let (Some(offload), Some(ram)) = (self.offload, self.ram.first()) {
            child.mailbox = Some(offload.child(ram.waiting(), slot, file)?);
        }
        child.spans = Some(self.pool.child(slot, file)?);
        for (_, extents) in &self.files {
            child.extents.push(extents.child(slot, file)?);
        }
        Ok(())
    }

    /// What to say of a page that could not be read back.
    pub const fn lost_page(&self) -> LostPage<'_> {
        LostPage(self)
    }

    /// Why a file could take no page, if one could not.
    pub fn shortage(&self) -> Option<Shortage> {
        let shortage = self.files.iter().find_map(|(file, _)| file.shortage());
        shortage.or_else(|| self.missing.clone())
    }

    /// Why a file can grow no more, if one cannot, although this process has not tried.
    pub fn limit_reached(&self) -> Option<Shortage> {
        self.files.iter().find_map(|(file, _)| file.limit_reached())
    }
}

/// As the options of `pagefault run` give them.
impl fmt::Display for Areas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, SwapSpec { storage, bytes, .. }) in self.specs.iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            let (kind, path) = match storage {
                Storage::Ram => ("ram", &[][..]),
                Storage::File(path) => ("file:", &path[..]),
                Storage::Temporary(_) => ("file", &[][..]),
            };
            write!(f, "{space}--swap {kind}{}", path.escape_ascii())?;
            let colons = if matches!(storage, Storage::Temporary(_)) { "::" } else { ":" };
            match *bytes {
                None => {}
                Some(bytes) if bytes % (1 << 20) == 0 => write!(f, "{colons}{}M", bytes >> 20)?,
                Some(bytes) => write!(f, "{colons}{}K", bytes >> 10)?,
            }
        }
        Ok(())
    }
}

/// The message about a page that could not be read back: the last failure of each area tells which and why.
pub struct LostPage<'a>(&'a Areas);

impl fmt::Display for LostPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Areas { ram, files, .. } = self.0;
        f.write_str("a page could not be read back from swap")?;
        for failure in ram.iter().filter_map(|ram| ram.failure()) {
            write!(f, "; compressed memory: {failure}")?;
        }
        for (file, failure) in files.iter().filter_map(|(file, _)| Some((file, file.failure()?))) {
            write!(f, "; swap file {}: {failure}", file.place())?;
        }
        Ok(())
    }
}

/// What a child holds that is about to be forked.
pub struct Child {
    spans: Option<pool::Child>,
    mailbox: Option<offload::Child>,
    extents: Vec<extents::Child>,
}

impl Child {
    /// Makes it this process's own: in the child.
    pub fn become_this(self) {
        self.spans.into_iter().for_each(pool::Child::become_this);
        self.mailbox.into_iter().for_each(offload::Child::become_this);
        self.extents.into_iter().for_each(extents::Child::become_this);
    }

    /// Leaves it to the child: in the parent.
    pub fn leave_to_child(self) {
        self.spans.into_iter().for_each(pool::Child::leave_to_child);
        self.mailbox.into_iter().for_each(offload::Child::leave_to_child);
        self.extents.into_iter().for_each(extents::Child::leave_to_child);
    }

    /// Undoes what was noted: there is no child.
    pub fn undo(self) {
        self.spans.into_iter().for_each(pool::Child::undo);
        self.mailbox.into_iter().for_each(offload::Child::undo);
        self.extents.into_iter().for_each(extents::Child::undo);
    }
}

/// Whether this is the program that the command was asked to run.
pub(super) fn is_first() -> bool {
    process::boot().flags & Boot::FIRST != 0
}

/// Counts what was compressed.
fn count(control: &Control, compressed: Compressed) {
    let counters = &control.counters;
    counters.uncompressed_bytes.add(compressed.pages * PAGE_SIZE);
    counters.compressed_bytes.add(compressed.bytes);
    counters.offloaded.add(compressed.elsewhere);
}

enum Store {
    Ram(Arc<CompressedRam>),
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
            Store::File(file) => file.read(slot, page).inspect_err(|_| {
                // The program must not continue without its page, nor get a signal as if it were at
                // fault.
                if let Some(damage) = file.damage() {
                    process::stop(format_args!("{damage}"));
                }
            })?,
        }
        self.control.counters.pages_in[self.number].add(1);
        Ok(())
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        let counters = &self.control.counters;
        match &self.store {
            Store::Ram(ram) => count(self.control, ram.write_measured(slot, page)?),
            Store::File(file) => file_size::unlimited(|| file.write(slot, page))?,
        }
        counters.pages_out[self.number].add(1);
        Ok(())
    }

    fn prefetch(&self, slot: u32, part: Part) {
        if let Store::Ram(ram) = &self.store {
            ram.prefetch(slot, part);
        }
    }

    fn discard(&self, slot: u32) {
        match &self.store {
            Store::Ram(ram) => ram.discard(slot),
            Store::File(file) => file.discard(slot),
        }
    }
}
