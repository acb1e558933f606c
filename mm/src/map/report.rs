//! Reports of mappings, as in `/proc/PID/maps` and `/proc/PID/pagemap`.

use crate::entries::is_guard;
use crate::machine::{Cursor, Entry, Machine, PAGE_SIZE, Protection, VirtAddr};
use crate::mm::Mm;
use crate::vma::VmaFlags;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// A line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionReport {
    /// The addresses.
    pub range: Range<VirtAddr>,
    /// What accesses are allowed.
    pub protection: Protection,
    /// Whether stores are seen by everyone who maps the object (`s`) or go to copies (`p`).
    pub shared: bool,
    /// The page index of the start: in the object, or of the anonymous memory.
    pub index: u64,
    /// The number of the object, if there is one.
    pub object: Option<u64>,
    /// Whether the pages are kept in memory.
    pub locked: bool,
    /// Whether it grows towards lower addresses on access.
    pub grows_down: bool,
    /// Whether its entries may name pages of the object out of order.
    pub nonlinear: bool,
    /// The number of the family that its anonymous pages belong to, once there are any.
    pub family: Option<u64>,
    /// All its flags.
    pub flags: VmaFlags,
}

/// How many entries are read under one lock.
const BATCH: usize = 32;

/// An entry of the page table that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageReport {
    /// The page's address.
    pub address: VirtAddr,
    /// The entry's content.
    pub entry: Entry,
    /// Whether it names an anonymous page, rather than one of a file or shared object.
    pub anonymous: bool,
    /// How many entries name the page; 0 for the shared frame of zeros, memory of a device and pages in
    /// swap.
    pub maps: u32,
}

impl<M: Machine> Mm<M> {
    /// The regions that overlap a range, in order, whole, as they are at one moment (Linux:
    /// `/proc/PID/maps`). Allocates.
    pub fn maps(self: &Arc<Self>, range: Range<VirtAddr>) -> Vec<RegionReport> {
        self.overlapping(range)
            .iter()
            .map(|vma| RegionReport {
                range: vma.range(),
                protection: vma.flags.protection(),
                shared: vma.has(VmaFlags::MAYSHARE),
                index: vma.pgoff,
                object: vma.file.as_ref().map(|file| file.id),
                locked: vma.has(VmaFlags::LOCKED),
                grows_down: vma.has(VmaFlags::GROWSDOWN),
                nonlinear: vma.has(VmaFlags::NONLINEAR),
                family: vma.anon.as_ref().map(|family| family.id),
                flags: vma.flags,
            })
            .collect()
    }

    /// The addresses of the first region that overlaps a range; allocates nothing.
    pub fn first_mapped(&self, range: Range<VirtAddr>) -> Option<Range<VirtAddr>> {
        self.regions
            .read(&self.manager.order, |tree| tree.overlapping(range).next().map(|vma| vma.range()))
    }

    /// Calls `f` with every non-empty entry of the pages that a range touches, in order. An entry that
    /// changes meanwhile shows as before or after the change. `f` is called without a lock.
    pub fn pages(&self, range: Range<VirtAddr>, mut f: impl FnMut(PageReport)) {
        let Range { start, end } = &self.layout.range;
        let end = range.end.page_up().unwrap_or(*end).min(*end);
        for chunk in self.blocks(range.start.page().max(*start)..end) {
            let mut from = chunk.start;
            while from < chunk.end {
                let (batch, next) = self.some_pages(from..chunk.end);
                batch.into_iter().flatten().for_each(&mut f);
                from = next;
            }
        }
    }

    /// The first non-empty entries in a range inside one leaf table, and where to continue.
    fn some_pages(&self, range: Range<VirtAddr>) -> ([Option<PageReport>; BATCH], VirtAddr) {
        let mut batch = [None; BATCH];
        let mut from = range.start;
        let Some(cursor) = self.existing_entries(range.clone()) else { return (batch, range.end) };
        for slot in &mut batch {
            if from >= range.end {
                break;
            }
            let Some(address) = cursor.next(from) else { return (batch, range.end) };
            let entry = cursor.entry(address);
            *slot = (!is_guard(&entry)).then(|| self.page_report(address, entry));
            from = address + PAGE_SIZE;
        }
        (batch, from)
    }

    /// The report of an entry. The caller holds its cursor, so the page that it names does not
    /// change.
    fn page_report(&self, address: VirtAddr, entry: Entry) -> PageReport {
        let page = entry.frame().and_then(|frame| self.manager.normal_page(frame));
        let is_device = entry.frame().is_some_and(|frame| self.manager.is_device(frame));
        let others = !matches!(entry, Entry::File(_)) && !is_device;
        let anonymous = page.map_or(others, |page| page.is_anon());
        PageReport { address, entry, anonymous, maps: page.map_or(0, |page| page.maps()) }
    }
}
