//! mmap (spec C7–C10).

use crate::cache::{File, Mapping, Store};
use crate::edit::Exclusive;
use crate::error::MapError;
use crate::error::Refusal;
use crate::machine::{Machine, PAGE_SHIFT, PAGE_SIZE, Protection, VirtAddr};
use crate::map::pages_up;
use crate::mm::Mm;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// The largest file page number that a mapping may reach: byte offsets stay below 2^63.
const LAST_INDEX: u64 = (i64::MAX as u64) >> PAGE_SHIFT;

/// Where a mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Wherever there is room.
    Anywhere,
    /// At this address rounded up, if there is room; otherwise wherever there is room.
    Hint(VirtAddr),
    /// At exactly this address, replacing existing mappings (`MAP_FIXED`).
    Fixed(VirtAddr),
    /// At exactly this address, if nothing is mapped there (`MAP_FIXED_NOREPLACE`).
    FixedNoReplace(VirtAddr),
    /// The lowest room between two addresses, which are rounded inward to pages (`MAP_32BIT`).
    Between(VirtAddr, VirtAddr),
}

/// Who sees the stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Only this address space: stores go to copies (`MAP_PRIVATE`).
    Private,
    /// Everyone who maps the object (`MAP_SHARED`).
    Shared,
}

bitflags::bitflags! {
    /// How a file was opened.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FileAccess: u8 {
        /// For reading.
        const READ = 1;
        /// For writing.
        const WRITE = 2;
    }

    /// Further options for a mapping.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MapOptions: u8 {
        /// Promise no memory for it (`MAP_NORESERVE`).
        const NORESERVE = 1;
        /// It grows towards lower addresses on access (`MAP_GROWSDOWN`).
        const GROWSDOWN = 2;
        /// Bring its pages in at once and keep them (`MAP_LOCKED`).
        const LOCKED = 4;
        /// Bring its pages in at once (`MAP_POPULATE`).
        const POPULATE = 8;
    }
}

/// What is mapped.
pub enum Source<'a, M: Machine> {
    /// Memory that starts as zeros.
    Anonymous,
    /// An object's content from a byte offset on.
    File {
        /// The object.
        file: &'a File<M>,
        /// The offset in bytes, a multiple of the page size.
        offset: u64,
        /// How the file was opened.
        access: FileAccess,
    },
}

/// A mapping to be made.
///
/// ```
/// # use pagefault::{File, MapRequest, MapOptions, machine::{Machine, Protection, VirtAddr}};
/// # fn examples<M: Machine>(file: &File<M>) {
/// // 64 KiB of zeros anywhere; at an address; a file's second page, shared; both.
/// let memory = MapRequest::<M>::anonymous(64 << 10);
/// let fixed = MapRequest::<M>::anonymous(64 << 10).at(VirtAddr(0x40_0000));
/// let shared = MapRequest::file(file, 4096, 4096).shared();
/// let code = MapRequest::file(file, 0, 4096).at(VirtAddr(0x40_0000)).allowing(Protection::EXECUTE);
/// # }
/// ```
pub struct MapRequest<'a, M: Machine> {
    /// Its length in bytes, rounded up to whole pages.
    pub length: u64,
    /// What accesses are allowed.
    pub protection: Protection,
    /// Who sees the stores.
    pub sharing: Sharing,
    /// Where it goes.
    pub placement: Placement,
    /// What is mapped.
    pub source: Source<'a, M>,
    /// Further options.
    pub options: MapOptions,
}

impl<'a, M: Machine> MapRequest<'a, M> {
    /// Private anonymous memory to read and write, anywhere.
    pub const fn anonymous(length: u64) -> Self {
        Self::of(Source::Anonymous, length)
    }

    /// A private mapping of a file from a byte offset on, to read and write, anywhere. The file counts
    /// as open for both.
    pub const fn file(file: &'a File<M>, offset: u64, length: u64) -> Self {
        Self::of(Source::File { file, offset, access: FileAccess::all() }, length)
    }

    const fn of(source: Source<'a, M>, length: u64) -> Self {
        Self {
            length,
            protection: Protection::READ.union(Protection::WRITE),
            sharing: Sharing::Private,
            placement: Placement::Anywhere,
            source,
            options: MapOptions::empty(),
        }
    }

    /// The same at exactly this address, replacing existing mappings (`MAP_FIXED`).
    pub fn at(self, address: VirtAddr) -> Self {
        self.placed(Placement::Fixed(address))
    }

    /// The same placed in this way.
    pub fn placed(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }

    /// The same with its stores seen by everyone who maps the object (`MAP_SHARED`).
    pub fn shared(self) -> Self {
        Self { sharing: Sharing::Shared, ..self }
    }

    /// The same with these accesses allowed.
    pub fn allowing(self, protection: Protection) -> Self {
        Self { protection, ..self }
    }

    /// The same with further options.
    pub fn with(self, options: MapOptions) -> Self {
        Self { options: self.options | options, ..self }
    }
}

/// Whether a region counts for `RLIMIT_DATA`: memory that only this program writes, without stacks.
pub(crate) const fn is_data(flags: VmaFlags) -> bool {
    flags.contains(VmaFlags::WRITE)
        && !flags.intersects(VmaFlags::SHARED.union(VmaFlags::GROWSDOWN))
}

/// A request after its checks.
struct Plan<M: Machine> {
    length: u64,
    flags: VmaFlags,
    file: Option<File<M>>,
    index: u64,
    /// The pages that are promised.
    charge: u64,
}

/// When the pages of a new mapping come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// At once.
    Now,
    /// When they are touched.
    WhenTouched,
}

impl<M: Machine> Mm<M> {
    /// Makes a mapping and returns its address.
    ///
    /// A fixed request unmaps overlapped mappings only after all other checks have passed. Pages
    /// are brought in at once only on request; failures are then ignored, since the first access
    /// meets them again.
    pub fn mmap(self: &Arc<Self>, request: &MapRequest<'_, M>) -> Result<VirtAddr, MapError> {
        let length = self.check_length(request)?;
        let exclusive = self.exclusive();
        if exclusive.has_ended() {
            return Err(MapError::Ended);
        }
        let address = exclusive.place(request.placement, length)?;
        let range = address..address + length;
        let brought = self.map_fixed(&exclusive, request, range.clone())?;
        drop(exclusive);
        if brought == Brought::Now {
            self.populate(range);
        }
        Ok(address)
    }

    /// Makes a mapping of a range that the placement allows; returns when its pages are to come in.
    pub(super) fn map_fixed(
        &self,
        exclusive: &Exclusive<'_, M>,
        request: &MapRequest<'_, M>,
        range: Range<VirtAddr>,
    ) -> Result<Brought, MapError> {
        let plan = self.plan(request, range.end - range.start)?;
        let stays = plan.flags & VmaFlags::LOCKS;
        exclusive.map(plan, range)?;
        let now = request.options.contains(MapOptions::POPULATE) || !stays.is_empty();
        Ok(if now { Brought::Now } else { Brought::WhenTouched })
    }

    fn check_length(&self, request: &MapRequest<'_, M>) -> Result<u64, MapError> {
        if let Source::File { offset, .. } = request.source
            && offset % PAGE_SIZE != 0
        {
            return Err(MapError::Unaligned);
        }
        if request.length == 0 {
            return Err(MapError::ZeroLength);
        }
        let length = pages_up(request.length).ok_or(MapError::TooLong)?;
        if length > self.layout.range.end.value() { Err(MapError::TooLong) } else { Ok(length) }
    }

    /// Type checks and flags (spec C9), and the promise (C20).
    fn plan(&self, request: &MapRequest<'_, M>, length: u64) -> Result<Plan<M>, MapError> {
        let shared = request.sharing == Sharing::Shared;
        let may = VmaFlags::MAYREAD | VmaFlags::MAYWRITE | VmaFlags::MAYEXEC;
        let mut flags = VmaFlags::access(request.protection) | may;
        if shared {
            flags |= VmaFlags::SHARED | VmaFlags::MAYSHARE;
        }
        let grows = request.options.contains(MapOptions::GROWSDOWN);
        flags.set(VmaFlags::GROWSDOWN, grows);
        flags |= VmaFlags::from_bits_truncate(self.locks_new.load(Ordering::Relaxed));
        if request.options.contains(MapOptions::LOCKED) {
            flags |= VmaFlags::LOCKED;
        }
        let reserve = !request.options.contains(MapOptions::NORESERVE);
        flags.set(VmaFlags::NORESERVE, !reserve);
        let pages = length >> PAGE_SHIFT;
        let mut plan = Plan { length, flags, file: None, index: 0, charge: 0 };
        if let Source::File { file, offset, access } = &request.source {
            if !Arc::ptr_eq(&file.manager, &self.manager) {
                // Its frames are of another machine.
                return Err(MapError::Foreign);
            }
            plan.index = offset >> PAGE_SHIFT;
            if plan.index + pages > LAST_INDEX {
                return Err(MapError::OffsetOverflow);
            }
            self.check_file(*access, shared, &mut plan.flags)?;
            if file.is_device() {
                plan.flags |= VmaFlags::DEVICE;
            }
            plan.file = Some((*file).clone());
        }
        if grows && (shared || plan.file.is_some()) {
            return Err(MapError::GrowsWithFile);
        }
        let private_writable = !shared && plan.flags.contains(VmaFlags::WRITE);
        let shared_object = shared && plan.file.is_none();
        if reserve && (private_writable || shared_object) {
            plan.charge = pages;
        }
        if private_writable && reserve {
            plan.flags |= VmaFlags::ACCOUNT;
        }
        Ok(plan)
    }

    fn check_file(
        &self,
        access: FileAccess,
        shared: bool,
        flags: &mut VmaFlags,
    ) -> Result<(), MapError> {
        if shared && !access.contains(FileAccess::WRITE) {
            if flags.contains(VmaFlags::WRITE) {
                return Err(MapError::NotWritable);
            }
            flags.remove(VmaFlags::SHARED | VmaFlags::MAYWRITE);
        }
        if access.contains(FileAccess::READ) { Ok(()) } else { Err(MapError::NotReadable) }
    }

    /// Brings the pages of a range in, as for a store if stores are allowed; leaves errors to the
    /// first access. A device's memory is mapped when it is touched, and so are pages that are locked
    /// on fault.
    pub(crate) fn populate(self: &Arc<Self>, range: Range<VirtAddr>) {
        let mut page = range.start;
        while page < range.end {
            let waits = VmaFlags::PFNMAP | VmaFlags::LOCKONFAULT;
            let brought = self.fault_in_as(page, |vma| match vma.has(waits) {
                true => Err(Refusal::Forbidden),
                false => Ok(vma.access_ahead()),
            });
            if brought.is_err() {
                return;
            }
            page = page + PAGE_SIZE;
        }
    }
}

impl<M: Machine> Exclusive<'_, M> {
    /// Chooses or checks an address (spec C8).
    pub(crate) fn place(&self, placement: Placement, length: u64) -> Result<VirtAddr, MapError> {
        let mm = self.mm();
        match placement {
            Placement::Anywhere => self.find_gap(length).ok_or(MapError::NoGap),
            Placement::Hint(hint) => {
                let hint = hint.max(mm.layout.lowest_hint).page_up();
                let wanted = hint.and_then(|at| Some(at..at.checked_add(length)?));
                match wanted {
                    Some(range)
                        if range.start >= mm.layout.range.start
                            && range.end <= mm.layout.range.end
                            && self.is_free(range.clone()) =>
                    {
                        Ok(range.start)
                    }
                    _ => self.find_gap(length).ok_or(MapError::NoGap),
                }
            }
            Placement::Between(start, end) => {
                let start = start.max(mm.layout.range.start).page_up().ok_or(MapError::NoGap)?;
                let range = start..end.min(mm.layout.range.end);
                let gap = mm.regions.read(&mm.manager.order, |tree| tree.lowest_gap(length, range));
                gap.ok_or(MapError::NoGap)
            }
            Placement::Fixed(at) => self.check_fixed(at, length),
            Placement::FixedNoReplace(at) => {
                let at = self.check_fixed(at, length)?;
                if self.is_free(at..at + length) { Ok(at) } else { Err(MapError::Occupied) }
            }
        }
    }

    fn check_fixed(&self, at: VirtAddr, length: u64) -> Result<VirtAddr, MapError> {
        let range = &self.mm().layout.range;
        if at.value() > range.end.value() - length {
            Err(MapError::OutOfRange)
        } else if !at.is_page_aligned() {
            Err(MapError::Unaligned)
        } else if at < range.start {
            Err(MapError::OutOfRange)
        } else {
            Ok(at)
        }
    }

    fn is_free(&self, range: Range<VirtAddr>) -> bool {
        let mm = self.mm();
        mm.regions.read(&mm.manager.order, |tree| tree.is_free(range))
    }

    /// The highest gap below the base, otherwise the lowest anywhere (spec C8).
    pub(crate) fn find_gap(&self, length: u64) -> Option<VirtAddr> {
        let mm = self.mm();
        let layout = &mm.layout;
        mm.regions.read(&mm.manager.order, |tree| {
            tree.highest_gap(length, layout.range.start..layout.mmap_base)
                .or_else(|| tree.lowest_gap(length, layout.range.clone()))
        })
    }

    fn map(&self, plan: Plan<M>, range: Range<VirtAddr>) -> Result<(), MapError> {
        let mm = self.mm();
        let manager = &mm.manager;
        self.check_limits(&plan, &range)?;
        manager.charge(plan.charge).map_err(|_| MapError::CommitLimit)?;
        self.unmap(&range);
        let file = match plan.file {
            Some(file) => Some(file),
            None if plan.flags.contains(VmaFlags::SHARED) => {
                let store = Store::Shared(AtomicU64::new(plan.length));
                Some(Mapping::create(manager, store, plan.charge))
            }
            None => None,
        };
        let pgoff = if file.is_some() { plan.index } else { range.start.page_number() };
        let mut flags = plan.flags;
        if flags.contains(VmaFlags::PFNMAP) {
            // A device's memory never leaves.
            flags.remove(VmaFlags::LOCKS);
        }
        self.insert(Vma::new(manager.vma_id(), range, flags, pgoff, file));
        Ok(())
    }

    /// Whether a mapping may be made in place of what a range has, in Linux's order.
    fn check_limits(&self, plan: &Plan<M>, range: &Range<VirtAddr>) -> Result<(), MapError> {
        let mm = self.mm();
        let limits = &mm.limits;
        let bytes = |pages: &AtomicI64| pages.load(Ordering::Relaxed).max(0) as u64 * PAGE_SIZE;
        if !mm.may_lock(plan.flags, plan.length) {
            return Err(MapError::LockLimit);
        }
        if self.room_for(2).is_err() {
            return Err(MapError::TooManyRegions);
        }
        if self.meets_seal(range) {
            return Err(MapError::Sealed);
        }
        let total = bytes(&mm.usage.total) - self.mapped_bytes(range);
        if total + plan.length > limits.address_space.load(Ordering::Relaxed) {
            return Err(MapError::AddressSpaceLimit);
        }
        let data = is_data(plan.flags).then(|| self.data_bytes(range) + plan.length);
        match data {
            Some(data) if data > limits.data.load(Ordering::Relaxed) => Err(MapError::DataLimit),
            _ => Ok(()),
        }
    }

    /// The bytes of memory outside a range that only this program writes.
    pub(crate) fn data_bytes(&self, range: &Range<VirtAddr>) -> u64 {
        let mm = self.mm();
        if mm.limits.data.load(Ordering::Relaxed) == u64::MAX {
            // There is no limit to compare with.
            return 0;
        }
        let outside = |vma: &Arc<Vma<M>>| {
            let end = vma.end.min(range.end).max(vma.start);
            vma.end - vma.start - (end - vma.start.max(range.start).min(end))
        };
        let all = mm.overlapping(mm.layout.range.clone());
        all.iter().filter(|vma| is_data(vma.flags)).map(outside).sum()
    }

    /// The mapped bytes of a range.
    pub(crate) fn mapped_bytes(&self, range: &Range<VirtAddr>) -> u64 {
        self.mm()
            .overlapping(range.clone())
            .iter()
            .map(|vma| vma.end.min(range.end) - vma.start.max(range.start))
            .sum()
    }
}
