//! A region: a range of addresses that mean the same kind of memory (Linux's `vm_area_struct`).
//!
//! A region never changes. To split, merge, grow or re-flag it, a verb makes new regions, puts them
//! into the tree in its place, and marks the old region dead. A fault that used the old region
//! notices the mark under the lock of the page's entry, and starts over. So faults need no lock on
//! the address space (J2).

use crate::cache::{Advised, File};
use crate::machine::{
    Access, ErrorCode, Machine, PAGE_SHIFT, PAGE_SIZE, Protection, Rights, VirtAddr,
};
use crate::rmap::AnonVma;
use crate::tree::Region;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

bitflags::bitflags! {
    /// The rights and behaviour of a region (spec C2; the values are Linux's).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VmaFlags: u64 {
        /// Loads are allowed.
        const READ = 1;
        /// Stores are allowed.
        const WRITE = 2;
        /// Instruction fetches are allowed.
        const EXEC = 4;
        /// Stores are seen by everyone who maps the object.
        const SHARED = 8;
        /// `READ` may be set by mprotect.
        const MAYREAD = 0x10;
        /// `WRITE` may be set by mprotect.
        const MAYWRITE = 0x20;
        /// `EXEC` may be set by mprotect.
        const MAYEXEC = 0x40;
        /// Mapped `MAP_SHARED`, even if stores are not possible.
        const MAYSHARE = 0x80;
        /// The region grows towards lower addresses on access.
        const GROWSDOWN = 0x100;
        /// Entries name memory of a device, not pages (spec B13).
        const PFNMAP = 0x400;
        /// The pages stay in memory.
        const LOCKED = 0x2000;
        /// Accesses reach a device: no speculative or forced accesses (spec B20).
        const IO = 0x4000;
        /// Accesses are expected in order.
        const SEQ_READ = 0x8000;
        /// Accesses are expected in no order.
        const RAND_READ = 0x10000;
        /// A fork does not copy the region.
        const DONTCOPY = 0x20000;
        /// mremap may not grow the region.
        const DONTEXPAND = 0x40000;
        /// The pages of a `LOCKED` region come in when they are touched, not before.
        const LOCKONFAULT = 0x80000;
        /// The pages are counted as promised memory.
        const ACCOUNT = 0x100000;
        /// Mapped with `MAP_NORESERVE`.
        const NORESERVE = 0x200000;
        /// Entries may name pages out of order (spec C19).
        const NONLINEAR = 0x800000;
        /// A fork's child finds zeros here.
        const WIPEONFORK = 0x2000000;
        /// A core dump leaves the region out.
        const DONTDUMP = 0x4000000;
        /// Huge pages are wanted; there are none.
        const HUGEPAGE = 0x20000000;
        /// Huge pages are not wanted.
        const NOHUGEPAGE = 0x40000000;
        /// Pages with the same content may become one; they never do.
        const MERGEABLE = 0x80000000;
        /// The region may not change any more (`mseal`).
        const SEALED = 1 << 42;
    }
}

impl VmaFlags {
    /// The flags that mlock sets, and that the end of its effect clears.
    pub const LOCKS: Self = Self::LOCKED.union(Self::LOCKONFAULT);

    /// The flags of a device's region (`remap_pfn_range`).
    pub const DEVICE: Self =
        Self::IO.union(Self::PFNMAP).union(Self::DONTEXPAND).union(Self::DONTDUMP);

    /// The three access flags.
    pub const ACCESS: Self = Self::READ.union(Self::WRITE).union(Self::EXEC);

    /// The access flags for a protection.
    pub const fn access(protection: Protection) -> Self {
        Self::from_bits_truncate(protection.bits() as u64)
    }

    /// The protection that the access flags name.
    pub const fn protection(self) -> Protection {
        Protection::from_bits_truncate((self.bits() & 7) as u8)
    }
}

/// A region over anonymous memory or a file.
pub struct Vma<M: Machine> {
    /// Its number, unique in the manager.
    pub(crate) id: u64,
    pub(crate) start: VirtAddr,
    pub(crate) end: VirtAddr,
    pub(crate) flags: VmaFlags,
    /// The page index of `start`: in the file, or, for anonymous memory, the number of the page
    /// that `start` had when the memory was first mapped (spec C1).
    pub(crate) pgoff: u64,
    pub(crate) file: Option<File<M>>,
    /// The family that anonymous pages of this region belong to, once there are any.
    pub(crate) anon: Option<Arc<AnonVma<M>>>,
    /// Whether all pages of `anon` were only read, never stored to, because the machine has no
    /// shared frame of zeros. Programs cannot notice such a family, so it keeps no two regions
    /// apart.
    pub(crate) unwritten: bool,
    /// The families of this region's ancestors, whose pages may be here.
    pub(crate) ancestors: Vec<Arc<AnonVma<M>>>,
    /// Unwritten families of regions that were joined into this one.
    pub(crate) guests: Vec<Arc<AnonVma<M>>>,
    alive: AtomicBool,
}

impl<M: Machine> Vma<M> {
    /// The rights that imply loads. An x86 entry cannot allow stores or fetches without loads (spec
    /// A16); an Alpha's can allow fetches without loads (A17).
    const LOADABLE: VmaFlags = match M::RIGHTS {
        Rights::Implied => VmaFlags::ACCESS,
        Rights::Each => VmaFlags::READ.union(VmaFlags::WRITE),
    };

    pub(crate) fn new(
        id: u64,
        range: Range<VirtAddr>,
        flags: VmaFlags,
        pgoff: u64,
        file: Option<File<M>>,
    ) -> Self {
        Self {
            id,
            start: range.start,
            end: range.end,
            flags,
            pgoff,
            file,
            anon: None,
            unwritten: false,
            ancestors: Vec::new(),
            guests: Vec::new(),
            alive: AtomicBool::new(true),
        }
    }

    /// A region like this one over a part of it.
    pub(crate) fn part(&self, id: u64, range: Range<VirtAddr>) -> Self {
        let pgoff = self.index_of(range.start);
        Self {
            anon: self.anon.clone(),
            unwritten: self.unwritten,
            ancestors: self.ancestors.clone(),
            guests: self.guests.clone(),
            ..Self::new(id, range, self.flags, pgoff, self.file.clone())
        }
    }

    /// Makes the region, which has no anonymous page left, like one that was never stored to.
    pub(crate) fn forget_families(&mut self) {
        (self.anon, self.unwritten) = (None, false);
        self.ancestors.clear();
        self.guests.clear();
    }

    pub(crate) fn range(&self) -> Range<VirtAddr> {
        self.start..self.end
    }

    pub(crate) fn pages(&self) -> u64 {
        (self.end - self.start) >> PAGE_SHIFT
    }

    pub(crate) fn has(&self, flags: VmaFlags) -> bool {
        self.flags.intersects(flags)
    }

    /// Whether the region is still in its tree.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub(crate) fn kill(&self) {
        self.alive.store(false, Ordering::Release);
    }

    /// The page index of an address at or above `start` less the pages that growth added; it wraps
    /// as the numbers do when a region grows down below page index 0.
    pub(crate) fn index_of(&self, address: VirtAddr) -> u64 {
        let delta = (address.value() as i64).wrapping_sub(self.start.value() as i64) >> PAGE_SHIFT;
        self.pgoff.wrapping_add(delta as u64)
    }

    /// The address of a page index, if it lies in the region.
    pub(crate) fn address_of(&self, index: u64) -> Option<VirtAddr> {
        let pages = index.wrapping_sub(self.pgoff);
        (pages < self.pages()).then(|| self.start + pages * PAGE_SIZE)
    }

    /// The page indexes that the region covers.
    pub(crate) fn indexes(&self) -> Range<u64> {
        self.pgoff..self.pgoff.saturating_add(self.pages())
    }

    /// Whether pages are copied on write: possibly writable, and private (spec B13).
    pub(crate) fn is_cow(&self) -> bool {
        self.flags.contains(VmaFlags::MAYWRITE) && !self.has(VmaFlags::SHARED)
    }

    /// Whether the first store to each page of a shared region must be noticed (spec D7).
    pub(crate) fn notifies_writes(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED | VmaFlags::WRITE)
            && self.file.as_ref().is_some_and(|file| file.accounts_dirty())
    }

    /// The protection of a fresh entry (`vm_page_prot`, spec C2): never writable where the first
    /// store must be noticed or copied.
    pub(crate) fn page_protection(&self) -> Protection {
        let mut protection = Protection::empty();
        if self.has(Self::LOADABLE) {
            protection |= Protection::READ;
        }
        if self.has(VmaFlags::EXEC) {
            protection |= Protection::EXECUTE;
        }
        let shared_write = self.flags.contains(VmaFlags::SHARED | VmaFlags::WRITE);
        if shared_write && !self.notifies_writes() {
            protection |= Protection::WRITE;
        }
        protection
    }

    /// The protection of an entry that a store may go through (`maybe_mkwrite`, spec B6).
    pub(crate) fn written_protection(&self) -> Protection {
        let mut protection = self.page_protection();
        if self.has(VmaFlags::WRITE) {
            protection |= Protection::WRITE;
        }
        protection
    }

    /// Whether an access of this kind is allowed at all (spec A16).
    pub(crate) fn allows(&self, access: Access) -> bool {
        match access {
            Access::Write => self.has(VmaFlags::WRITE),
            Access::Read => self.has(Self::LOADABLE),
            Access::Execute => self.has(VmaFlags::EXEC),
        }
    }

    /// Whether a fault of the processor may be corrected: like [`allows`](Self::allows), but where
    /// a processor reports the fetch from an absent page as a load, the page is mapped first, and
    /// the fetch is refused when it faults again (spec A16).
    pub(crate) fn allows_fault(&self, access: Access, code: ErrorCode) -> bool {
        let is_known = M::RIGHTS == Rights::Each || code.contains(ErrorCode::PROTECTION);
        match access {
            Access::Execute if !is_known => self.has(VmaFlags::ACCESS),
            access => self.allows(access),
        }
    }

    /// Whether this region and `next` could be one region, apart from their families (spec C5).
    pub(crate) fn joins(&self, next: &Self) -> bool {
        self.end == next.start
            && self.flags == next.flags
            && !self.has(VmaFlags::DONTEXPAND)
            && same_object(&self.file, &next.file)
            && self.pgoff.wrapping_add(self.pages()) == next.pgoff
    }

    /// The program's advice on the order of its accesses.
    pub(crate) fn advised(&self) -> Advised {
        if self.has(VmaFlags::RAND_READ) {
            Advised::Random
        } else if self.has(VmaFlags::SEQ_READ) {
            Advised::Sequential
        } else {
            Advised::Nothing
        }
    }

    /// The access for which pages are brought in ahead of use: a store to private memory, so that
    /// copy on write happens now (spec C17).
    pub(crate) fn access_ahead(&self) -> Access {
        let writes = self.has(VmaFlags::WRITE) && !self.has(VmaFlags::SHARED);
        if writes { Access::Write } else { Access::Read }
    }

    /// All families that pages of this region may belong to.
    pub(crate) fn families(&self) -> impl Iterator<Item = &Arc<AnonVma<M>>> {
        self.anon.iter().chain(&self.ancestors).chain(&self.guests)
    }

    /// The family of pages that were stored to.
    pub(crate) fn written_family(&self) -> Option<&Arc<AnonVma<M>>> {
        self.anon.as_ref().filter(|_| !self.unwritten)
    }

    /// Takes over the families of a region that joins this one.
    pub(crate) fn adopt(&mut self, other: &Self) {
        let mut guests: Vec<_> = self.guests.iter().chain(&other.guests).cloned().collect();
        if self.written_family().is_some() || other.anon.is_none() {
            guests.extend(other.anon.iter().filter(|_| other.unwritten).cloned());
        } else {
            guests.extend(self.anon.take());
            self.anon.clone_from(&other.anon);
            self.unwritten = other.unwritten;
            self.ancestors.clone_from(&other.ancestors);
        }
        guests.retain(|guest| self.anon.as_ref().is_none_or(|own| !Arc::ptr_eq(own, guest)));
        guests.sort_by_key(|guest| guest.id);
        guests.dedup_by_key(|guest| guest.id);
        self.guests = guests;
    }

    /// Whether the families of anonymous pages of two neighbours permit one region.
    ///
    /// A region without pages joins any that was not forked; two regions with pages must share one
    /// family. A shared region has no anonymous pages: guards gave it its family, so that a fork copies them.
    pub(crate) fn joins_anon(&self, next: &Self) -> bool {
        if self.has(VmaFlags::SHARED) {
            return true;
        }
        match (self.written_family(), next.written_family()) {
            (None, None) => true,
            (Some(_), None) => self.ancestors.is_empty(),
            (None, Some(_)) => next.ancestors.is_empty(),
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        }
    }
}

/// Whether two regions map the same object, or none.
pub(crate) fn same_object<M: Machine>(a: &Option<File<M>>, b: &Option<File<M>>) -> bool {
    let id = |file: &Option<File<M>>| file.as_ref().map(|file| file.id);
    id(a) == id(b)
}

impl<M: Machine> Region for Arc<Vma<M>> {
    fn start(&self) -> VirtAddr {
        self.start
    }

    fn end(&self) -> VirtAddr {
        self.end
    }
}

impl<M: Machine> fmt::Debug for Vma<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} {:?} @{:#x}", self.start, self.end, self.flags, self.pgoff)
    }
}
