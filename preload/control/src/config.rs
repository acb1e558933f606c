//! What a program's manager is told: its limit and its swap areas.

use crate::shared::Text;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The most swap areas that a run can have.
pub const MOST_AREAS: usize = 8;

/// What a manager is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The most bytes resident in one process.
    pub limit_bytes: u64,
    /// The swap areas, the one to be filled first in front; at most [`MOST_AREAS`].
    pub swap: Vec<SwapSpec>,
}

/// One swap area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapSpec {
    /// Where pages go.
    pub storage: Storage,
    /// The most bytes it may take; `None` for as many as it can.
    pub bytes: Option<u64>,
}

/// Where the pages of a swap area go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Compressed, in memory.
    Ram,
    /// To a file of this name.
    File(PathBuf),
    /// To an unlinked temporary file in this directory.
    Temporary(PathBuf),
}

/// There are more swap areas than [`MOST_AREAS`], or a path is longer than 4,095 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// The configuration as it lies in the shared memory.
#[repr(C)]
pub(crate) struct Shared {
    limit_bytes: AtomicU64,
    areas: AtomicU64,
    swap: [SharedSwap; MOST_AREAS],
}

#[repr(C)]
struct SharedSwap {
    /// 1 RAM, 2 a named file, 3 a temporary file.
    kind: AtomicU64,
    /// 0 for as many bytes as it can.
    bytes: AtomicU64,
    path: Text<4096>,
}

impl Shared {
    pub(crate) fn store(&self, config: &Config) -> Result<(), TooLong> {
        if config.swap.len() > MOST_AREAS {
            return Err(TooLong);
        }
        self.limit_bytes.store(config.limit_bytes, Relaxed);
        self.areas.store(config.swap.len() as u64, Relaxed);
        self.swap.iter().zip(&config.swap).try_for_each(|(shared, spec)| shared.store(spec))
    }

    pub(crate) fn load(&self) -> Option<Config> {
        let areas = usize::try_from(self.areas.load(Relaxed)).ok()?;
        let swap = self.swap.get(..areas)?.iter().map(SharedSwap::load).collect::<Option<_>>()?;
        Some(Config { limit_bytes: self.limit_bytes.load(Relaxed), swap })
    }
}

impl SharedSwap {
    fn store(&self, spec: &SwapSpec) -> Result<(), TooLong> {
        let (kind, path) = match &spec.storage {
            Storage::Ram => (1, OsStr::new("")),
            Storage::File(path) => (2, path.as_os_str()),
            Storage::Temporary(path) => (3, path.as_os_str()),
        };
        self.kind.store(kind, Relaxed);
        self.bytes.store(spec.bytes.unwrap_or(0), Relaxed);
        self.path.store(path.as_bytes())
    }

    fn load(&self) -> Option<SwapSpec> {
        let path = PathBuf::from(OsStr::from_bytes(&self.path.load()));
        let storage = match self.kind.load(Relaxed) {
            1 => Storage::Ram,
            2 => Storage::File(path),
            3 => Storage::Temporary(path),
            _ => return None,
        };
        let bytes = Some(self.bytes.load(Relaxed)).filter(|bytes| *bytes != 0);
        Some(SwapSpec { storage, bytes })
    }
}
