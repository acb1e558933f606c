//! The configuration of a program's manager: its limit and its swap areas.

use crate::pool::SPAN;
#[cfg(feature = "alloc")]
use crate::shares::Plan;
use crate::text::Text;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// The most swap areas that a run can have.
pub const MOST_AREAS: usize = 8;

/// Where faults are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// The thread that faults.
    #[default]
    Inline,
    /// A thread of the manager's, so that readers from outside, such as debuggers, find absent
    /// pages too.
    Threads,
}

/// How system calls enter the runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// By a trap; frequent call sites are rewritten.
    #[default]
    Rewritten,
    /// Every call by a trap.
    Trapped,
}

/// The configuration of a manager.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The most bytes resident in the tree.
    pub limit_bytes: u64,
    /// The maximum of that limit while the tree runs.
    pub most_bytes: u64,
    /// Where faults are answered.
    pub delivery: Delivery,
    /// How system calls enter the runtime.
    pub calls: Calls,
    /// The addresses that a process reserves at once for its tables, in bytes; 0 where the host counts them as memory.
    pub room_bytes: u64,
    /// The swap areas in the order in which they fill; at most [`MOST_AREAS`].
    pub swap: Vec<SwapSpec>,
}

#[cfg(feature = "alloc")]
impl Config {
    /// The layout of the shared file of a tree with this configuration.
    pub fn plan(&self) -> Plan {
        let ram = self.swap.iter().filter(|spec| spec.storage == Storage::Ram);
        let spans = ram.map(|spec| spec.bytes.unwrap_or(self.limit_bytes / 2) / SPAN);
        let pages = core::array::from_fn(|area| self.swap.get(area).map_or(0, |spec| spec.pages));
        Plan::new(self.most_bytes, spans.sum::<u64>() * SPAN, pages)
    }
}

/// One swap area.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapSpec {
    /// Where pages go.
    pub storage: Storage,
    /// The most bytes that it may take; `None` for no limit.
    pub bytes: Option<u64>,
    /// The pages that its file may have; 0 for memory, and if no file could be made.
    pub pages: u32,
}

/// Where the pages of a swap area go. Paths are bytes, as the host has them.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Compressed, in memory.
    Ram,
    /// To a file of this name.
    File(Vec<u8>),
    /// To an unlinked temporary file in this directory.
    Temporary(Vec<u8>),
}

/// There are more swap areas than [`MOST_AREAS`], or a path is longer than 4,095 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl core::fmt::Display for TooLong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "more than {MOST_AREAS} swap areas, or a path of more than 4,095 bytes")
    }
}

impl core::error::Error for TooLong {}

/// The configuration as it lies in the shared memory.
#[repr(C)]
pub(crate) struct Shared {
    limit_bytes: AtomicU64,
    /// The limit at the start, by which areas are sized.
    first_limit: AtomicU64,
    most_bytes: AtomicU64,
    /// 0 inline, 1 threads.
    delivery: AtomicU64,
    /// 0 rewritten, 1 trapped.
    calls: AtomicU64,
    room_bytes: AtomicU64,
    areas: AtomicU64,
    swap: [SharedSwap; MOST_AREAS],
}

/// The value of [`SharedSwap::kind`] for a RAM area.
const RAM: u64 = 1;

#[repr(C)]
struct SharedSwap {
    /// [`RAM`], 2 a named file, 3 a temporary file.
    kind: AtomicU64,
    /// 0 for no limit.
    bytes: AtomicU64,
    pages: AtomicU64,
    path: Text<4096>,
}

impl Shared {
    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Relaxed)
    }

    pub(crate) fn calls(&self) -> Calls {
        if self.calls.load(Relaxed) == 0 { Calls::Rewritten } else { Calls::Trapped }
    }

    pub(crate) fn room_bytes(&self) -> u64 {
        self.room_bytes.load(Relaxed)
    }

    pub(crate) fn set_limit(&self, bytes: u64) {
        self.limit_bytes.store(bytes.min(self.most_bytes()), Relaxed);
    }

    pub(crate) fn most_bytes(&self) -> u64 {
        self.most_bytes.load(Relaxed)
    }

    pub(crate) fn delivery(&self) -> Option<Delivery> {
        match self.delivery.load(Relaxed) {
            0 => Some(Delivery::Inline),
            1 => Some(Delivery::Threads),
            _ => None,
        }
    }
}

impl Shared {
    /// The most bytes of a RAM area, in whole spans.
    pub(crate) fn ram_bytes(&self, area: usize) -> Option<u64> {
        let areas = self.areas.load(Relaxed).min(MOST_AREAS as u64);
        let spec = self.swap.get(..areas as usize)?.get(area)?;
        let bytes = match spec.bytes.load(Relaxed) {
            0 => self.first_limit.load(Relaxed) / 2,
            bytes => bytes,
        };
        (spec.kind.load(Relaxed) == RAM).then_some(bytes / SPAN * SPAN)
    }

    /// The pages of the file of an area; 0 if it has no file.
    pub(crate) fn file_pages(&self, area: usize) -> u32 {
        let areas = self.areas.load(Relaxed).min(MOST_AREAS as u64);
        let spec = self.swap.get(..areas as usize).and_then(|swap| swap.get(area));
        spec.map_or(0, |spec| spec.pages.load(Relaxed) as u32)
    }
}

#[cfg(feature = "alloc")]
impl Shared {
    pub(crate) fn store(&self, config: &Config) -> Result<(), TooLong> {
        if config.swap.len() > MOST_AREAS {
            return Err(TooLong);
        }
        self.limit_bytes.store(config.limit_bytes, Relaxed);
        self.first_limit.store(config.limit_bytes, Relaxed);
        self.most_bytes.store(config.most_bytes, Relaxed);
        self.delivery.store(config.delivery as u64, Relaxed);
        self.calls.store(config.calls as u64, Relaxed);
        self.room_bytes.store(config.room_bytes, Relaxed);
        self.areas.store(config.swap.len() as u64, Relaxed);
        self.swap.iter().zip(&config.swap).try_for_each(|(shared, spec)| shared.store(spec))
    }

    pub(crate) fn load(&self) -> Option<Config> {
        let areas = usize::try_from(self.areas.load(Relaxed)).ok()?;
        let swap = self.swap.get(..areas)?.iter().map(SharedSwap::load).collect::<Option<_>>()?;
        Some(Config {
            limit_bytes: self.limit_bytes(),
            most_bytes: self.most_bytes(),
            delivery: self.delivery()?,
            calls: self.calls(),
            room_bytes: self.room_bytes(),
            swap,
        })
    }
}

#[cfg(feature = "alloc")]
impl SharedSwap {
    fn store(&self, spec: &SwapSpec) -> Result<(), TooLong> {
        let (kind, path) = match &spec.storage {
            Storage::Ram => (RAM, &[][..]),
            Storage::File(path) => (2, &path[..]),
            Storage::Temporary(path) => (3, &path[..]),
        };
        self.kind.store(kind, Relaxed);
        self.bytes.store(spec.bytes.unwrap_or(0), Relaxed);
        self.pages.store(spec.pages.into(), Relaxed);
        self.path.store(path)
    }

    fn load(&self) -> Option<SwapSpec> {
        let path = self.path.load();
        let storage = match self.kind.load(Relaxed) {
            RAM => Storage::Ram,
            2 => Storage::File(path),
            3 => Storage::Temporary(path),
            _ => return None,
        };
        let bytes = Some(self.bytes.load(Relaxed)).filter(|bytes| *bytes != 0);
        Some(SwapSpec { storage, bytes, pages: self.pages.load(Relaxed) as u32 })
    }
}
