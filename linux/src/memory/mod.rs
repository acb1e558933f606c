//! Memory for a Rust program, with a limit on how much of it is resident.
//!
//! A [`Memory`] hands out [`Region`]s, slices of bytes that together may be much larger than its
//! limit. Pages that do not fit are compressed or written to a file, and come back when they are
//! touched.
//!
//! ```
//! use pagefault_linux::memory::Memory;
//! # if pagefault_linux::Probe::new().is_err() { return Ok(()) }
//!
//! let memory = Memory::with_limit(8 << 20)?;
//! let mut region = memory.map(32 << 20)?;
//! for (i, byte) in region.iter_mut().step_by(4096).enumerate() {
//!     *byte = i as u8;
//! }
//! assert!(region.iter().step_by(4096).enumerate().all(|(i, byte)| *byte == i as u8));
//! assert!(memory.stats().resident_bytes <= 8 << 20);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Deliveries
//! Under [inline delivery](crate::Delivery::Inline), the default, a system call on a page that is
//! not resident fails with `EFAULT`: [`Region::pin`] the bytes that it uses. Thread delivery has no
//! such rule, but needs the kernel's permission and costs more for each fault.
//!
//! # Your own code within an access
//! Under inline delivery the thread that touches a page runs the memory manager in a signal handler,
//! and with it your [`Backing`], [`SwapDevice`](crate::SwapDevice), [`Observer`](crate::Observer) and
//! [`Replacement`](crate::replacement::Replacement). Their methods must not touch this memory, nor take a
//! lock that the program may hold while it touches it: so they do not print if the program prints a
//! region's bytes. They may allocate, and block. A panic there aborts the process.
//!
//! # Errors and signals
//! A page that cannot be read back, or lies past the end of its file, raises `SIGBUS`; an access that a
//! region does not allow, `SIGSEGV`. To get an error instead, bring the bytes in before they are touched:
//! [`Region::pin`] and [`Region::lock`] return it, and keep the bytes resident.
//!
//! # Signals and forks
//! A signal handler may touch regions. A child of a process fork does not inherit them: touching
//! one there is a segmentation violation.

mod build;
mod checked;
mod region;
mod snapshot;
mod stats;

pub use build::{Builder, CreateError, Swap};
pub use region::{Pinned, Region};
pub use snapshot::{Snapshot, SnapshotError};
pub use stats::{Stats, SwapStats};

use crate::machine::LinuxMachine;
use crate::runtime::{Attached, Quiet, Runtime};
use crate::space::LinuxSpace;
use crate::store::CompressedRam;
use build::Device;
use pagefault::error::MapError;
use pagefault::machine::Backing;
use pagefault::{AddressSpace, File, MapOptions, MapRequest, Sharing};
use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

/// Memory with a limit. Cloning gives another handle; the memory ends with its last handle, region
/// and snapshot.
#[derive(Clone)]
pub struct Memory {
    space: Arc<Attachment>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory(limit {} bytes)", self.space.shared.limit)
    }
}

/// The state that all memories and snapshots over one machine share.
struct Shared {
    runtime: Runtime,
    limit: u64,
    /// The stores, for their statistics, by area number.
    stores: Vec<Device>,
    /// Numbers regions and snapshots in the order of their creation.
    births: AtomicU64,
}

/// An address space of the memory's, or of a snapshot's.
struct Attachment {
    _attached: Attached,
    /// Dropped first, unless this is a forked child.
    space: ManuallyDrop<AddressSpace<LinuxMachine>>,
    /// The number of pins; held locked while a snapshot is taken.
    pins: Mutex<usize>,
    shared: Arc<Shared>,
}

impl Memory {
    #[cfg(test)]
    pub(crate) fn machine(&self) -> &crate::machine::LinuxMachine {
        self.space.shared.runtime.machine()
    }

    /// Starts building a memory of which at most `bytes` are resident.
    pub fn builder(bytes: u64) -> Builder {
        Builder::new(bytes)
    }

    /// A memory of which at most `bytes` are resident. The other pages are compressed in up to half
    /// as much RAM again, then go to a temporary file.
    pub fn with_limit(bytes: u64) -> Result<Self, CreateError> {
        Builder::new(bytes).build()
    }

    /// Maps `bytes` bytes of zeros, rounded up to whole pages (`mmap(2)`); 0 is refused. They take memory once they
    /// are touched, so that regions may be larger than the limit.
    pub fn map(&self, bytes: usize) -> Result<Region, MapError> {
        self.request(&MapRequest::anonymous(bytes as u64))
    }

    /// Opens a backing, so that [`Memory::map_file`] can map its content. Every handle on the
    /// result shares one cache, counted within the limit.
    ///
    /// The backing's methods run [within an access](self#your-own-code-within-an-access). The file's own
    /// methods, such as [`write_at`](pagefault::Mapping::write_at), and the drop of its last handle are calls of
    /// the memory manager: if a signal handler of the program touches regions, hold a [`Quiet`] meanwhile.
    pub fn open(&self, backing: Arc<dyn Backing>) -> File<LinuxMachine> {
        File::open(self.space.shared.runtime.manager(), backing)
    }

    /// Maps `bytes` bytes of a file from the byte `offset` on, a multiple of the page size.
    ///
    /// Stores to a [shared](Sharing::Shared) region reach the file by [`Region::sync`] or when
    /// their page is evicted; stores to a private region never do. Touching whole pages past the
    /// end of the file raises `SIGBUS`.
    ///
    /// [`MapError::Foreign`]: another memory opened the file.
    ///
    /// # Safety
    /// As with every mapping of a file, its bytes must not change while references to the region's
    /// bytes exist, except through these references: not through another shared region of the same
    /// pages, nor through [`File::write_at`](pagefault::Mapping::write_at) or
    /// [`File::truncate`](pagefault::Mapping::truncate). The backing must read back what was last
    /// written.
    pub unsafe fn map_file(
        &self,
        file: &File<LinuxMachine>,
        offset: u64,
        bytes: usize,
        sharing: Sharing,
    ) -> Result<Region, MapError> {
        let request = MapRequest::file(file, offset, bytes as u64).with(MapOptions::NORESERVE);
        self.request(&MapRequest { sharing, ..request })
    }

    /// Takes a snapshot: a copy of all regions, which copies a page only when either side stores to
    /// it.
    ///
    /// Concurrent stores of other threads may or may not be in it.
    pub fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        Snapshot::new(&self.space)
    }

    /// The counters so far, and the resident memory.
    pub fn stats(&self) -> Stats {
        self.space.shared.stats()
    }

    fn request(&self, request: &MapRequest<'_, LinuxMachine>) -> Result<Region, MapError> {
        let _quiet = Quiet::new();
        let at = self.space.space.mmap(request)?;
        let bytes = request.length.next_multiple_of(crate::host::PAGE as u64);
        Ok(Region::new(&self.space, at, bytes as usize))
    }
}

impl Attachment {
    fn new(shared: &Arc<Shared>, space: AddressSpace<LinuxMachine>) -> Arc<Self> {
        let (_attached, shared) = (shared.runtime.attach(&space), shared.clone());
        let space = ManuallyDrop::new(space);
        Arc::new(Self { _attached, space, pins: Mutex::new(0), shared })
    }

    fn page_table(&self) -> &LinuxSpace {
        self.space.space()
    }

    /// Whether this is a forked child, which cannot use the memory: threads that do not exist here
    /// may hold its locks.
    fn is_inherited(&self) -> bool {
        self.shared.runtime.machine().is_inherited()
    }

    /// The number of the next region or snapshot.
    fn birth(&self) -> u64 {
        self.shared.births.fetch_add(1, Relaxed)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if !self.is_inherited() {
            let _quiet = Quiet::new();
            // SAFETY: this is the only place that drops it, and the value is not used after.
            unsafe { ManuallyDrop::drop(&mut self.space) };
        }
    }
}
