//! Walking the invariants (spec I1–I25), at quiescence.

use crate::cache::Key;
use crate::entries::GUARD;
use crate::machine::{Cursor, Entry, Frame, Machine, PAGE_SIZE, Pages, Space, SwapSlot, VirtAddr};
use crate::manager::Manager;
use crate::mm::Mm;
use crate::page::{Owner, PageFlags};
use crate::replacement::Queue;
use crate::vma::{Vma, VmaFlags};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;

/// An invariant, by its number in the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the numbers are those of the specification")]
pub enum Invariant {
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
    I8,
    I9,
    I11,
    I12,
    I13,
    I15,
    I16,
    I20,
    I21,
    I24,
}

/// An invariant that does not hold, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number.
    pub invariant: Invariant,
    /// The frame concerned.
    pub frame: Option<Frame>,
    /// The address concerned, in the address space with this number.
    pub place: Option<(u64, VirtAddr)>,
    /// The slot concerned.
    pub slot: Option<SwapSlot>,
    /// The expected number.
    pub expected: u64,
    /// The actual number.
    pub found: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: expected {:#x}, found {:#x}", self.invariant, self.expected, self.found)?;
        if let Some(frame) = self.frame {
            write!(f, ", {frame:?}")?;
        }
        if let Some((space, address)) = self.place {
            write!(f, ", address {address} of space {space}")?;
        }
        if let Some(slot) = self.slot {
            write!(f, ", {slot:?}")?;
        }
        Ok(())
    }
}

impl core::error::Error for Violation {}

/// A violation without a place.
const fn broken(invariant: Invariant, expected: u64, found: u64) -> Violation {
    Violation { invariant, frame: None, place: None, slot: None, expected, found }
}

fn equal(invariant: Invariant, expected: u64, found: u64) -> Result<(), Violation> {
    if expected == found { Ok(()) } else { Err(broken(invariant, expected, found)) }
}

/// What the page tables of all address spaces contain.
struct Census {
    /// How many entries name each frame.
    maps: Vec<u32>,
    slots: BTreeMap<SwapSlot, u32>,
    accounted: u64,
}

impl<M: Machine> Manager<M> {
    /// Checks every invariant that the manager can see. No other operation may run meanwhile.
    ///
    /// The machine checks those about a processor's own state (I4 and I19 for TLBs).
    pub fn check(&self) -> Result<(), Violation> {
        let mut census = Census {
            maps: vec![0; self.pages.len() as usize],
            slots: BTreeMap::new(),
            accounted: 0,
        };
        for mm in self.spaces.all(&self.order) {
            mm.check(&mut census)?;
        }
        for number in 0..self.pages.len() {
            let frame = Frame(number);
            if !self.is_zero_frame(frame) {
                let fault = |v: Violation| Violation { frame: Some(frame), ..v };
                self.check_page(frame, &mut census).map_err(fault)?;
            }
        }
        self.check_slots(&census)?;
        self.check_queues()?;
        self.check_reverse_maps()?;
        self.check_totals()?;
        for mapping in self.mappings.all(&self.order) {
            census.accounted += mapping.charged.load(Ordering::Relaxed);
        }
        equal(Invariant::I8, census.accounted, self.committed.load(Ordering::Relaxed) as u64)
    }

    /// The counts over the whole machine are those of the pages (spec I24).
    fn check_totals(&self) -> Result<(), Violation> {
        let (counted, found) = (self.totals(), self.recounted());
        equal(Invariant::I24, found.anonymous, counted.anonymous)?;
        equal(Invariant::I24, found.mapped, counted.mapped)?;
        equal(Invariant::I24, found.cached, counted.cached)?;
        equal(Invariant::I24, found.dirty, counted.dirty)
    }

    /// The interval trees of the reverse maps are whole (spec I9).
    fn check_reverse_maps(&self) -> Result<(), Violation> {
        let whole = |sound: bool| equal(Invariant::I9, 1, u64::from(sound));
        for family in self.families.all(&self.order) {
            whole(family.regions.lock(&self.order).check().is_ok())?;
        }
        for mapping in self.mappings.all(&self.order) {
            whole(mapping.regions.lock(&self.order).linear.check().is_ok())?;
        }
        Ok(())
    }

    fn check_page(&self, frame: Frame, census: &mut Census) -> Result<(), Violation> {
        let page = self.page(frame);
        let (refs, maps) = (page.refs(), page.maps());
        if refs == 0 {
            let state = maps + page.flags().bits() + page.pins();
            equal(Invariant::I1, 0, u64::from(state))?;
            return equal(Invariant::I4, 0, u64::from(census.maps[frame.index()]));
        }
        equal(Invariant::I21, 0, u64::from(page.has(PageFlags::LOCKED)))?;
        equal(Invariant::I3, u64::from(census.maps[frame.index()]), u64::from(maps))?;
        equal(Invariant::I3, u64::from(maps), u64::from(self.walk(frame, |_| {})))?;
        // Frames of page tables are not pages of the manager's, and have no references.
        equal(Invariant::I2, u64::from(maps + page.cache_refs() + page.pins()), u64::from(refs))?;
        if page.is_anon() && page.is_pinned() {
            // A pinned page belongs to one region alone (J6).
            equal(Invariant::I12, 0, u64::from(self.entries_of(page).saturating_sub(1)))?;
        }
        if let Some(key) = Key::of(page) {
            let found = self.cache.find(&self.pages, &self.order, key);
            if let Some(found) = found {
                self.put(found);
            }
            let number = |f: Option<Frame>| f.map_or(u64::MAX, |f| u64::from(f.0));
            equal(Invariant::I5, number(Some(frame)), number(found))?;
            if let Key::Swap(slot) = key {
                *census.slots.entry(slot).or_default() += 1;
            }
        }
        if page.has(PageFlags::SWAP_CACHE) && page.has(PageFlags::PAGE_CACHE) {
            return Err(broken(Invariant::I5, 1, 2));
        }
        equal(Invariant::I20, 1, u64::from(page.has(PageFlags::QUEUED)))
    }

    fn check_slots(&self, census: &Census) -> Result<(), Violation> {
        self.swap.check().map_err(|_| broken(Invariant::I6, 0, 1))?;
        let mut seen = 0;
        for area in self.swap.statistics() {
            for slot in self.swap.used(area.area) {
                let shared = u32::from(self.swap.owner(slot).is_some());
                let users = census.slots.get(&slot).copied().unwrap_or(0);
                seen += usize::from(users > 0);
                let count = u64::from(self.swap.count(slot));
                equal(Invariant::I6, u64::from(users + shared), count)
                    .map_err(|v| Violation { slot: Some(slot), ..v })?;
            }
        }
        // Every named slot is in use.
        equal(Invariant::I6, census.slots.len() as u64, seen as u64)
    }

    fn check_queues(&self) -> Result<(), Violation> {
        let mut result = Ok(());
        let mut queued = 0;
        self.queues.visit(&self.pages, &self.order, |frame, which| {
            queued += 1;
            let page = self.page(frame);
            let flags = page.flags();
            if !flags.contains(PageFlags::QUEUED) || Queue::of(flags) != which {
                result = Err(Violation { frame: Some(frame), ..broken(Invariant::I20, 1, 0) });
            }
        });
        result?;
        let lengths = self.queues.lengths(&self.order);
        equal(Invariant::I20, queued, u64::from(lengths.all()))?;
        let flagged =
            (0..self.pages.len()).filter(|n| self.page(Frame(*n)).has(PageFlags::QUEUED)).count();
        equal(Invariant::I20, queued, flagged as u64)
    }
}

impl<M: Machine> Mm<M> {
    fn check(self: &Arc<Self>, census: &mut Census) -> Result<(), Violation> {
        let order = &self.manager.order;
        self.regions.read(order, |tree| tree.check()).map_err(|_| broken(Invariant::I9, 0, 1))?;
        let (mut anon, mut file, mut total, mut locked) = (0, 0, 0, 0);
        let mut hole = self.layout.range.start;
        for vma in self.overlapping(self.layout.range.clone()) {
            self.check_hole(hole..vma.start)?;
            hole = vma.end;
            total += vma.pages();
            locked += if vma.has(VmaFlags::LOCKED) { vma.pages() } else { 0 };
            census.accounted += if vma.has(VmaFlags::ACCOUNT) { vma.pages() } else { 0 };
            self.each_entry(&vma, |address, entry| {
                let place = Some((self.id, address));
                let fault = |v: Violation| Violation { place, frame: entry.frame(), ..v };
                self.check_entry(&vma, address, entry).map_err(fault)?;
                match entry {
                    Entry::Present { frame, .. } if !self.manager.is_bare(*frame) => {
                        census.maps[frame.index()] += 1;
                        let is_anon = self.manager.page(*frame).is_anon();
                        *if is_anon { &mut anon } else { &mut file } += 1;
                    }
                    Entry::Swap(slot) if *slot != GUARD => {
                        *census.slots.entry(*slot).or_default() += 1
                    }
                    _ => {}
                }
                Ok(())
            })?;
        }
        self.check_hole(hole..self.layout.range.end)?;
        let usage = self.usage();
        equal(Invariant::I7, anon, usage.anonymous)?;
        equal(Invariant::I7, file, usage.file)?;
        equal(Invariant::I8, total, usage.total)?;
        equal(Invariant::I8, locked, usage.locked)
    }

    /// No entries outside regions (spec I11); checked within one leaf table of a region.
    fn check_hole(&self, hole: core::ops::Range<VirtAddr>) -> Result<(), Violation> {
        if hole.start >= hole.end {
            return Ok(());
        }
        let mut near = [Pages::new(&hole, M::Space::SPAN).next(), None];
        let last = VirtAddr((hole.end.value() - 1) & !(M::Space::SPAN - 1)).max(hole.start);
        near[1] = Some(last..hole.end);
        for range in near.into_iter().flatten() {
            if let Some(cursor) = self.existing_entries(range.clone())
                && let Some(address) = cursor.next(range.start)
            {
                let place = Some((self.id, address));
                return Err(Violation { place, ..broken(Invariant::I11, 0, 1) });
            }
        }
        Ok(())
    }

    fn each_entry(
        &self,
        vma: &Vma<M>,
        mut f: impl FnMut(VirtAddr, &Entry) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let mut from = vma.start;
        while let Some((address, entry)) = self.next_entry(from..vma.end) {
            f(address, &entry)?;
            from = address + PAGE_SIZE;
        }
        Ok(())
    }

    fn check_entry(&self, vma: &Vma<M>, address: VirtAddr, entry: &Entry) -> Result<(), Violation> {
        let is = |invariant, holds: bool| equal(invariant, 1, u64::from(holds));
        match entry {
            Entry::None => Ok(()),
            Entry::File(_) => is(Invariant::I16, vma.has(VmaFlags::NONLINEAR)),
            Entry::Swap(GUARD) => Ok(()),
            Entry::Swap(_) => is(Invariant::I16, !vma.has(VmaFlags::SHARED)),
            Entry::Present { frame, .. } if self.manager.is_zero_frame(*frame) => {
                is(Invariant::I12, !entry.is_writable())
            }
            Entry::Present { frame, .. } if self.manager.is_device(*frame) => {
                is(Invariant::I15, vma.has(VmaFlags::PFNMAP))?;
                // A private region stores to a copy.
                let stores = vma.flags.contains(VmaFlags::SHARED | VmaFlags::WRITE);
                is(Invariant::I12, stores || !entry.is_writable())
            }
            Entry::Present { frame, .. } => {
                let page = self.manager.page(*frame);
                if entry.is_writable() {
                    is(Invariant::I12, vma.has(VmaFlags::WRITE))?;
                    if !vma.has(VmaFlags::SHARED) {
                        is(Invariant::I12, page.is_anon())?;
                        is(
                            Invariant::I12,
                            self.manager.is_sole_owner(self.manager.page(*frame), 0),
                        )?;
                    }
                    if vma.notifies_writes() {
                        is(Invariant::I13, page.has(PageFlags::DIRTY))?;
                    }
                }
                let index = vma.index_of(address);
                match page.owner() {
                    Owner::None => is(Invariant::I15, false),
                    Owner::Anon(id) => {
                        let mut families = vma.families();
                        is(Invariant::I15, families.any(|family| family.id == id))?;
                        equal(Invariant::I15, index, page.index())
                    }
                    Owner::File(id) => {
                        is(Invariant::I15, vma.file.as_ref().is_some_and(|file| file.id == id))?;
                        let anywhere = vma.has(VmaFlags::NONLINEAR);
                        is(Invariant::I15, anywhere || index == page.index())
                    }
                }
            }
        }
    }
}
