//! The manager: the state that all address spaces of a machine share.

use crate::cache::{Cache, Mapping};
use crate::error::OutOfMemory;
use crate::event::{Event, Observer};
use crate::guesses::Guesses;
use crate::machine::{Frame, Machine, Protection, SwapDevice, SwapSlot};
use crate::mm::Mm;
use crate::page::{Page, PageFlags, Pages};
use crate::reclaim::foresight::Foresight;
use crate::reclaim::passes::Passes;
use crate::reclaim::queue::{Queues, Sight};
use crate::reclaim::watermarks::Watermarks;
use crate::registry::Registry;
use crate::replacement::{Replacement, S3Fifo, SegmentedFifo};
use crate::rmap::AnonVma;
use crate::stats::{Counters, Counts, Stats};
use crate::swap::area::{AreaStatistics, Areas, Priority, SwapOnError};
use crate::sync::LockOrder;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

/// How anonymous memory answers a read before the first store (spec B8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroPolicy {
    /// Map the shared frame of zeros where the machine has one; a store copies it.
    #[default]
    Shared,
    /// Allocate a frame at once (Linux 2.6.24).
    Fresh,
}

/// How much memory may be promised (`vm.overcommit_memory`, spec C21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overcommit {
    /// Refuse only promises that obviously cannot be kept.
    #[default]
    Heuristic,
    /// Refuse nothing.
    Always,
    /// Refuse promises beyond swap plus this share of memory in percent.
    Never {
        /// The share of memory, in percent.
        ratio: u32,
    },
}

/// How `remap_file_pages` is done (spec C19, J10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NonlinearPolicy {
    /// File entries in the page table for shared anonymous objects, as in Linux 2.6.24; a piece of
    /// a file whose dirty pages are accounted becomes a region of its own.
    #[default]
    Entries,
    /// Every piece becomes a region of its own, as in Linux since 4.0.
    Regions,
}

/// The configuration of a manager.
pub struct Config {
    /// How anonymous memory answers a read before the first store.
    pub zero: ZeroPolicy,
    /// How much memory may be promised.
    pub overcommit: Overcommit,
    /// How `remap_file_pages` is done.
    pub nonlinear: NonlinearPolicy,
    /// The most pages that a read fault maps around the faulting one, if they are cached (J5); a
    /// power of two, 1: none.
    pub fault_around: u32,
    /// The most pages that a fault on a file reads around its page or ahead of it (D3); 1: none.
    /// For machines whose backings cost more for each request than for each page.
    pub file_read_ahead: u32,
    /// The most pages that a run of faults in order brings back from swap ahead of need (F17); 1:
    /// none.
    pub read_ahead: u32,
    /// The most pages of zeros that a run of first stores in order gets ahead of need; 1: none. For
    /// machines on which a fault costs much more than a page of zeros.
    pub populate_ahead: u32,
    /// The most regions in an address space (`vm.max_map_count`).
    pub max_regions: usize,
    /// Which page leaves first; `None`: the machine's default.
    pub replacement: Option<Box<dyn Replacement>>,
    /// Receives every event; costs nothing when absent.
    pub observer: Option<Box<dyn Observer>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            zero: ZeroPolicy::default(),
            overcommit: Overcommit::default(),
            nonlinear: NonlinearPolicy::default(),
            fault_around: 16,
            file_read_ahead: 32,
            read_ahead: 16,
            populate_ahead: 1,
            max_regions: 65530,
            replacement: None,
            observer: None,
        }
    }
}

/// The memory manager of one machine: frames, caches, swap and the policy of replacement.
///
/// [`AddressSpace::new`](crate::AddressSpace::new) makes its address spaces,
/// [`File::open`](crate::File::open) its files.
pub struct Manager<M: Machine> {
    pub(crate) machine: Arc<M>,
    pub(crate) order: LockOrder<M>,
    pub(crate) pages: Pages,
    pub(crate) cache: Cache<M>,
    pub(crate) queues: Queues<M>,
    pub(crate) replacement: Box<dyn Replacement>,
    pub(crate) swap: Areas<M::Mutex, M::RwLock>,
    pub(crate) families: Registry<M, AnonVma<M>>,
    pub(crate) mappings: Registry<M, Mapping<M>>,
    pub(crate) spaces: Registry<M, Mm<M>>,
    pub(crate) config: Config,
    pub(crate) stats: Stats,
    pub(crate) counts: Counts,
    /// Pages promised to accounted regions and objects (spec C20).
    pub(crate) committed: AtomicI64,
    pub(crate) watermarks: Watermarks,
    /// How many pages of files with a backing are in the page cache.
    pub(crate) file_pages: AtomicU32,
    pub(crate) foresight: Foresight,
    pub(crate) guesses: Guesses,
    /// Counts requests for background reclaim; its thread waits on it.
    pub(crate) background: AtomicU32,
    /// The number of such threads.
    pub(crate) background_threads: AtomicU32,
    pub(crate) passes: Passes,
    vma_ids: AtomicU64,
}

/// The swap areas of a manager.
pub struct SwapAreas<'a, M: Machine>(&'a Areas<M::Mutex, M::RwLock>);

impl<'a, M: Machine> SwapAreas<'a, M> {
    /// The statistics of each area, in the order of their numbers.
    pub fn statistics(&self) -> impl Iterator<Item = AreaStatistics> + use<'a, M> {
        self.0.statistics()
    }

    /// The usable slots of all active areas.
    pub fn total(&self) -> u64 {
        self.0.total()
    }

    /// The free slots of all active areas.
    pub fn free(&self) -> u64 {
        self.0.free()
    }

    /// How many references a slot has; 0 if it is free, bad or missing.
    pub fn references(&self, slot: SwapSlot) -> u32 {
        self.0.count(slot)
    }
}

impl<M: Machine> fmt::Debug for Manager<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (frames, used) = (self.machine.frames(), self.frames_in_use());
        write!(f, "Manager({used} of {frames} frames in use)")
    }
}

impl<M: Machine> Manager<M> {
    /// Makes a manager for a machine, all of whose frames it may use.
    pub fn new(machine: Arc<M>, mut config: Config) -> Arc<Self> {
        let frames = machine.frames();
        let sight = if machine.capabilities().accessed { Sight::Bits } else { Sight::Standby };
        let replacement = config.replacement.take().unwrap_or_else(|| match sight {
            Sight::Bits => Box::new(S3Fifo::new(frames)),
            Sight::Standby => Box::<SegmentedFifo>::default(),
        });
        let pages = Pages::new(machine.most_frames());
        if let Some(zero) = machine.zero_frame() {
            pages.of(zero).refs.store(1, Ordering::Relaxed);
            pages.of(zero).set(&*machine, PageFlags::UPTODATE);
        }
        Arc::new(Self {
            order: LockOrder::new(machine.clone()),
            pages,
            cache: Cache::new(frames),
            queues: Queues::new(sight, replacement.shares()),
            replacement,
            swap: Areas::with_last_slot(machine.capabilities().last_swap_slot),
            families: Registry::new(),
            mappings: Registry::new(),
            spaces: Registry::new(),
            config,
            stats: Stats::default(),
            counts: Counts::default(),
            committed: AtomicI64::new(0),
            watermarks: Watermarks::new(frames),
            file_pages: AtomicU32::new(0),
            foresight: Foresight::new(frames),
            guesses: Guesses::new(),
            background: AtomicU32::new(0),
            background_threads: AtomicU32::new(0),
            passes: Passes::default(),
            vma_ids: AtomicU64::new(1),
            machine,
        })
    }

    /// The machine.
    pub fn machine(&self) -> &Arc<M> {
        &self.machine
    }

    /// Adds a swap area and returns its number (`swapon`, spec F2). Slots that the machine's
    /// entries cannot name ([`Capabilities::last_swap_slot`](crate::machine::Capabilities)) stay
    /// unused.
    pub fn swap_on(
        &self,
        device: Box<dyn SwapDevice>,
        priority: Priority,
    ) -> Result<u8, SwapOnError> {
        self.swap.add(device, priority)
    }

    /// The counters so far.
    pub fn counters(&self) -> Counters {
        self.stats.read()
    }

    /// The swap areas with their use and traffic.
    pub const fn swap_areas(&self) -> SwapAreas<'_, M> {
        SwapAreas(&self.swap)
    }

    /// The number of frames in use.
    pub fn frames_in_use(&self) -> u32 {
        self.machine.frames().saturating_sub(self.machine.free_frames())
    }

    /// Whether a frame's page is pinned: a device, or the host, may store to it at any moment.
    pub fn is_pinned(&self, frame: Frame) -> bool {
        !self.is_device(frame) && self.page(frame).is_pinned()
    }

    pub(crate) fn page(&self, frame: Frame) -> &Page {
        self.pages.of(frame)
    }

    pub(crate) fn vma_id(&self) -> u64 {
        self.vma_ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_zero_frame(&self, frame: Frame) -> bool {
        self.machine.zero_frame() == Some(frame)
    }

    /// Whether a frame is memory of a device, and so not the manager's page (spec B13).
    pub(crate) fn is_device(&self, frame: Frame) -> bool {
        self.pages.get(frame).is_none()
    }

    /// The page that an entry names with this frame, if it names one (Linux: `vm_normal_page`).
    pub(crate) fn normal_page(&self, frame: Frame) -> Option<&Page> {
        if self.is_zero_frame(frame) { None } else { self.pages.get(frame) }
    }

    /// Whether an entry that names the frame names no page: the shared frame of zeros, or memory of
    /// a device. Such frames have no references, counts or owner.
    pub(crate) fn is_bare(&self, frame: Frame) -> bool {
        self.normal_page(frame).is_none()
    }

    /// Tells the observer, if there is one.
    pub(crate) fn observe(&self, event: impl FnOnce() -> Event) {
        if let Some(observer) = &self.config.observer {
            observer.event(&event());
        }
    }

    /// The protection of an entry. On a machine without dirty bits it is writable only if the entry
    /// is dirty, so that the first store faults.
    pub(crate) fn honest(&self, protection: Protection, dirty: bool) -> Protection {
        if dirty || self.machine.capabilities().dirty { protection } else { protection.read_only() }
    }

    /// Promises `pages` more pages, if the policy allows it (spec C20, C21).
    pub(crate) fn charge(&self, pages: u64) -> Result<(), OutOfMemory> {
        let committed = self.committed.fetch_add(pages as i64, Ordering::Relaxed) + pages as i64;
        let memory = u64::from(self.machine.frames());
        let swap = self.swap.total();
        let allowed = match self.config.overcommit {
            Overcommit::Always => true,
            Overcommit::Heuristic => pages <= memory + swap,
            Overcommit::Never { ratio } => {
                committed as u64 <= memory * u64::from(ratio) / 100 + swap
            }
        };
        if allowed {
            return Ok(());
        }
        self.uncharge(pages);
        Err(OutOfMemory)
    }

    /// Takes back a promise.
    pub(crate) fn uncharge(&self, pages: u64) {
        self.committed.fetch_sub(pages as i64, Ordering::Relaxed);
    }
}
