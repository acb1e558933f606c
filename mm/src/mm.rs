//! An address space.
//!
//! # Locks, in the order in which they may be taken
//!
//! ```text
//! Mm::exclusive            the right to change an address space's regions; held across waits
//!   page lock              the right to change what a page is; held across the page's own I/O
//!     Mapping::regions     the regions over a file (rmap/)
//!     AnonVma::regions     the regions of a family (rmap/)
//!     Mm::regions          the tree, for one look-up or one edit
//!     entries              a cursor over page-table entries
//!       Cache chains       one chain of the page and swap cache
//!       Queues             one shard of the replacement queues
//!       registries         objects by number
//!       swap areas         their own short locks
//! ```
//!
//! A fault takes no `Mm::exclusive`. It looks a region up under `Mm::regions`, works with only page
//! locks, and commits under the entry's cursor, where it checks that the region is still alive and
//! the entry unchanged (spec B3). No lock below the page lock is held across I/O, and the page lock
//! only across I/O of its own page. See docs/locking.md.

use crate::heap::Heap;
use crate::limits::Limits;
use crate::machine::{Machine, VirtAddr};
use crate::manager::Manager;
use crate::pending::Pending;
use crate::runs::Runs;
use crate::sync::{RwLock, SleepLock};
use crate::tree::RegionTree;
use crate::vma::Vma;
use crate::word::Word;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

/// Where mappings without a fixed address are placed, and how far addresses go.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The addresses that regions may have; parts of pages at its ends are left out.
    pub range: Range<VirtAddr>,
    /// Mappings without a hint go into the highest gap below this address, or, if there is none,
    /// into the lowest gap anywhere in `range`. Rounded down to a page.
    pub mmap_base: VirtAddr,
    /// The lowest hint that is honoured (`vm.mmap_min_addr`).
    pub lowest_hint: VirtAddr,
}

impl Layout {
    /// The whole pages of the layout that a page table covers.
    pub(crate) fn within(mut self, covered: &Range<VirtAddr>) -> Self {
        let end = self.range.end.min(covered.end).page();
        let start = self.range.start.max(covered.start).page_up().unwrap_or(end).min(end);
        self.range = start..end;
        self.mmap_base = self.mmap_base.page().clamp(start, end);
        self
    }

    /// A layout over a range, with its mappings placed from the top down.
    pub const fn over(range: Range<VirtAddr>) -> Self {
        let base = range.end;
        let lowest = VirtAddr(if range.start.0 > 65536 { range.start.0 } else { 65536 });
        Self { range, mmap_base: base, lowest_hint: lowest }
    }
}

/// An address space's usage in pages, and its faults.
#[derive(Default)]
pub(crate) struct Usage {
    /// Present entries that name anonymous pages (spec I7).
    pub(crate) anon_rss: AtomicI64,
    /// Present entries that name file pages.
    pub(crate) file_rss: AtomicI64,
    /// The highest sum of the two seen so far.
    pub(crate) peak_rss: AtomicI64,
    /// Pages of all regions.
    pub(crate) total: AtomicI64,
    /// Pages of locked regions.
    pub(crate) locked: AtomicI64,
    pub(crate) minor: AtomicU64,
    pub(crate) major: AtomicU64,
}

/// The kind of page that an entry names, for the counts of resident pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Anon,
    File,
}

/// The usage of an address space at one moment, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageNow {
    /// Resident anonymous pages.
    pub anonymous: u64,
    /// Resident pages of files and shared objects.
    pub file: u64,
    /// The most resident pages so far.
    pub peak: u64,
    /// Pages of all regions.
    pub total: u64,
    /// Pages of locked regions.
    pub locked: u64,
    /// The number of regions.
    pub regions: usize,
    /// Faults corrected without I/O.
    pub minor: u64,
    /// Faults corrected with I/O.
    pub major: u64,
}

/// An address space: its regions and its page table (Linux's `mm_struct`).
pub struct Mm<M: Machine> {
    pub(crate) manager: Arc<Manager<M>>,
    pub(crate) id: u64,
    pub(crate) space: M::Space,
    pub(crate) regions: RwLock<M, RegionTree<Arc<Vma<M>>>>,
    pub(crate) layout: Layout,
    pub(crate) limits: Limits,
    pub(crate) usage: Usage,
    pub(crate) heap: Heap,
    pub(crate) exclusive: SleepLock,
    /// How new mappings stay in memory: flags out of [`VmaFlags::LOCKS`](crate::VmaFlags::LOCKS).
    /// Changed and read with the exclusive right.
    pub(crate) locks_new: AtomicU64,
    /// Whether its owner is gone, and nothing is mapped any more. Changed and read with the
    /// exclusive right.
    pub(crate) ended: AtomicBool,
    /// Counts the starts and ends of moves that leave the mapping; odd while one is running.
    pub(crate) moves: AtomicU32,
    /// Runs of faults in order, for read-ahead.
    pub(crate) runs: Runs,
    /// The changed entries that still wait for their flush.
    pub(crate) pending: Pending,
    /// Counts private pages that were dropped without leaving an entry; changed under the entry's
    /// cursor.
    pub(crate) dropped: AtomicU64,
}

impl<M: Machine> fmt::Debug for Mm<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mm({})", self.id)
    }
}

impl<M: Machine> Mm<M> {
    /// Its number, unique in the manager.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The manager.
    pub fn manager(&self) -> &Arc<Manager<M>> {
        &self.manager
    }

    /// The machine's page table.
    pub fn space(&self) -> &M::Space {
        &self.space
    }

    /// Its limits, which may change at any time (`setrlimit`).
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The current usage, in pages (Linux: `/proc/PID/statm` and the fault counts of `getrusage`). Other
    /// threads change the numbers meanwhile, each by itself.
    pub fn usage(&self) -> UsageNow {
        let pages = |n: &AtomicI64| n.load(Ordering::Relaxed).max(0) as u64;
        UsageNow {
            anonymous: pages(&self.usage.anon_rss),
            file: pages(&self.usage.file_rss),
            peak: pages(&self.usage.peak_rss),
            total: pages(&self.usage.total),
            locked: pages(&self.usage.locked),
            regions: self.regions.read(&self.manager.order, RegionTree::len),
            minor: self.usage.minor.load(Ordering::Relaxed),
            major: self.usage.major.load(Ordering::Relaxed),
        }
    }

    /// The first region that ends above `address` (`find_vma`, spec A13).
    pub(crate) fn find(&self, address: VirtAddr) -> Option<Arc<Vma<M>>> {
        self.regions.read(&self.manager.order, |tree| tree.find(address).cloned())
    }

    /// The region that contains `address`.
    #[inline]
    pub(crate) fn containing(&self, address: VirtAddr) -> Option<Arc<Vma<M>>> {
        self.regions.read(&self.manager.order, |tree| tree.containing(address).cloned())
    }

    /// The regions that overlap a range, in order.
    pub(crate) fn overlapping(&self, range: Range<VirtAddr>) -> Vec<Arc<Vma<M>>> {
        self.regions.read(&self.manager.order, |tree| tree.overlapping(range).cloned().collect())
    }

    /// The first regions that overlap a range, in order, as many as fit a short list. A list of all
    /// could need a large block of memory, which the end of an address space must not.
    pub(crate) fn overlapping_first(&self, range: &Range<VirtAddr>) -> Vec<Arc<Vma<M>>> {
        const MOST: usize = 64;
        self.regions.read(&self.manager.order, |tree| {
            tree.overlapping(range.clone()).take(MOST).cloned().collect()
        })
    }

    pub(crate) fn count_rss(&self, kind: Kind, pages: i64) {
        let rss = match kind {
            Kind::Anon => &self.usage.anon_rss,
            Kind::File => &self.usage.file_rss,
        };
        rss.add_by(&*self.manager.machine, pages, Ordering::Relaxed);
        if pages > 0 {
            let sum = self.usage.anon_rss.load(Ordering::Relaxed)
                + self.usage.file_rss.load(Ordering::Relaxed);
            if sum > self.usage.peak_rss.load(Ordering::Relaxed) {
                self.usage.peak_rss.fetch_max(sum, Ordering::Relaxed);
            }
        }
    }
}
