//! Building a memory.

use super::checked::Checked;
use super::{Attachment, CompressedRam, Memory, Shared};
use crate::machine::{BuildError, Config, LinuxMachine};
use crate::probe::{Delivery, ProbeError};
use crate::runtime::{Quiet, Reclaim, Runtime};
use crate::space::Layout;
use crate::store::{OpenError, ReserveError, SwapFile};
use pagefault::machine::{PAGE_SIZE, SwapDevice, VirtAddr};
use pagefault::replacement::Replacement;
use pagefault::swap::area::{Priority, SwapOnError};
use pagefault::{AddressSpace, Limits, Observer, Overcommit};
use rustix::io::Errno;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A place for pages that are not resident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Compressed in RAM.
    Ram {
        /// The most RAM that it uses, on top of the memory's limit.
        bytes: u64,
    },
    /// An unlinked temporary file.
    TemporaryFile {
        /// Its directory.
        directory: PathBuf,
        /// Its maximum size; without one it grows as far as its file system has room, less 5 %.
        bytes: Option<u64>,
    },
    /// A named file, or a block device.
    File {
        /// Its path.
        path: PathBuf,
        /// Its maximum size; without one it grows as far as its file system has room, less 5 %, or
        /// fills its device.
        bytes: Option<u64>,
    },
}

/// The options of a memory; see [`Memory::builder`].
#[must_use]
pub struct Builder {
    limit: u64,
    window: u64,
    swap: Vec<Swap>,
    devices: Vec<Arc<dyn SwapDevice>>,
    delivery: Delivery,
    reclaim: Reclaim,
    replacement: Option<Box<dyn Replacement>>,
    observer: Option<Box<dyn Observer>>,
}

/// Why a memory could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The limit is too small to work.
    #[error("a memory limit of {given} bytes is too small: give at least {least}")]
    LimitTooSmall {
        /// The limit given.
        given: u64,
        /// The least that works.
        least: u64,
    },
    /// The machine cannot be built on this kernel.
    #[error(transparent)]
    Machine(#[from] BuildError),
    /// A swap file cannot be opened.
    #[error(transparent)]
    SwapFile(#[from] OpenError),
    /// Address space for compressed RAM, or for the checksums of a device, could not be reserved.
    #[error(transparent)]
    SwapRam(#[from] ReserveError),
    /// A swap area cannot be used.
    #[error("swap area {index} has no room for a page, or there are too many areas ({error:?})")]
    SwapArea {
        /// Its number, from 0, in the order given.
        index: usize,
        /// The memory manager's error.
        error: SwapOnError,
    },
    /// The host refuses a thread or the handlers of signals.
    #[error("the host refuses a thread or a signal handler: {0}")]
    Host(Errno),
}

impl From<ProbeError> for CreateError {
    fn from(error: ProbeError) -> Self {
        Self::Machine(error.into())
    }
}

/// The fewest frames with which a memory works: a batch of leaving pages, and as many for faults
/// meanwhile.
const FEWEST_FRAMES: u64 = 64;

/// How many slots compressed RAM has for each page of its cap.
const RAM_SLOTS_PER_PAGE: u64 = 4;

impl Builder {
    pub(super) fn new(limit: u64) -> Self {
        let ram = Swap::Ram { bytes: limit / 2 };
        let directory = std::env::temp_dir();
        Self {
            limit,
            window: 64 << 30,
            swap: vec![ram, Swap::TemporaryFile { directory, bytes: None }],
            devices: Vec::new(),
            delivery: Delivery::Inline,
            reclaim: Reclaim::default(),
            replacement: None,
            observer: None,
        }
    }

    /// The swap areas, in the order in which they fill; each spills to the next when it is full. At most 30;
    /// the default is compressed RAM of half the limit, then a temporary file in [`std::env::temp_dir`].
    /// Without an area, memory that does not fit ends the program.
    pub fn swap(mut self, areas: impl IntoIterator<Item = Swap>) -> Self {
        self.swap = areas.into_iter().collect();
        self
    }

    /// A swap area on a device of your own, which fills after those of [`swap`](Self::swap) and after the
    /// devices given earlier.
    ///
    /// A page that comes back different from what was written counts as unreadable: the access raises `SIGBUS`.
    ///
    /// Its methods run [within an access](crate::memory#your-own-code-within-an-access).
    pub fn swap_device(mut self, device: Arc<dyn SwapDevice>) -> Self {
        self.devices.push(device);
        self
    }

    /// How faults are delivered; inline by default.
    pub const fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// When pages are evicted. The default is on demand, which needs no thread and was faster in
    /// every measurement; but a fault that evicts takes longer than others.
    pub const fn reclaim(mut self, reclaim: Reclaim) -> Self {
        self.reclaim = reclaim;
        self
    }

    /// The most bytes of all regions together, 64 GiB by default; this reserves only addresses.
    /// Rounded up to 2 MiB.
    pub const fn addresses(mut self, bytes: u64) -> Self {
        self.window = bytes;
        self
    }

    /// Which page leaves first; by default [`SegmentedFifo`](pagefault::replacement::SegmentedFifo), as for
    /// every machine without accessed bits. Its methods run
    /// [within an access](crate::memory#your-own-code-within-an-access).
    pub fn replacement(mut self, policy: Box<dyn Replacement>) -> Self {
        self.replacement = Some(policy);
        self
    }

    /// Tells `observer` of every event, [within the access](crate::memory#your-own-code-within-an-access) that
    /// causes it. Give an `Arc`, and keep another handle to read what it saw.
    pub fn observer(mut self, observer: Box<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Makes the memory, or returns what prevents it and what to do.
    pub fn build(self) -> Result<Memory, CreateError> {
        let frames = self.frames()?;
        let window = self.window.max(SPAN).checked_next_multiple_of(SPAN);
        let window = window.ok_or(BuildError::Window)?;
        // The first pages stay unused, so that no region starts at address 0.
        let layout = Layout::Windows { origin: VirtAddr::ZERO, bytes: window };
        let config = Config { layout, delivery: self.delivery, ..Config::new(frames) };
        let _quiet = Quiet::new();
        let machine = LinuxMachine::new(&config)?;
        let mut stores = self.swap.iter().map(Device::open).collect::<Result<Vec<_>, _>>()?;
        for device in self.devices {
            stores.push(Device::Own(Arc::new(Checked::new(device)?)));
        }
        let rules = pagefault::Config {
            overcommit: Overcommit::Always,
            // Regions cost nothing here: they are not host mappings.
            max_regions: i32::MAX as usize,
            populate_ahead: crate::machine::POPULATE_AHEAD,
            // The host itself reads files ahead, into its own page cache.
            file_read_ahead: 1,
            replacement: self.replacement,
            observer: self.observer,
            ..pagefault::Config::default()
        };
        let runtime = Runtime::start(machine, rules, self.reclaim).map_err(CreateError::Host)?;
        add_swap(&runtime, &stores)?;
        let space = runtime.machine().new_space().map_err(BuildError::AddressSpace)?;
        let addresses = pagefault::Layout::over(VirtAddr::ZERO..VirtAddr(window));
        let space =
            AddressSpace::with_space(runtime.manager(), addresses, Limits::default(), space);
        let (limit, births) = (self.limit, AtomicU64::new(0));
        let shared = Arc::new(Shared { runtime, limit, stores, births });
        Ok(Memory { space: Attachment::new(&shared, space) })
    }

    /// How many frames keep the limit: the limit minus the machine's resident overhead.
    fn frames(&self) -> Result<u32, CreateError> {
        let overhead = u64::from(Config::OVERHEAD);
        let frames = (self.limit / PAGE_SIZE).saturating_sub(overhead);
        if frames < FEWEST_FRAMES {
            let least = (overhead + FEWEST_FRAMES) * PAGE_SIZE;
            return Err(CreateError::LimitTooSmall { given: self.limit, least });
        }
        u32::try_from(frames).map_err(|_| BuildError::Frames.into())
    }
}

const SPAN: u64 = crate::table::SPAN;

fn add_swap(runtime: &Runtime, stores: &[Device]) -> Result<(), CreateError> {
    for (index, store) in stores.iter().enumerate() {
        let device: Box<dyn SwapDevice> = match store {
            Device::Ram(ram) => Box::new(ram.clone()),
            Device::File(file) => Box::new(file.clone()),
            Device::Own(device) => Box::new(device.clone()),
        };
        runtime
            .manager()
            .swap_on(device, Priority::Descending)
            .map_err(|error| CreateError::SwapArea { index, error })?;
    }
    Ok(())
}

/// A store shared with the memory manager.
pub(super) enum Device {
    Ram(Arc<CompressedRam>),
    File(Arc<SwapFile>),
    Own(Arc<Checked>),
}

impl Device {
    fn open(swap: &Swap) -> Result<Self, CreateError> {
        Ok(match swap {
            Swap::Ram { bytes } => {
                let slots = (bytes / PAGE_SIZE).saturating_mul(RAM_SLOTS_PER_PAGE) + 1;
                let slots = u32::try_from(slots).unwrap_or(u32::MAX);
                Self::Ram(Arc::new(CompressedRam::new(slots, *bytes)?))
            }
            Swap::TemporaryFile { directory, bytes } => {
                Self::File(Arc::new(SwapFile::temporary(directory, *bytes)?))
            }
            Swap::File { path, bytes } => Self::File(Arc::new(SwapFile::open(path, *bytes)?)),
        })
    }
}
