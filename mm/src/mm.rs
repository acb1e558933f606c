//! An address space.
//!
//! # Locks, in the order in which they may be taken
//!
//! ```text
//! Mm::exclusive      who changes the regions of an address space; held across waits
//!   page lock        who changes what a page is; held across the page's own I/O
//!     Mapping::regions       the regions over a file          (rmap/)
//!     AnonVma::regions       the regions of a family          (rmap/)
//!       Mm::regions          the tree, for one look-up or one edit
//!         entries            a cursor over page-table entries
//!           Cache chains     one chain of the page and swap cache
//!             Queues         one shard of the replacement queues
//!               registries   objects by number
//!               swap areas   their own short locks
//! ```
//!
//! A fault takes none of the first; it looks a region up under `Mm::regions`, works with nothing
//! but page locks, and commits under the entry's cursor, where it finds out whether the region is
//! still alive and the entry still what it was (spec B3). Nothing below the page lock is held
//! across I/O, and the page lock only across I/O of its own page. See docs/locking.md.

use crate::error::ForkError;
use crate::heap::Heap;
use crate::limits::Limits;
use crate::machine::{Machine, Space, VirtAddr};
use crate::manager::Manager;
use crate::pending::Pending;
use crate::rmap;
use crate::runs::Runs;
use crate::sync::{Rank, RwLock, SleepGuard, SleepLock};
use crate::tree::RegionTree;
use crate::vma::Vma;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Deref, Range};
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

/// Where mappings without a fixed address are placed, and how far addresses go.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The addresses that regions may have.
    pub range: Range<VirtAddr>,
    /// Mappings without a hint are placed below this address, the highest gap first; if there is
    /// none, the lowest gap anywhere in `range` is taken.
    pub mmap_base: VirtAddr,
    /// The lowest address that a hint is honoured for (`vm.mmap_min_addr`).
    pub lowest_hint: VirtAddr,
}

impl Layout {
    /// The part of the layout that a page table covers.
    fn within(mut self, covered: &Range<VirtAddr>) -> Self {
        let end = self.range.end.min(covered.end);
        let start = self.range.start.max(covered.start).min(end);
        self.range = start..end;
        self.mmap_base = self.mmap_base.clamp(start, end);
        self
    }

    /// A layout over a range, with its mappings placed from the top down.
    pub const fn over(range: Range<VirtAddr>) -> Self {
        let base = range.end;
        let lowest = VirtAddr(if range.start.0 > 65536 { range.start.0 } else { 65536 });
        Self { range, mmap_base: base, lowest_hint: lowest }
    }
}

/// How much an address space uses, in pages, and what its faults were.
#[derive(Default)]
pub(crate) struct Usage {
    /// Present entries that name anonymous pages (spec I7).
    pub(crate) anon_rss: AtomicI64,
    /// Present entries that name file pages.
    pub(crate) file_rss: AtomicI64,
    /// The highest sum of the two that was noted.
    pub(crate) peak_rss: AtomicI64,
    /// Pages of all regions.
    pub(crate) total: AtomicI64,
    /// Pages of locked regions.
    pub(crate) locked: AtomicI64,
    pub(crate) minor: AtomicU64,
    pub(crate) major: AtomicU64,
}

/// Which kind of page an entry names, for the counts of resident pages.
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
    exclusive: SleepLock,
    /// Its owner is gone: nothing is mapped any more. Changed and read with the exclusive right.
    ended: AtomicBool,
    /// Counts the beginnings and the ends of moves that leave the mapping; odd while one goes on.
    pub(crate) moves: AtomicU32,
    /// Runs of faults in order, for read-ahead.
    pub(crate) runs: Runs,
    /// The changed entries that still wait for their flush.
    pub(crate) pending: Pending,
    /// Counts private pages that were dropped, so that nothing stands for them; counted under the entry's
    /// cursor.
    pub(crate) dropped: AtomicU64,
}

/// The sole right to change an address space's regions (Linux: `mmap_lock` held for writing).
pub(crate) struct Exclusive<'a, M: Machine> {
    mm: &'a Arc<Mm<M>>,
    _guard: SleepGuard<'a, M>,
}

/// Owns an address space; dropping it releases the memory (`exit_mmap`, spec E5–E7). Whoever still has
/// the shared part finds nothing mapped from then on, and can map nothing.
pub struct AddressSpace<M: Machine> {
    mm: Arc<Mm<M>>,
}

impl<M: Machine> AddressSpace<M> {
    /// Makes an empty address space.
    pub fn new(manager: &Arc<Manager<M>>, layout: Layout) -> Result<Self, ForkError> {
        let space = manager.new_space()?;
        Ok(Self::with_space(manager, layout, Limits::default(), space))
    }

    /// Makes an empty address space over a page table that the machine made. Addresses of `layout`
    /// that the table does not cover are left out.
    pub fn with_space(
        manager: &Arc<Manager<M>>,
        layout: Layout,
        limits: Limits,
        space: M::Space,
    ) -> Self {
        let layout = layout.within(&space.covers());
        let mm = manager.spaces.add(&manager.order, |id| Mm {
            manager: manager.clone(),
            id,
            space,
            regions: RwLock::new(Rank::Regions, RegionTree::new()),
            layout,
            limits,
            usage: Usage::default(),
            heap: Heap::default(),
            exclusive: SleepLock::new(),
            ended: AtomicBool::new(false),
            moves: AtomicU32::new(0),
            runs: Runs::new(),
            pending: Pending::default(),
            dropped: AtomicU64::new(0),
        });
        Self { mm }
    }

    /// The shared part, for handing to threads that fault.
    pub fn mm(&self) -> &Arc<Mm<M>> {
        &self.mm
    }
}

impl<M: Machine> Deref for AddressSpace<M> {
    type Target = Arc<Mm<M>>;
    fn deref(&self) -> &Arc<Mm<M>> {
        &self.mm
    }
}

impl<M: Machine> Drop for AddressSpace<M> {
    fn drop(&mut self) {
        self.mm.release();
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

    /// Its limits, which may be changed at any time (`setrlimit`).
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the address space uses now.
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

    pub(crate) fn exclusive<'a>(self: &'a Arc<Self>) -> Exclusive<'a, M> {
        self.manager.order.assert_may_sleep();
        Exclusive { mm: self, _guard: self.exclusive.lock(&self.manager.order, Rank::Layout) }
    }

    /// Like [`exclusive`](Self::exclusive), for a fault, which is engaged.
    pub(crate) fn exclusive_in_fault<'a>(self: &'a Arc<Self>) -> Exclusive<'a, M> {
        let _blocked = self.manager.block();
        self.exclusive()
    }

    /// The right to enter regions into an address space that nobody else knows yet, while the
    /// parent's is held too.
    pub(crate) fn exclusive_of_new(self: &Arc<Self>) -> Exclusive<'_, M> {
        Exclusive { mm: self, _guard: self.exclusive.lock_unranked(&self.manager.order) }
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

    /// The first regions that overlap a range, in order: as many as a short list has room for. The
    /// list of all would be long where there are many, and an end of memory is a bad time to ask
    /// for a large block.
    pub(crate) fn overlapping_first(&self, range: &Range<VirtAddr>) -> Vec<Arc<Vma<M>>> {
        const MOST: usize = 64;
        self.regions.read(&self.manager.order, |tree| {
            tree.overlapping(range.clone()).take(MOST).cloned().collect()
        })
    }

    /// Waits until every entry that others had changed is flushed (Linux:
    /// `flush_tlb_batched_pending`, `mm_tlb_flush_nested`).
    ///
    /// Whoever finds an entry empty, swapped out or read-only may conclude that no processor uses
    /// the page, or stores to it, only after this: reclaim and other verbs change entries first and
    /// flush them together later. The caller has flushed its own and holds no cursor.
    pub(crate) fn await_flushes(&self) {
        self.pending.wait(&self.manager.order, &*self.manager.machine);
    }

    /// Like [`await_flushes`](Self::await_flushes), for a fault, which is engaged.
    ///
    /// To be called before a page takes the place of another, with the new page locked or known to the
    /// caller alone: else a processor could read the other after the new one was stored to.
    #[inline]
    pub(crate) fn await_flushes_in_fault(&self) {
        if self.pending.is_any() {
            let _blocked = self.manager.block();
            self.await_flushes();
        }
    }

    pub(crate) fn count_rss(&self, kind: Kind, pages: i64) {
        let rss = match kind {
            Kind::Anon => &self.usage.anon_rss,
            Kind::File => &self.usage.file_rss,
        };
        rss.fetch_add(pages, Ordering::Relaxed);
        if pages > 0 {
            let sum = self.usage.anon_rss.load(Ordering::Relaxed)
                + self.usage.file_rss.load(Ordering::Relaxed);
            if sum > self.usage.peak_rss.load(Ordering::Relaxed) {
                self.usage.peak_rss.fetch_max(sum, Ordering::Relaxed);
            }
        }
    }

    /// Ends the address space: every page is given back, every region leaves the reverse maps.
    fn release(self: &Arc<Self>) {
        let exclusive = self.exclusive();
        self.ended.store(true, Ordering::Relaxed);
        exclusive.unmap(&self.layout.range);
    }
}

/// The regions to put in the place of others.
pub(crate) struct Edit<M: Machine> {
    pub(crate) out: Vec<Arc<Vma<M>>>,
    pub(crate) into: Vec<Arc<Vma<M>>>,
}

impl<'a, M: Machine> Exclusive<'a, M> {
    /// The address space.
    pub(crate) const fn mm(&self) -> &'a Arc<Mm<M>> {
        self.mm
    }

    /// Whether the owner of the address space is gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.mm.ended.load(Ordering::Relaxed)
    }

    /// Puts regions in the place of others, at once for whoever looks them up.
    pub(crate) fn apply(&self, edit: &Edit<M>) {
        self.apply_moving(edit, &[], &[]);
    }

    /// Like [`apply`](Self::apply), while pages move: regions that only the reverse maps know leave
    /// these, or enter them, in the same exchange. So a walk finds every page at every moment.
    pub(crate) fn apply_moving(
        &self,
        edit: &Edit<M>,
        leaving: &[Arc<Vma<M>>],
        entering: &[Arc<Vma<M>>],
    ) {
        let all = |own: &[Arc<Vma<M>>], more: &[Arc<Vma<M>>]| [own, more].concat();
        let out = all(&edit.out, leaving);
        rmap::exchange(self.mm, &out, &all(&edit.into, entering));
        self.mm.regions.write(&self.mm.manager.order, |tree| {
            for vma in &edit.out {
                tree.remove(vma.start);
            }
            for vma in &out {
                vma.kill();
            }
            for vma in &edit.into {
                let inserted = tree.insert(vma.clone());
                debug_assert!(inserted.is_ok(), "regions overlap");
            }
        });
        self.count(edit);
    }

    /// Enters a region as it is.
    pub(crate) fn enter(&self, vma: Arc<Vma<M>>) {
        self.apply(&Edit { out: Vec::new(), into: alloc::vec![vma] });
    }

    fn count(&self, edit: &Edit<M>) {
        let sum = |vmas: &[Arc<Vma<M>>], only: crate::vma::VmaFlags| -> i64 {
            vmas.iter().filter(|v| v.flags.contains(only)).map(|v| v.pages() as i64).sum()
        };
        let all = crate::vma::VmaFlags::empty();
        let locked = crate::vma::VmaFlags::LOCKED;
        let usage = &self.mm.usage;
        usage.total.fetch_add(sum(&edit.into, all) - sum(&edit.out, all), Ordering::Relaxed);
        usage.locked.fetch_add(sum(&edit.into, locked) - sum(&edit.out, locked), Ordering::Relaxed);
    }
}
