//! The number of pages of each kind on the whole machine (spec I24).
//!
//! Counts change together with the pages: mappings under the entry's cursor, the cache and
//! dirtiness by the exchange of a page's flags. Every fault counts mappings, so their counters are
//! spread over threads.

use crate::machine::Machine;
use crate::manager::Manager;
use crate::page::{Page, PageFlags};
use crate::stats::Counter;
use crate::word::Word;
use core::sync::atomic::{AtomicI64, Ordering};

/// How many pages there are, by kind.
///
/// No page is ever under write-back and unlocked, so there is no count of such pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Anonymous pages that are mapped (`NR_ANON_MAPPED`).
    pub anonymous: u64,
    /// Pages of files and shared objects that are mapped (`NR_FILE_MAPPED`).
    pub mapped: u64,
    /// Pages in the page cache (`NR_FILE_PAGES`).
    pub cached: u64,
    /// Of these, pages that differ from their store (`NR_FILE_DIRTY`). A store through an entry
    /// counts once the entry's dirty bit has been read.
    pub dirty: u64,
}

impl<M: Machine> Manager<M> {
    /// How many pages there are, by kind.
    pub fn totals(&self) -> Totals {
        let counts = &self.counts;
        let signed = |count: &AtomicI64| count.load(Ordering::Relaxed).max(0) as u64;
        Totals {
            anonymous: counts.anonymous.read(),
            mapped: counts.mapped.read(),
            cached: signed(&counts.cached),
            dirty: signed(&counts.dirty),
        }
    }

    /// The same by counting every page. No other operation may run meanwhile.
    pub(crate) fn recounted(&self) -> Totals {
        let mut totals = Totals::default();
        for number in 0..self.pages.len() {
            let frame = crate::machine::Frame(number);
            if self.is_zero_frame(frame) {
                continue;
            }
            let page = self.page(frame);
            let is_cached = page.has(PageFlags::PAGE_CACHE);
            let is_mapped = page.maps() > 0;
            totals.anonymous += u64::from(is_mapped && page.is_anon());
            totals.mapped += u64::from(is_mapped && !page.is_anon());
            totals.cached += u64::from(is_cached);
            totals.dirty += u64::from(is_cached && page.has(PageFlags::DIRTY));
        }
        totals
    }

    /// Counts an entry that now names a page with a known owner; the entry is locked.
    #[inline]
    pub(crate) fn count_mapping(&self, page: &Page) {
        if page.maps.add_by(&*self.machine, 1, Ordering::AcqRel) == 0 {
            self.counter_of(page).add(&*self.machine, 1);
        }
    }

    /// Counts an entry that no longer names a page; the caller holds its cursor. Returns how many
    /// entries named the page.
    #[inline]
    pub(crate) fn count_unmapping(&self, page: &Page) -> u32 {
        let before = page.maps.sub_by(&*self.machine, 1, Ordering::AcqRel);
        debug_assert!(before > 0, "a page that was not mapped");
        if before == 1 {
            self.counter_of(page).add(&*self.machine, 1_u64.wrapping_neg());
        }
        before
    }

    fn counter_of(&self, page: &Page) -> &Counter {
        if page.is_anon() { &self.counts.anonymous } else { &self.counts.mapped }
    }

    /// Marks a page as different from its store.
    pub(crate) fn mark_dirty(&self, page: &Page) {
        let before = page.set(&*self.machine, PageFlags::DIRTY);
        if before & (PageFlags::DIRTY | PageFlags::PAGE_CACHE) == PageFlags::PAGE_CACHE {
            self.counts.dirty.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Marks a page as equal to its store, or as no longer needed; returns whether it was dirty.
    pub(crate) fn mark_clean(&self, page: &Page) -> bool {
        let before = page.clear(&*self.machine, PageFlags::DIRTY);
        if before.contains(PageFlags::DIRTY | PageFlags::PAGE_CACHE) {
            self.counts.dirty.fetch_sub(1, Ordering::Relaxed);
        }
        before.contains(PageFlags::DIRTY)
    }
}
