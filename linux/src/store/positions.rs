//! Where in a swap file each page goes.
//!
//! A process fills one extent at a time, page after page, so that what is evicted together lies together.
//! The next one is an extent that has much room again, then a fresh one, then any that has room. Only
//! an extent that no other process holds gets further pages: after a fork both sides read what is there, and
//! each writes elsewhere until it is alone again.

use super::Mutex;
use super::extents::{Extents, PAGES};
use crate::reserve::{ReserveError, Table};
use alloc::boxed::Box;
use core::ops::Range;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// No extent.
const NONE: u32 = u32::MAX;

/// An extent with so many free pages is filled again before a fresh one is taken.
const ROOMY: u32 = PAGES / 2;

/// So many extents are looked at for one that is roomy.
const LOOKS: usize = 64;

/// The pages of a file that this process uses. Page 0 is never given: the file's signature may be there.
pub(super) struct Positions {
    extents: Box<dyn Extents>,
    pages: u32,
    /// For each extent a bit for each page that is in use; 0 for one that is not held, unless it is open.
    used: Table<AtomicU64>,
    /// Of these, the pages that are in the file.
    written: Table<AtomicU64>,
    /// A bit for each extent that has pages in use and free ones, and is not open.
    partial: Table<AtomicU64>,
    filling: Mutex<Filling>,
}

struct Filling {
    /// The extent that is filled, or [`NONE`].
    open: u32,
    /// None that was ever held has this number or a higher one.
    end: u32,
    /// Where the search for a partial one begins.
    from: u32,
}

/// Whether a fresh extent may be taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    Allowed,
    Refused,
}

impl Positions {
    pub fn new(extents: Box<dyn Extents>, pages: u32) -> Result<Self, ReserveError> {
        let count = pages.div_ceil(PAGES) as usize;
        Ok(Self {
            extents,
            pages,
            used: Table::new(count)?,
            written: Table::new(count)?,
            partial: Table::new(count.div_ceil(64))?,
            filling: Mutex::new(Filling { open: NONE, end: 0, from: 0 }),
        })
    }

    /// Whose they are.
    pub fn extents(&self) -> &dyn Extents {
        &*self.extents
    }

    /// Takes a page below `limit`. `may_grow` is asked before a fresh extent is taken.
    pub fn take(&self, limit: u32, may_grow: impl FnOnce() -> Fresh) -> Option<u32> {
        let mut filling = self.filling.lock();
        if filling.open == NONE || self.free(filling.open, limit) == 0 {
            self.close(&mut filling);
            filling.open = self.next(&mut filling, limit, may_grow)?;
            filling.end = filling.end.max(filling.open + 1);
        }
        let extent = filling.open;
        let free = self.free(extent, limit);
        self.used[extent as usize].fetch_or(free & free.wrapping_neg(), Relaxed);
        Some(extent * PAGES + free.trailing_zeros())
    }

    /// Frees a page.
    pub fn give(&self, position: u32) {
        let (extent, bit) = split(position);
        let filling = self.filling.lock();
        self.written[extent as usize].fetch_and(!bit, AcqRel);
        let left = self.used[extent as usize].fetch_and(!bit, Relaxed) & !bit;
        if extent == filling.open {
            return;
        }
        self.note_partial(extent, left != 0);
        // To punch a hole is I/O. Nobody knows of the extent until it is taken again.
        drop(filling);
        if left == 0 {
            self.extents.give(extent);
        }
    }

    /// Whether a page is in the file.
    pub fn is_written(&self, position: u32) -> bool {
        let (extent, bit) = split(position);
        self.written.get(extent as usize).is_some_and(|pages| pages.load(Acquire) & bit != 0)
    }

    /// Notes that pages are in the file.
    pub fn set_written(&self, positions: Range<u32>) {
        for position in positions {
            let (extent, bit) = split(position);
            self.written[extent as usize].fetch_or(bit, AcqRel);
        }
    }

    /// Prepares for a process fork, with no other call under way: nothing is filled on.
    pub fn before_fork(&self) {
        self.close(&mut self.filling.lock());
    }

    /// The extents that this process holds, when none is filled.
    pub fn held(&self) -> impl Iterator<Item = u32> {
        let end = self.filling.lock().end;
        (0..end).filter(|extent| self.used[*extent as usize].load(Relaxed) != 0)
    }

    /// The free pages of an extent that lie below `limit`.
    fn free(&self, extent: u32, limit: u32) -> u64 {
        let first = extent * PAGES;
        let below = limit.min(self.pages).saturating_sub(first);
        let usable = if below >= PAGES { u64::MAX } else { (1 << below) - 1 };
        let usable = if first == 0 { usable & !1 } else { usable };
        usable & !self.used[extent as usize].load(Relaxed)
    }

    /// Fills the open extent no more.
    fn close(&self, filling: &mut Filling) {
        let extent = core::mem::replace(&mut filling.open, NONE);
        if extent == NONE {
            return;
        }
        match self.used[extent as usize].load(Relaxed) {
            0 => self.extents.give(extent),
            used => self.note_partial(extent, used != u64::MAX),
        }
    }

    /// The extent to be filled next.
    fn next(
        &self,
        filling: &mut Filling,
        limit: u32,
        may_grow: impl FnOnce() -> Fresh,
    ) -> Option<u32> {
        self.find(filling, limit, ROOMY, LOOKS)
            .or_else(|| if may_grow() == Fresh::Allowed { self.fresh(limit) } else { None })
            .or_else(|| self.find(filling, limit, 1, usize::MAX))
    }

    fn fresh(&self, limit: u32) -> Option<u32> {
        let extent = self.extents.take()?;
        if self.free(extent, limit) == 0 {
            self.extents.give(extent);
            return None;
        }
        Some(extent)
    }

    /// Finds an extent with at least so many free pages among the next partial ones.
    fn find(&self, filling: &mut Filling, limit: u32, least: u32, looks: usize) -> Option<u32> {
        let words = filling.end.div_ceil(64);
        let from = filling.from / 64;
        let order = (0..words).map(|step| (from + step) % words);
        let partial = order.flat_map(|word| {
            let bits = self.partial[word as usize].load(Relaxed);
            (0..64).filter(move |bit| bits & 1 << bit != 0).map(move |bit| word * 64 + bit)
        });
        let fits = |extent: &u32| {
            self.free(*extent, limit).count_ones() >= least && self.extents.is_sole(*extent)
        };
        let found = partial.take(looks).find(fits)?;
        self.note_partial(found, false);
        filling.from = found;
        Some(found)
    }

    fn note_partial(&self, extent: u32, is_partial: bool) {
        let (word, bit) = (&self.partial[extent as usize / 64], 1 << (extent % 64));
        match is_partial {
            true => word.fetch_or(bit, Relaxed),
            false => word.fetch_and(!bit, Relaxed),
        };
    }
}

/// The extent of a page, and the page's bit there.
const fn split(position: u32) -> (u32, u64) {
    (position / PAGES, 1 << (position % PAGES))
}
