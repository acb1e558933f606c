//! The swap areas of this process.

use super::offload::{self, Offload};
use super::pool::{self, Pool};
use crate::file_size;
use crate::process;
use crate::sys::Errno;
use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use pagefault::Manager;
use pagefault::swap::area::{Priority, SwapOnError};
use pagefault_control::{Boot, Control, Storage, SwapSpec};
use pagefault_linux::LinuxMachine;
use pagefault_linux::store::pool::Pool as _;
use pagefault_linux::store::{
    Compressed, CompressedRam, OpenError, ReserveError, Shortage, ShortageKind, SwapFile,
};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, SwapDevice};

/// How much better than three to one RAM may compress before slots, not bytes, run out.
const SLOTS_PER_PAGE: u64 = 4;

/// The areas, which a fork concerns.
pub struct Areas {
    files: Vec<Arc<SwapFile>>,
    ram: Vec<Arc<CompressedRam>>,
    /// Who compresses for the first area of compressed memory.
    offload: Option<&'static Offload>,
    pool: &'static Pool,
    /// A temporary file that could not be made, because the disk is full.
    missing: Option<Shortage>,
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
    /// There is no address space for compressed memory.
    #[error("no address space for compressed memory: error {}; is `ulimit -v` set?", .0.0)]
    Pool(Errno),
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
        let boot = process::boot();
        let pool =
            Pool::new(control, boot.slot, boot.control_fd as u32).map_err(SwapError::Pool)?;
        let pool = &*Box::leak(Box::new(pool));
        let (mut files, mut ram, mut missing) = (Vec::new(), Vec::new(), None);
        let mut offload = None;
        for (number, spec) in config.swap.iter().enumerate() {
            let store = match open(spec, number, pool, &mut offload) {
                Ok(store) => store,
                // The other areas may be enough.
                Err(SwapError::Open(error)) if error.is_full() => {
                    missing = Some(no_room(spec)?);
                    continue;
                }
                // A program that has given up rights, or its root, may not open the area.
                Err(SwapError::Open(_)) if !is_first() => match elsewhere() {
                    Some(store) => store,
                    None => continue,
                },
                Err(error) => return Err(error),
            };
            match &store {
                Store::File(file) => files.push(file.clone()),
                Store::Ram(area) => ram.push(area.clone()),
            }
            let priority = Priority::Given((config.swap.len() - number) as u16);
            let area = Box::new(Area { store, number, control });
            memory.swap_on(area, priority).map_err(SwapError::Refused)?;
        }
        Ok(Self { files, ram, offload, pool, missing })
    }

    /// Prepares the areas for a process fork.
    pub fn before_fork(&self) {
        self.ram.iter().for_each(|ram| count(self.pool.control(), ram.before_fork()));
        for file in &self.files {
            // A full disk leaves the pages where they are; the next fork tries again.
            let _ = file_size::unlimited(|| file.before_fork());
        }
    }

    /// Makes the child that has `slot` hold the compressed memory that this process holds.
    pub fn child(&self, slot: u32, file: u32) -> Result<Child, Errno> {
        let desk = match (self.offload, self.ram.first()) {
            (Some(offload), Some(ram)) => Some(offload.child(ram.waiting(), slot, file)?),
            _ => None,
        };
        match self.pool.child(slot, file) {
            Ok(spans) => Ok(Child { spans, desk }),
            Err(errno) => {
                desk.into_iter().for_each(offload::Child::undo);
                Err(errno)
            }
        }
    }

    /// Why a file could take no page, if one could not.
    pub fn shortage(&self) -> Option<Shortage> {
        self.files.iter().find_map(|file| file.shortage()).or_else(|| self.missing.clone())
    }

    /// Lets the files go on after a process fork, on either side.
    pub fn after_fork(&self) {
        self.files.iter().for_each(|file| file.after_fork());
    }
}

/// The compressed memory of a child that is about to be forked.
pub struct Child {
    spans: pool::Child,
    desk: Option<offload::Child>,
}

impl Child {
    /// Makes it this process's own: in the child.
    pub fn become_this(self) {
        self.spans.become_this();
        self.desk.into_iter().for_each(offload::Child::become_this);
    }

    /// Leaves it to the child: in the parent.
    pub fn leave_to_child(self) {
        self.spans.leave_to_child();
        self.desk.into_iter().for_each(offload::Child::leave_to_child);
    }

    /// Undoes what was noted: there is no child.
    pub fn undo(self) {
        self.spans.undo();
        self.desk.into_iter().for_each(offload::Child::undo);
    }
}

/// What to say of an area for which the disk has no room.
fn no_room(spec: &SwapSpec) -> Result<Shortage, SwapError> {
    let place = match &spec.storage {
        Storage::File(path) | Storage::Temporary(path) => path,
        Storage::Ram => return Err(SwapError::Config),
    };
    let place = CString::new(&place[..]).map_err(|_| SwapError::Config)?;
    Ok(Shortage { place: place.as_c_str().into(), kind: ShortageKind::Disk })
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

fn open(
    spec: &SwapSpec,
    number: usize,
    pool: &'static Pool,
    offload: &mut Option<&'static Offload>,
) -> Result<Store, SwapError> {
    let path = |bytes: &[u8]| CString::new(bytes).map_err(|_| SwapError::Config);
    Ok(match &spec.storage {
        Storage::Ram => {
            let part = pool.part(number)?;
            let pages = part.limit() / PAGE_SIZE;
            let slots = u32::try_from(pages * SLOTS_PER_PAGE + 1).unwrap_or(u32::MAX);
            let limit = part.limit();
            let ram = CompressedRam::over(slots, Box::new(part))?;
            // The first one is the one that is used most.
            if offload.is_some() {
                return Ok(Store::Ram(Arc::new(ram)));
            }
            let made = &*Box::leak(Box::new(Offload::new(pool.control(), number, limit)));
            *offload = Some(made);
            Store::Ram(Arc::new(ram.with_offload(Box::new(made))))
        }
        Storage::File(file) => {
            Store::File(Arc::new(SwapFile::open_at(&path(file)?, c"/var/tmp", spec.bytes)?))
        }
        Storage::Temporary(directory) => {
            Store::File(Arc::new(SwapFile::temporary_at(&path(directory)?, spec.bytes)?))
        }
    })
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
                // The program must not go on without its page, nor be told that it is at fault.
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

    fn discard(&self, slot: u32) {
        match &self.store {
            Store::Ram(ram) => ram.discard(slot),
            Store::File(file) => file.discard(slot),
        }
    }
}
