//! The place of each page in a swap file.
//!
//! A process fills one extent at a time, page after page, so that pages evicted together lie
//! together. The next extent is one that has much room again, then a fresh one, then any with room.
//! Only an extent without another holder gets further pages: after a fork both sides read the old
//! pages, and each writes to other extents until it is the sole holder again.

use super::Mutex;
use super::extents::{Extents, PAGES};
use crate::reserve::{ReserveError, Table};
use alloc::boxed::Box;
use core::ops::Range;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// No extent.
const NONE: u32 = u32::MAX;

/// An extent with this many free pages is filled again before a fresh one is taken.
const ROOMY: u32 = PAGES / 2;

/// How many extents to check for a roomy one.
const LOOKS: usize = 64;

/// The pages of a file that this process uses. Page 0 is never given out: it may hold the file's
/// signature.
pub(super) struct Positions {
    extents: Box<dyn Extents>,
    pages: u32,
    /// For each extent, a bit for each page in use; 0 for an extent that is not held, unless it is
    /// open.
    used: Table<AtomicU64>,
    /// Of these, the pages that are in the file.
    written: Table<AtomicU64>,
    /// A bit for each extent that has pages in use and free ones, and is not open.
    partial: Table<AtomicU64>,
    filling: Mutex<Filling>,
}

struct Filling {
    /// The extent being filled, or [`NONE`].
    open: u32,
    /// One more than the highest extent ever held.
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

/// The caller must first learn by a system call whether a fresh extent may be taken.
struct MustAsk;

/// Extents to give back after the lock, since punching a hole is I/O.
#[derive(Default)]
struct Unused {
    /// An extent that was filled, and has no page in use.
    closed: Option<u32>,
    /// An extent that was taken, but lies beyond the limit.
    fresh: Option<u32>,
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

    /// The source of the extents.
    pub fn extents(&self) -> &dyn Extents {
        &*self.extents
    }

    /// Takes a page below `limit`. Calls `may_grow` before it takes a fresh extent.
    pub fn take(&self, limit: u32, may_grow: impl FnOnce() -> Fresh) -> Option<u32> {
        match self.take_if(limit, None) {
            Ok(taken) => taken,
            Err(MustAsk) => self.take_if(limit, Some(may_grow())).unwrap_or(None),
        }
    }

    /// The same, once it is known whether a fresh extent may be taken, or if none is needed.
    fn take_if(&self, limit: u32, growth: Option<Fresh>) -> Result<Option<u32>, MustAsk> {
        let mut unused = Unused::default();
        let taken = self.take_under_lock(&mut self.filling.lock(), limit, growth, &mut unused);
        self.give_unused(unused);
        taken
    }

    fn take_under_lock(
        &self,
        filling: &mut Filling,
        limit: u32,
        growth: Option<Fresh>,
        unused: &mut Unused,
    ) -> Result<Option<u32>, MustAsk> {
        if filling.open == NONE || self.free(filling.open, limit) == 0 {
            unused.closed = self.close(filling);
            let Some(next) = self.next(filling, limit, growth, unused)? else { return Ok(None) };
            filling.open = next;
            filling.end = filling.end.max(next + 1);
        }
        let extent = filling.open;
        let free = self.free(extent, limit);
        self.used[extent as usize].fetch_or(free & free.wrapping_neg(), Relaxed);
        Ok(Some(extent * PAGES + free.trailing_zeros()))
    }

    /// Gives extents back. No other thread knows them until they are taken again.
    fn give_unused(&self, unused: Unused) {
        for extent in [unused.closed, unused.fresh].into_iter().flatten() {
            self.extents.give(extent);
        }
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
        match left {
            0 => self.clear_partial(extent),
            _ => self.set_partial(extent),
        }
        drop(filling);
        if left == 0 {
            self.give_unused(Unused { closed: Some(extent), fresh: None });
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

    /// Prepares for a process fork, while no other call runs: stops filling the open extent.
    pub fn before_fork(&self) {
        let closed = self.close(&mut self.filling.lock());
        self.give_unused(Unused { closed, fresh: None });
    }

    /// The extents that this process holds, while none is open.
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

    /// Closes the open extent; returns it if it has no page in use.
    fn close(&self, filling: &mut Filling) -> Option<u32> {
        let extent = core::mem::replace(&mut filling.open, NONE);
        if extent == NONE {
            return None;
        }
        let used = self.used[extent as usize].load(Relaxed);
        match used {
            0 => {}
            u64::MAX => self.clear_partial(extent),
            _ => self.set_partial(extent),
        }
        (used == 0).then_some(extent)
    }

    /// The next extent to fill.
    fn next(
        &self,
        filling: &mut Filling,
        limit: u32,
        growth: Option<Fresh>,
        unused: &mut Unused,
    ) -> Result<Option<u32>, MustAsk> {
        if let Some(roomy) = self.find(filling, limit, ROOMY, LOOKS) {
            return Ok(Some(roomy));
        }
        let fresh = match growth.ok_or(MustAsk)? {
            Fresh::Allowed => self.fresh(limit, unused),
            Fresh::Refused => None,
        };
        Ok(fresh.or_else(|| self.find(filling, limit, 1, usize::MAX)))
    }

    fn fresh(&self, limit: u32, unused: &mut Unused) -> Option<u32> {
        let extent = self.extents.take()?;
        if self.free(extent, limit) == 0 {
            unused.fresh = Some(extent);
            return None;
        }
        Some(extent)
    }

    /// Finds an extent with at least this many free pages among the next partial ones.
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
        self.clear_partial(found);
        filling.from = found;
        Some(found)
    }

    fn set_partial(&self, extent: u32) {
        self.partial[extent as usize / 64].fetch_or(1 << (extent % 64), Relaxed);
    }

    fn clear_partial(&self, extent: u32) {
        self.partial[extent as usize / 64].fetch_and(!(1 << (extent % 64)), Relaxed);
    }
}

/// The extent of a page, and the page's bit there.
const fn split(position: u32) -> (u32, u64) {
    (position / PAGES, 1 << (position % PAGES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::{Arc, Weak};
    use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::sync::OnceLock;

    /// Extents whose methods that may do I/O say whether the lock is held.
    struct Watched {
        file: OwnedFd,
        positions: OnceLock<Weak<Positions>>,
        taken: AtomicU64,
        given: AtomicU64,
    }

    impl Watched {
        fn assert_unlocked(&self) {
            let positions = self.positions.get().and_then(Weak::upgrade).expect("the pages");
            assert!(positions.filling.try_lock().is_some(), "I/O under the lock");
        }
    }

    impl Extents for Arc<Watched> {
        fn file(&self) -> BorrowedFd<'_> {
            self.file.as_fd()
        }

        fn take(&self) -> Option<u32> {
            Some(self.taken.fetch_add(1, Relaxed) as u32)
        }

        fn give(&self, _: u32) {
            self.assert_unlocked();
            self.given.fetch_add(1, Relaxed);
        }

        fn is_sole(&self, _: u32) -> bool {
            true
        }
    }

    #[test]
    fn nothing_is_asked_or_punched_under_the_lock() {
        let file = memfd_create("swap", MemfdFlags::CLOEXEC).expect("a file");
        let (positions, taken, given) = Default::default();
        let extents = Arc::new(Watched { file, positions, taken, given });
        let positions = Positions::new(Box::new(extents.clone()), 4 * PAGES).expect("tables");
        let positions = Arc::new(positions);
        extents.positions.set(Arc::downgrade(&positions)).expect("once");
        let given = || extents.given.load(Relaxed);
        let may_grow = || {
            extents.assert_unlocked();
            Fresh::Allowed
        };

        // The open extent is empty when a fork closes it.
        let first = positions.take(4 * PAGES, may_grow);
        assert_eq!(first, Some(1));
        positions.give(1);
        assert_eq!(given(), 0);
        positions.before_fork();
        assert_eq!(given(), 1);

        // Empty, and beyond a limit that was lowered: it is given back, and so is the one after it.
        let second = positions.take(4 * PAGES, may_grow);
        assert_eq!(second, Some(PAGES));
        positions.give(PAGES);
        assert_eq!(positions.take(PAGES, may_grow), None);
        assert_eq!(given(), 3);
    }
}
