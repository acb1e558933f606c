//! Address spaces of the machine, and the register of all of them in this process.

use crate::host;
use crate::machine::Shared;
use crate::place::permits;
use crate::reserve::Reservation;
use crate::table::{LEAF_PAGES, LeafGuard, PageTable, SPAN};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, fence};
use pagefault_machine::{
    Access, Cursor, Entry, OutOfFrames, PAGE_SIZE, Protection, Space, VirtAddr,
};
use rustix::io::Errno;

/// The most spaces of one process.
pub const MAX_SPACES: usize = 1024;

/// The kind of address spaces that a machine makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Each space is a window onto its own range of host addresses: logical addresses from `origin`
    /// on, for `bytes` bytes. Both are multiples of 2 MiB.
    Windows {
        /// The first logical address.
        origin: VirtAddr,
        /// The length of the window.
        bytes: u64,
    },
    /// The one space is the process itself: logical addresses are host addresses, and the managed
    /// ranges are registered one by one.
    Identity,
}

/// The end of the addresses of an x86-64 process.
pub const HOST_END: u64 = 1 << 47;

/// The parts of a space.
pub(crate) struct SpaceCore {
    pub shared: Arc<Shared>,
    pub id: u32,
    pub table: PageTable,
    /// The logical address of the table's first page.
    pub origin: u64,
    /// The host address of the table's first page.
    pub base: u64,
    /// The host's mapping, unless the program makes its own.
    window: Option<Reservation>,
    _whole: Option<WholeProcess>,
}

/// The right to be the process's identity space, which only one space can have.
struct WholeProcess(());

static CLAIMED: AtomicBool = AtomicBool::new(false);

impl WholeProcess {
    fn claim() -> Result<Self, Errno> {
        if CLAIMED.swap(true, AcqRel) { Err(Errno::BUSY) } else { Ok(Self(())) }
    }
}

impl Drop for WholeProcess {
    fn drop(&mut self) {
        CLAIMED.store(false, Release);
    }
}

/// Why a page could not be made present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresentError {
    /// The memory manager does not allow the access (any more): the page is not pinned.
    #[error("the page at {address} is not there, or forbids the access")]
    Forbidden {
        /// The page's address.
        address: VirtAddr,
    },
    /// The host refuses to map it.
    #[error("the host refuses to map a page: {0}")]
    Host(Errno),
}

/// The page table of one address space, and its window onto host memory.
///
/// Dropping it unmaps the window on the host: nothing may refer to its memory any more.
pub struct LinuxSpace {
    pub(crate) core: Box<SpaceCore>,
}

impl SpaceCore {
    /// Whether logical addresses are host addresses.
    pub fn is_identity(&self) -> bool {
        self.window.is_none()
    }

    /// The number of pages covered.
    pub fn pages(&self) -> usize {
        self.table.pages()
    }

    /// The number of the page that contains a logical address, if it is covered.
    pub fn page_of(&self, address: VirtAddr) -> Option<usize> {
        let page = (address.value().checked_sub(self.origin)? / PAGE_SIZE) as usize;
        (page < self.pages()).then_some(page)
    }

    /// The logical address of a page.
    pub fn address_of(&self, page: usize) -> VirtAddr {
        VirtAddr(self.origin + page as u64 * PAGE_SIZE)
    }

    /// The host address of a page.
    pub fn host_of(&self, page: usize) -> u64 {
        self.base + page as u64 * PAGE_SIZE
    }

    /// The range of host addresses covered.
    pub fn host_range(&self) -> Range<u64> {
        self.base..self.host_of(self.pages())
    }

    /// The logical address of a host address within [`SpaceCore::host_range`].
    pub fn logical(&self, host: u64) -> VirtAddr {
        VirtAddr(host - self.base + self.origin)
    }

    /// The number of the page at a host address within [`SpaceCore::host_range`].
    #[cfg(feature = "std")]
    pub fn index_of(&self, host: u64) -> usize {
        ((host - self.base) / PAGE_SIZE) as usize
    }

    fn pages_of(&self, range: &Range<VirtAddr>) -> Option<Range<usize>> {
        let start = self.page_of(range.start)?;
        let last = self.page_of(range.end.value().checked_sub(1).map(VirtAddr)?)?;
        Some(start..last + 1)
    }
}

impl LinuxSpace {
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<Self, Errno> {
        let (origin, bytes, window) = match shared.layout {
            Layout::Windows { origin, bytes } => {
                // One more leaf, so that leaves align in logical and host addresses.
                let window = Reservation::new(bytes as usize + SPAN as usize)
                    .map_err(|error| error.errno)?;
                window.withhold_from_children()?;
                (origin.value(), bytes, Some(window))
            }
            Layout::Identity => (0, HOST_END, None),
        };
        let whole = if window.is_none() { Some(WholeProcess::claim()?) } else { None };
        let base = window.as_ref().map_or(0, |w| w.address().next_multiple_of(SPAN));
        let table = PageTable::new((bytes / PAGE_SIZE) as usize).map_err(|error| error.errno)?;
        let slot = Slot::take().ok_or(Errno::NOMEM)?;
        let (shared, id) = (shared.clone(), slot as u32);
        let core = Box::new(SpaceCore { shared, id, table, origin, base, window, _whole: whole });
        if core.window.is_some()
            && let Err(errno) = core.shared.descriptor.register(core.host_range())
        {
            SLOTS[slot].give_back();
            return Err(errno);
        }
        SLOTS[slot].publish(&core);
        Ok(Self { core })
    }

    /// The host address of a logical address, if the space covers it.
    pub fn host_address(&self, address: VirtAddr) -> Option<*mut u8> {
        let page = self.core.page_of(address)?;
        Some((self.core.host_of(page) + address.page_offset() as u64) as *mut u8)
    }

    /// The range of logical addresses that the space covers.
    pub fn range(&self) -> Range<VirtAddr> {
        self.core.address_of(0)..self.core.address_of(self.core.pages())
    }

    /// The first page of a range with any note in the table: the pages before it are as they were
    /// mapped.
    pub fn next_used(&self, range: Range<VirtAddr>) -> Option<VirtAddr> {
        let pages = self.core.pages_of(&range)?;
        let mut page = pages.start;
        while let Some(found) = self.core.table.next_leaf(page, pages.end) {
            page = found;
            let end = (page + 1).next_multiple_of(LEAF_PAGES).min(pages.end);
            let leaf = self.core.table.lock_existing(page);
            if let Some(used) = leaf.and_then(|leaf| leaf.next(page, end)) {
                return Some(self.core.address_of(used));
            }
            page = end;
        }
        None
    }

    /// Fills the host pages of a range that are present in our table, so that system calls and
    /// further such accesses find them. `range` is within the space.
    pub fn prefill(&self, range: Range<VirtAddr>, access: Access) -> Result<(), Errno> {
        let Some(pages) = self.core.pages_of(&range) else { return Ok(()) };
        for page in pages {
            if permits(self.core.table.entry(page), access) {
                self.core.shared.refill(&self.core, page, access)?;
            }
        }
        Ok(())
    }

    /// Fills the host pages of a range that the memory manager has pinned for such accesses. So the
    /// kernel's own accesses succeed even if the machine's descriptor sees none of them: loads for
    /// [`Access::Read`], stores too for [`Access::Write`].
    ///
    /// They succeed as long as the pin is held and the region does not change. `range` is within
    /// the space.
    pub fn make_present(&self, range: Range<VirtAddr>, access: Access) -> Result<(), PresentError> {
        if range.is_empty() {
            return Ok(());
        }
        let core = &self.core;
        let Some(pages) = core.pages_of(&range) else {
            return Err(PresentError::Forbidden { address: range.start });
        };
        for page in pages {
            let entry = core.table.entry(page);
            if !permits(entry, access) {
                return Err(PresentError::Forbidden { address: core.address_of(page) });
            }
            if !core.shared.is_placed(core, page, entry) {
                core.shared.refill(core, page, access).map_err(PresentError::Host)?;
            }
        }
        Ok(())
    }

    /// In an identity space: makes the memory manager answer faults in `range`, which the program
    /// has mapped, and discards its content. `range` is page-aligned.
    ///
    /// # Safety
    /// The range is private anonymous memory of the program to which nothing refers yet. As long as
    /// it is registered, only the memory manager changes its mapping or discards its pages.
    pub unsafe fn register(&self, range: Range<VirtAddr>) -> Result<(), Errno> {
        let host = range.start.value()..range.end.value();
        self.core.shared.descriptor.register(host.clone())?;
        // Otherwise earlier pages there would be taken for ours. SAFETY: the caller gave the range
        // to the memory manager, whose content is what counts.
        unsafe { host::discard(host) }
    }

    /// In an identity space: the same, but keeps the content of the range.
    /// [Adopt](crate::adopt_present) it before any other use of the range.
    ///
    /// # Safety
    /// As for [`register`](Self::register), except that the program may refer to the range.
    pub unsafe fn register_as_is(&self, range: Range<VirtAddr>) -> Result<(), Errno> {
        self.core.shared.descriptor.register(range.start.value()..range.end.value())
    }

    /// In an identity space: moves pages out of `range` that are still there although their entries
    /// are gone. This must happen before the host unmaps the range or makes it unreadable, because
    /// another thread may still read pages there that it evicts.
    ///
    /// # Safety
    /// The range is registered, and no other thread uses it meanwhile: no entry allows an access,
    /// or the caller is the only thread.
    pub unsafe fn vacate(&self, range: Range<VirtAddr>) {
        if let Some(pages) = self.core.pages_of(&range) {
            self.core.shared.vacate_range(&self.core, pages);
        }
    }

    /// In an identity space: leaves faults in `range` to the kernel again. Not needed before
    /// `munmap`.
    ///
    /// # Safety
    /// Nothing refers to the range: pages that are not resident turn into zeros.
    pub unsafe fn unregister(&self, range: Range<VirtAddr>) -> Result<(), Errno> {
        self.core.shared.descriptor.unregister(range.start.value()..range.end.value())
    }
}

impl Drop for LinuxSpace {
    fn drop(&mut self) {
        SLOTS[self.core.id as usize].withdraw();
        #[cfg(feature = "std")]
        self.core.shared.pagers.threads.forget_poisoned(&self.core.host_range());
        self.core.shared.park_all_in(self.core.host_range());
        SLOTS[self.core.id as usize].give_back();
    }
}

impl Space for LinuxSpace {
    type Cursor<'a> = LinuxCursor<'a>;

    const SPAN: u64 = SPAN;

    fn id(&self) -> u32 {
        self.core.id
    }

    fn covers(&self) -> Range<VirtAddr> {
        self.range()
    }

    fn lock(&self, range: Range<VirtAddr>) -> Result<LinuxCursor<'_>, OutOfFrames> {
        let pages = self.core.pages_of(&range).ok_or(OutOfFrames)?;
        let leaf = self.core.table.lock(pages.start).map_err(|_| OutOfFrames)?;
        Ok(LinuxCursor { space: &self.core, leaf, pages })
    }

    fn lock_existing(&self, range: Range<VirtAddr>) -> Option<LinuxCursor<'_>> {
        let pages = self.core.pages_of(&range)?;
        let leaf = self.core.table.lock_existing(pages.start)?;
        Some(LinuxCursor { space: &self.core, leaf, pages })
    }

    fn prefetch(&self, address: VirtAddr) {
        if let Some(page) = self.core.page_of(address) {
            self.core.table.prefetch(page);
        }
    }

    fn next_leaf(&self, range: Range<VirtAddr>) -> Option<VirtAddr> {
        let pages = self.core.pages_of(&range)?;
        let page = self.core.table.next_leaf(pages.start, pages.end)?;
        Some(self.core.address_of(page))
    }

    fn prune(&self, hole: Range<VirtAddr>, unmapped: Range<VirtAddr>) {
        let covered = self.range();
        // The leaves that the unmapped range touches.
        let first = VirtAddr(unmapped.start.value() / SPAN * SPAN);
        let last = VirtAddr(unmapped.end.value().next_multiple_of(SPAN));
        let start = hole.start.max(covered.start).max(first);
        let end = hole.end.min(covered.end).min(last);
        if let Some(pages) = self.core.pages_of(&(start..end)) {
            self.core.table.prune(pages.start, pages.end);
        }
    }

    fn leaves(&self) -> usize {
        self.core.table.leaves()
    }
}

/// The locked entries of a range within one leaf.
pub struct LinuxCursor<'a> {
    space: &'a SpaceCore,
    leaf: LeafGuard<'a>,
    pages: Range<usize>,
}

impl LinuxCursor<'_> {
    fn page(&self, address: VirtAddr) -> usize {
        let page = ((address.value() - self.space.origin) / PAGE_SIZE) as usize;
        debug_assert!(self.pages.contains(&page), "{address} is outside of the cursor");
        debug_assert_eq!(page / LEAF_PAGES, self.pages.start / LEAF_PAGES);
        page
    }
}

impl Cursor for LinuxCursor<'_> {
    fn entry(&self, address: VirtAddr) -> Entry {
        self.leaf.entry(self.page(address))
    }

    fn replace(&mut self, address: VirtAddr, entry: Entry) -> Entry {
        self.leaf.replace(self.page(address), entry)
    }

    fn protect(&mut self, address: VirtAddr, protection: Protection) -> Entry {
        // No hardware sets bits here: one exchange loses none.
        let old = self.entry(address);
        if let Entry::Present { frame, accessed, dirty, .. } = old {
            self.replace(address, Entry::Present { frame, protection, accessed, dirty });
        }
        old
    }

    fn next(&self, from: VirtAddr) -> Option<VirtAddr> {
        let from = ((from.value() - self.space.origin) / PAGE_SIZE) as usize;
        if from >= self.pages.end {
            return None;
        }
        let page = self.leaf.next(from.max(self.pages.start), self.pages.end)?;
        Some(self.space.address_of(page))
    }
}

/// One space in the register that the signal handlers look into.
///
/// The register is static and its elements are read without a lock, so that a fault's address can
/// be looked up while other spaces come and go. A space that contains the address of an access
/// stays during the access; its owner must ensure that before dropping it. Any other slot may
/// change while it is read, which its version shows.
struct Slot {
    taken: AtomicBool,
    /// Odd while the fields below are being changed.
    version: AtomicU32,
    base: AtomicU64,
    /// Zero while the slot names no space.
    len: AtomicU64,
    core: AtomicPtr<SpaceCore>,
}

static SLOTS: [Slot; MAX_SPACES] = [const {
    Slot {
        taken: AtomicBool::new(false),
        version: AtomicU32::new(0),
        base: AtomicU64::new(0),
        len: AtomicU64::new(0),
        core: AtomicPtr::new(core::ptr::null_mut()),
    }
}; MAX_SPACES];

/// Slots from here on have never been taken.
static HIGH_WATER: AtomicU64 = AtomicU64::new(0);

impl Slot {
    fn take() -> Option<usize> {
        let free = |slot: &Slot| slot.taken.compare_exchange(false, true, AcqRel, Relaxed).is_ok();
        let index = SLOTS.iter().position(free)?;
        HIGH_WATER.fetch_max(index as u64 + 1, Release);
        Some(index)
    }

    fn publish(&self, core: &SpaceCore) {
        let range = core.host_range();
        self.set(range.start, range.end - range.start, core::ptr::from_ref(core).cast_mut());
    }

    fn withdraw(&self) {
        self.set(0, 0, core::ptr::null_mut());
    }

    fn give_back(&self) {
        self.taken.store(false, Release);
    }

    /// Called only by the slot's owner.
    fn set(&self, base: u64, len: u64, core: *mut SpaceCore) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        self.base.store(base, Relaxed);
        self.len.store(len, Relaxed);
        self.core.store(core, Relaxed);
        self.version.store(version.wrapping_add(2), Release);
    }

    /// The space of this slot, if it contains a host address. A space that is published or
    /// withdrawn meanwhile contains no address in use.
    #[cfg(feature = "std")]
    fn containing(&self, host: u64) -> Option<*mut SpaceCore> {
        use core::sync::atomic::Ordering::Acquire;
        let version = self.version.load(Acquire);
        let (base, len) = (self.base.load(Relaxed), self.len.load(Relaxed));
        let core = self.core.load(Relaxed);
        fence(Acquire);
        let whole = version.is_multiple_of(2) && version == self.version.load(Relaxed);
        (whole && host.wrapping_sub(base) < len).then_some(core)
    }
}

/// The space whose window contains a host address; windows are preferred to an identity space.
///
/// # Safety
/// The space that contains the address, if there is one, must not be dropped while the result is
/// in use.
#[cfg(feature = "std")]
pub(crate) unsafe fn find<'a>(host: u64) -> Option<&'a SpaceCore> {
    use core::sync::atomic::Ordering::Acquire;
    let count = HIGH_WATER.load(Acquire) as usize;
    let mut whole = None;
    for slot in &SLOTS[..count.min(MAX_SPACES)] {
        let Some(core) = slot.containing(host) else { continue };
        // SAFETY: the slot named a space that contains the address, and the caller keeps that alive.
        let Some(core) = (unsafe { core.as_ref() }) else { continue };
        if core.window.is_some() {
            return Some(core);
        }
        whole = Some(core);
    }
    whole
}

#[cfg(test)]
mod tests;
