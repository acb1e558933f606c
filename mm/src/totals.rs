//! How many pages of each kind there are over the whole machine (spec I24).
//!
//! Counts change where the pages do: mappings under the entry's cursor, the cache and dirtiness by the
//! exchange of a page's flags. Mappings are what every fault counts, so that they are spread over threads.

use crate::machine::Machine;
use crate::manager::Manager;
use crate::page::{Page, PageFlags};
use crate::stats::Counter;
use crate::word::Word;
use core::sync::atomic::{AtomicI64, Ordering};

/// How many pages there are, by kind.
///
/// No page is ever under write-back and unlocked, so that there is no count of those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Anonymous pages that are mapped (`NR_ANON_MAPPED`).
    pub anonymous: u64,
    /// Pages of files and shared objects that are mapped (`NR_FILE_MAPPED`).
    pub mapped: u64,
    /// Pages in the page cache (`NR_FILE_PAGES`).
    pub cached: u64,
    /// Of these, pages that differ from their store (`NR_FILE_DIRTY`). A store through an entry counts once
    /// the entry's dirty bit has been looked at.
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

    /// The same by looking at every page. Nothing else may be going on.
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

    /// An entry names a page from now on, whose owner is known; the entry is locked.
    #[inline]
    pub(crate) fn count_mapping(&self, page: &Page) {
        if page.maps.add_by(&*self.machine, 1, Ordering::AcqRel) == 0 {
            self.counter_of(page).add(&*self.machine, 1);
        }
    }

    /// An entry does not name a page any more, under whose cursor the caller is; returns how many did.
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

    /// A page differs from its store from now on.
    pub(crate) fn mark_dirty(&self, page: &Page) {
        let before = page.set(&*self.machine, PageFlags::DIRTY);
        if before & (PageFlags::DIRTY | PageFlags::PAGE_CACHE) == PageFlags::PAGE_CACHE {
            self.counts.dirty.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A page is as its store has it, or nobody cares any more; returns whether it was dirty.
    pub(crate) fn mark_clean(&self, page: &Page) -> bool {
        let before = page.clear(&*self.machine, PageFlags::DIRTY);
        if before.contains(PageFlags::DIRTY | PageFlags::PAGE_CACHE) {
            self.counts.dirty.fetch_sub(1, Ordering::Relaxed);
        }
        before.contains(PageFlags::DIRTY)
    }
}
