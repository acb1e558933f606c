//! Swap areas: the set of areas, the order in which they fill, and access to a slot by its name.
//!
//! Linux's `swap_info` and `swap_list` (spec F2, F5). Every access to a slot goes through the
//! area's entry in a table of fixed size, read-locked only while a count changes. I/O holds a
//! reference to the area instead, and no lock. The order in which areas are filled has a lock of
//! its own.
//!
//! Lock order: order → table entry; order → an area's search. The owner index's locks are last and
//! alone.

mod claim;
mod handle;

pub(crate) use claim::Claim;
pub(crate) use handle::{AreaHandle, Released, UnusedSlot};

use super::owners::{Owner, Owners, OwnersFault};
use super::slots::{Dropped, Room, SlotError, Slots, SlotsFault};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use lock_api::{Mutex, RawMutex, RawRwLock, RwLock};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, SwapDevice, SwapSlot};

/// The most areas: of 32 numbers, 30 and 31 mean migration entries (spec F2).
pub const MAX_AREAS: usize = 30;

/// The order in which areas fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Below every area added earlier in this way: −1, −2 and so on.
    Descending,
    /// This priority, 0 to 32767; the highest fills first.
    Given(u16),
}

impl Priority {
    /// The highest priority that can be given.
    pub const HIGHEST: u16 = 0x7fff;
}

/// Why an area cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapOnError {
    /// The device has no usable slot, or the priority is above the highest (`EINVAL`).
    Invalid,
    /// All numbers are taken (`EPERM`).
    TooMany,
    /// There is no memory for the counts (`ENOMEM`).
    OutOfMemory,
}

impl fmt::Display for SwapOnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "the device has no usable slot, or the priority is too high",
            Self::TooMany => "there are as many swap areas as there can be",
            Self::OutOfMemory => "no memory for the area's counts",
        })
    }
}

impl core::error::Error for SwapOnError {}

/// Why an area cannot be stopped or resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SwitchError {
    /// There is no such area.
    Missing,
    /// It is stopped, or active, already.
    Already,
}

/// Why an area cannot be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemoveError {
    /// There is no such area.
    Missing,
    /// It was not stopped.
    Active,
    /// So many slots are in use.
    InUse(u32),
}

/// A fault that [`Areas::check`] found (spec I6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AreasFault {
    /// The counts of the area with this number.
    Slots(u8, SlotsFault),
    /// The owner index of the area with this number.
    Owners(u8, OwnersFault),
    /// A free slot has an owner.
    FreeOwned(SwapSlot),
    /// The areas do not stand in the order of their priorities, or one is missing from the table.
    Order(u8),
    /// The totals are not the sums over the active areas.
    Room,
    /// How often a reference was dropped that did not exist.
    BadRelease(u64),
}

/// A set of areas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AreaSet(u32);

impl AreaSet {
    /// The set without areas.
    pub const EMPTY: Self = Self(0);

    /// Adds an area.
    pub(crate) const fn insert(&mut self, area: u8) {
        self.0 |= bit(area);
    }

    /// Whether an area is in the set.
    pub(crate) const fn contains(self, area: u8) -> bool {
        self.0 & bit(area) != 0
    }

    /// The areas in ascending order.
    fn iter(self) -> impl Iterator<Item = u8> {
        (0..MAX_AREAS as u8).filter(move |area| self.contains(*area))
    }
}

const fn bit(area: u8) -> u32 {
    if (area as usize) < MAX_AREAS { 1 << area } else { 0 }
}

/// The statistics of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaStatistics {
    /// The area's number.
    pub area: u8,
    /// Its priority; negative unless it was set explicitly.
    pub priority: i32,
    /// Whether it gives out slots.
    pub active: bool,
    /// The slots that can be used.
    pub slots: u32,
    /// The slots that are used.
    pub in_use: u32,
    /// Pages read.
    pub reads: u64,
    /// Pages written.
    pub writes: u64,
    /// Reads and writes that failed.
    pub failures: u64,
}

/// All swap areas of a memory manager.
pub(crate) struct Areas<M: RawMutex, W: RawRwLock> {
    table: [RwLock<W, Option<Arc<Area<M>>>>; MAX_AREAS],
    /// Which entries of the table are taken.
    present: AtomicU32,
    order: Mutex<M, Order<M>>,
    room: Arc<Room>,
    /// The largest slot that an entry can name.
    last: u32,
    bad_releases: AtomicU64,
}

/// One area; its number is its index in the table.
struct Area<M: RawMutex> {
    number: u8,
    priority: i32,
    device: Box<dyn SwapDevice>,
    slots: Slots<M>,
    owners: Owners<M>,
    reads: AtomicU64,
    writes: AtomicU64,
    failures: AtomicU64,
}

/// The order in which areas fill.
struct Order<M: RawMutex> {
    /// By descending priority; among equals, the one whose turn is next first. Has room for all.
    active: Vec<Arc<Area<M>>>,
    /// The next automatic priority.
    descending: i32,
}

impl<M: RawMutex, W: RawRwLock> Default for Areas<M, W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: RawMutex, W: RawRwLock> Areas<M, W> {
    /// No areas.
    pub(crate) fn new() -> Self {
        Self::with_last_slot(u32::MAX)
    }

    /// No areas, on a machine whose entries can name slots up to `last`.
    pub(crate) fn with_last_slot(last: u32) -> Self {
        let active = Vec::with_capacity(MAX_AREAS);
        Self {
            table: core::array::from_fn(|_| RwLock::new(None)),
            present: AtomicU32::new(0),
            order: Mutex::new(Order { active, descending: -1 }),
            room: Arc::new(Room::default()),
            last,
            bad_releases: AtomicU64::new(0),
        }
    }

    /// Adds an area of which every slot but slot 0 can be used, and returns its number.
    pub(crate) fn add(
        &self,
        device: Box<dyn SwapDevice>,
        priority: Priority,
    ) -> Result<u8, SwapOnError> {
        let slots = device.slots();
        self.add_with_bad(device, priority, slots, &[])
    }

    /// Adds an area of which only the first `slots` are used, without those in `bad` (spec F1), and
    /// returns its number.
    ///
    /// If a device has more slots than an entry can name, the rest stays unused, as in Linux; see
    /// [`AreaStatistics::slots`].
    pub(crate) fn add_with_bad(
        &self,
        device: Box<dyn SwapDevice>,
        priority: Priority,
        slots: u32,
        bad: &[u32],
    ) -> Result<u8, SwapOnError> {
        if matches!(priority, Priority::Given(given) if given > Priority::HIGHEST) {
            return Err(SwapOnError::Invalid);
        }
        let count = device.slots().min(slots).min(self.last.saturating_add(1));
        let slots = Slots::new(count, bad, Arc::clone(&self.room));
        let slots = slots.map_err(|_| SwapOnError::OutOfMemory)?;
        if slots.good() == 0 {
            return Err(SwapOnError::Invalid);
        }
        let owners = Owners::new(count).map_err(|_| SwapOnError::OutOfMemory)?;

        let mut order = self.order.lock();
        let number = self.present.load(Ordering::Relaxed).trailing_ones() as u8;
        if usize::from(number) >= MAX_AREAS {
            // The device may take its time to go away: not under the lock.
            drop(order);
            return Err(SwapOnError::TooMany);
        }
        let priority = match priority {
            Priority::Given(given) => i32::from(given),
            Priority::Descending => order.next_descending(),
        };
        let [reads, writes, failures] = core::array::from_fn(|_| AtomicU64::new(0));
        let area = Area { number, priority, device, slots, owners, reads, writes, failures };
        let area = Arc::new(area);
        *self.table[usize::from(number)].write() = Some(Arc::clone(&area));
        self.present.fetch_or(bit(number), Ordering::Release);
        order.admit(area);
        Ok(number)
    }

    /// Reserves a free slot. Only the caller has a reference to it, until it has written the content
    /// ([`AreaHandle::publish`]).
    ///
    /// The area is the one of highest priority that has a free slot, is active and is not in
    /// `avoid`; areas of equal priority take turns (spec F5).
    pub(crate) fn reserve(&self, avoid: AreaSet) -> Option<SwapSlot> {
        let mut slot = None;
        self.order.lock().reserve(1, avoid, |taken| slot = Some(taken));
        slot
    }

    /// Reserves up to `wanted` slots, as [`Areas::reserve`] would one by one, and hands each to `take`.
    pub(crate) fn reserve_some(&self, wanted: usize, mut take: impl FnMut(SwapSlot)) {
        let mut order = self.order.lock();
        let mut left = wanted;
        while left > 0 {
            match order.reserve(left, AreaSet::EMPTY, &mut take) {
                0 => return,
                taken => left -= taken,
            }
        }
    }

    /// Adds a reference to a used slot (Linux: `swap_duplicate`).
    pub(crate) fn duplicate(&self, slot: SwapSlot) -> Result<(), SlotError> {
        self.with(slot.area, |area| area.slots.duplicate(slot.offset))
            .unwrap_or(Err(SlotError::Missing))
    }

    /// Drops a reference (Linux: `swap_free`). With the last one the slot loses its owner.
    ///
    /// Dropping a reference to a slot that has none leaves 0, changes nothing, and is reported by
    /// [`Areas::check`].
    pub(crate) fn release(&self, slot: SwapSlot) -> Released<M> {
        let offset = slot.offset;
        let released = self.with(slot.area, |area| match area.slots.drop_reference(offset)? {
            Dropped::Remaining(left) => Ok(Released { left, unused: None }),
            Dropped::Last => {
                area.owners.clear(offset);
                let unused = UnusedSlot { area: Arc::clone(area), offset };
                Ok(Released { left: 0, unused: Some(unused) })
            }
        });
        match released.unwrap_or(Err(SlotError::Missing)) {
            Ok(released) => released,
            Err(_) => {
                self.bad_releases.fetch_add(1, Ordering::Relaxed);
                Released { left: 0, unused: None }
            }
        }
    }

    /// How many references a slot has; 0 if it is free, reserved, bad or missing.
    pub(crate) fn count(&self, slot: SwapSlot) -> u32 {
        self.with(slot.area, |area| area.slots.count(slot.offset)).unwrap_or(0)
    }

    /// Reads the content of a slot. A slot that no area has fails as a device does.
    ///
    /// Holds no lock during the I/O. The caller has a reference to the slot, which keeps the
    /// content.
    pub(crate) fn read(&self, slot: SwapSlot, page: &mut PageBytes) -> Result<(), IoError> {
        self.area_of(slot).ok_or(IoError::Device)?.read(slot.offset, page)
    }

    /// The usable slots of all active areas.
    pub(crate) fn total(&self) -> u64 {
        self.room.total()
    }

    /// The free slots of all active areas.
    pub(crate) fn free(&self) -> u64 {
        self.room.free()
    }

    /// Whether fewer than half of the slots are free; then pages in memory give theirs back (spec
    /// B14, F11).
    pub(crate) fn is_more_than_half_full(&self) -> bool {
        2 * self.free() < self.total()
    }

    /// Stops an area from giving out slots, and takes it out of the totals: the start of a swapoff
    /// (spec F12). References to its slots stay valid.
    pub(crate) fn stop(&self, area: u8) -> Result<(), SwitchError> {
        let mut order = self.order.lock();
        let area = self.area(area).ok_or(SwitchError::Missing)?;
        let at = order.position(area.number).ok_or(SwitchError::Already)?;
        order.active.remove(at).slots.close();
        Ok(())
    }

    /// Undoes [`Areas::stop`]: a swapoff that failed (spec F12).
    pub(crate) fn resume(&self, area: u8) -> Result<(), SwitchError> {
        let mut order = self.order.lock();
        let area = self.area(area).ok_or(SwitchError::Missing)?;
        if order.position(area.number).is_some() {
            return Err(SwitchError::Already);
        }
        order.admit(area);
        Ok(())
    }

    /// Removes a stopped area that has no used slot: the end of a swapoff. Its number is free again.
    pub(crate) fn remove(&self, area: u8) -> Result<(), RemoveError> {
        let order = self.order.lock();
        let found = self.area(area).ok_or(RemoveError::Missing)?;
        if order.position(area).is_some() {
            return Err(RemoveError::Active);
        }
        // No slot comes into use any more: the area is closed, and a free slot is never duplicated.
        match found.slots.in_use() {
            0 => {}
            in_use => return Err(RemoveError::InUse(in_use)),
        }
        let taken = self.table[usize::from(area)].write().take();
        self.present.fetch_and(!bit(area), Ordering::Release);
        // The device may take its time to go away: not under the lock.
        drop(order);
        drop((taken, found));
        Ok(())
    }

    /// The used slots of an area in ascending order, for swapoff.
    ///
    /// Concurrent changes may or may not show, so swapoff repeats until no slot is used.
    pub(crate) fn used(&self, area: u8) -> impl Iterator<Item = SwapSlot> + use<M, W> {
        let found = self.area(area);
        let slots = found.as_ref().map_or(0, |found| found.slots.len());
        let is_used =
            move |offset: &u32| found.as_ref().is_some_and(|found| found.slots.count(*offset) > 0);
        (1..slots).filter(is_used).map(move |offset| SwapSlot { area, offset })
    }

    /// The number of slots of an area, usable or not; 0 if there is no such area. Read-ahead stops
    /// there (spec F17).
    #[cfg(test)]
    pub(crate) fn slots(&self, area: u8) -> u32 {
        self.with(area, |area| area.slots.len()).unwrap_or(0)
    }

    /// What each area has done so far, in the order of their numbers.
    pub(crate) fn statistics(&self) -> impl Iterator<Item = AreaStatistics> {
        let active = self.active();
        self.present().iter().filter_map(move |number| {
            self.with(number, |area| AreaStatistics {
                area: number,
                priority: area.priority,
                active: active.contains(number),
                slots: area.slots.good(),
                in_use: area.slots.in_use(),
                reads: area.reads.load(Ordering::Relaxed),
                writes: area.writes.load(Ordering::Relaxed),
                failures: area.failures.load(Ordering::Relaxed),
            })
        })
    }

    /// The slot that holds page `index` of shared object `object` (spec D11).
    ///
    /// The slot may be released at any time unless the caller holds the object's lock or
    /// [`Areas::duplicate`] succeeds on it and it is found again.
    pub(crate) fn find_owner(&self, object: u64, index: u64) -> Option<SwapSlot> {
        let owner = Owner { object, index };
        self.present().iter().find_map(|number| {
            let offset = self.with(number, |area| area.owners.find(owner))??;
            Some(SwapSlot { area: number, offset })
        })
    }

    /// Records that a slot holds page `index` of shared object `object`, whatever it held before.
    ///
    /// The caller holds a reference to the slot; the last reference takes the record along.
    pub(crate) fn set_owner(&self, slot: SwapSlot, object: u64, index: u64) {
        self.with(slot.area, |area| area.owners.set(slot.offset, Owner { object, index }));
    }

    /// Records that a slot holds no shared object's page.
    #[cfg(test)]
    pub(crate) fn clear_owner(&self, slot: SwapSlot) {
        self.with(slot.area, |area| area.owners.clear(slot.offset));
    }

    /// Clears the record of a slot if it names page `index` of shared object `object`; returns
    /// whether it did. If so, the caller drops the object's reference to the slot.
    pub(crate) fn disown(&self, slot: SwapSlot, object: u64, index: u64) -> bool {
        let owner = Owner { object, index };
        self.with(slot.area, |area| area.owners.take(slot.offset, owner)).unwrap_or(false)
    }

    /// The shared object and page index that a slot holds, for swapoff.
    ///
    /// Meaningful while the caller keeps the owner from changing.
    pub(crate) fn owner(&self, slot: SwapSlot) -> Option<(u64, u64)> {
        let owner = self.with(slot.area, |area| area.owners.owner(slot.offset))??;
        Some((owner.object, owner.index))
    }

    /// Checks everything that does not depend on the references, while nothing changes (spec I6).
    pub(crate) fn check(&self) -> Result<(), AreasFault> {
        let bad_releases = self.bad_releases.load(Ordering::Relaxed);
        if bad_releases > 0 {
            return Err(AreasFault::BadRelease(bad_releases));
        }
        let order = self.order.lock();
        let (mut total, mut free, mut last) = (0, 0, i32::MAX);
        for area in &order.active {
            let listed = self.area(area.number).is_some_and(|listed| Arc::ptr_eq(&listed, area));
            if area.priority > last || !listed {
                return Err(AreasFault::Order(area.number));
            }
            last = area.priority;
            total += u64::from(area.slots.good());
            free += u64::from(area.slots.good() - area.slots.in_use());
        }
        if (total, free) != (self.total(), self.free()) {
            return Err(AreasFault::Room);
        }
        self.present()
            .iter()
            .filter_map(|number| self.area(number))
            .try_for_each(|area| area.check())
    }

    /// Runs `f` on an area, if there is one, with its entry of the table read-locked.
    fn with<T>(&self, number: u8, f: impl FnOnce(&Arc<Area<M>>) -> T) -> Option<T> {
        self.table.get(usize::from(number))?.read().as_ref().map(f)
    }

    fn area(&self, number: u8) -> Option<Arc<Area<M>>> {
        self.with(number, Arc::clone)
    }

    fn area_of(&self, slot: SwapSlot) -> Option<Arc<Area<M>>> {
        self.area(slot.area).filter(|area| slot.offset < area.slots.len())
    }

    fn present(&self) -> AreaSet {
        AreaSet(self.present.load(Ordering::Acquire))
    }

    fn active(&self) -> AreaSet {
        let mut active = AreaSet::EMPTY;
        self.order.lock().active.iter().for_each(|area| active.insert(area.number));
        active
    }
}

impl<M: RawMutex> Order<M> {
    fn next_descending(&mut self) -> i32 {
        let priority = self.descending;
        self.descending -= 1;
        priority
    }

    /// Opens an area and puts it before those of equal priority (spec F2).
    fn admit(&mut self, area: Arc<Area<M>>) {
        let at = self.active.partition_point(|other| other.priority > area.priority);
        area.slots.open();
        self.active.insert(at, area);
    }

    /// Reserves up to `wanted` slots of the first area that has any; returns how many. Of an area that takes
    /// turns with others, it takes one.
    fn reserve(&mut self, wanted: usize, avoid: AreaSet, mut take: impl FnMut(SwapSlot)) -> usize {
        for at in 0..self.active.len() {
            let area = &self.active[at];
            if avoid.contains(area.number) {
                continue;
            }
            let wanted = if self.is_turn(at) { 1 } else { wanted };
            let named = |offset| take(SwapSlot { area: area.number, offset });
            let taken = area.slots.reserve_some(wanted, named);
            if taken > 0 {
                self.take_turn(at);
                return taken;
            }
        }
        0
    }

    /// Whether the next area has the same priority.
    fn is_turn(&self, at: usize) -> bool {
        let next = self.active.get(at + 1);
        next.is_some_and(|next| next.priority == self.active[at].priority)
    }

    /// Puts an area behind those of equal priority.
    fn take_turn(&mut self, at: usize) {
        if !self.is_turn(at) {
            return;
        }
        let priority = self.active[at].priority;
        let end = self.active.partition_point(|other| other.priority >= priority);
        self.active[at..end].rotate_left(1);
    }

    fn position(&self, number: u8) -> Option<usize> {
        self.active.iter().position(|area| area.number == number)
    }
}

impl<M: RawMutex> Area<M> {
    fn read(&self, offset: u32, page: &mut PageBytes) -> Result<(), IoError> {
        let result = self.device.read(offset, page);
        self.count_io(&self.reads, result)
    }

    fn count_io(&self, done: &AtomicU64, result: Result<(), IoError>) -> Result<(), IoError> {
        let counter = if result.is_ok() { done } else { &self.failures };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn check(&self) -> Result<(), AreasFault> {
        self.slots.check().map_err(|fault| AreasFault::Slots(self.number, fault))?;
        self.owners.check().map_err(|fault| AreasFault::Owners(self.number, fault))?;
        let stray = |slot: &u32| self.owners.owner(*slot).is_some() && self.slots.count(*slot) == 0;
        match (0..self.slots.len()).find(stray) {
            Some(offset) => Err(AreasFault::FreeOwned(SwapSlot { area: self.number, offset })),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
