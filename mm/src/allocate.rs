//! Allocates frames for pages and page tables; evicts pages if no frame is free.

use crate::entries::PageCursor;
use crate::error::{ForkError, OutOfMemory};
use crate::machine::{Frame, Machine, NoSpace, OutOfFrames, Space, VirtAddr};
use crate::manager::Manager;
use crate::mm::Mm;
use crate::sync::Rank;
use core::ops::Range;
use core::sync::atomic::Ordering;

impl<M: Machine> Manager<M> {
    /// Takes a frame for a page that only the caller knows, and evicts other pages if it must.
    ///
    /// The content is undefined. The caller is engaged, and holds no lock but [`Rank::Layout`](crate::sync::Rank)
    /// and page locks.
    pub(crate) fn allocate(&self) -> Result<Frame, OutOfMemory> {
        let frame = self.with_room(|| self.machine.allocate())?;
        Ok(self.first_reference(frame))
    }

    /// Like [`allocate`](Self::allocate), but fails instead of evicting.
    pub(crate) fn allocate_free(&self) -> Result<Frame, OutOfFrames> {
        self.machine.allocate().map(|frame| self.first_reference(frame))
    }

    /// Like [`allocate`](Self::allocate), but gives up once no frame is needed any more.
    pub(crate) fn allocate_unless(
        &self,
        is_spared: impl Fn() -> bool,
    ) -> Result<Option<Frame>, OutOfMemory> {
        let take = || if is_spared() { Ok(None) } else { self.machine.allocate().map(Some) };
        Ok(self.with_room(take)?.map(|frame| self.first_reference(frame)))
    }

    fn first_reference(&self, frame: Frame) -> Frame {
        let page = self.page(frame);
        debug_assert_eq!(page.refs(), 0, "{frame:?} allocated while in use");
        debug_assert_eq!(page.flags().bits(), 0);
        page.refs.store(1, Ordering::Release);
        frame
    }

    /// Makes a page table, evicting pages if it must.
    pub(crate) fn new_space(&self) -> Result<M::Space, ForkError> {
        let _engaged = self.engage();
        let make = || match self.machine.space() {
            Ok(space) => Ok(Ok(space)),
            Err(NoSpace::OutOfFrames) => Err(OutOfFrames),
            Err(NoSpace::Refused) => Ok(Err(ForkError::Refused)),
        };
        self.with_room(make).map_err(|OutOfMemory| ForkError::OutOfMemory)?
    }
}

impl<M: Machine> Mm<M> {
    /// Locks entries, and makes missing levels of the table; evicts pages for them if it must (spec
    /// B1).
    #[inline(always)]
    pub(crate) fn entries(&self, range: Range<VirtAddr>) -> Result<PageCursor<'_, M>, OutOfMemory> {
        let held = self.manager.order.enter(Rank::Entries);
        match self.space.lock(range.clone()) {
            Ok(cursor) => Ok(PageCursor::new(cursor, held)),
            Err(OutOfFrames) => {
                drop(held);
                self.entries_with_room(&range)
            }
        }
    }

    #[cold]
    fn entries_with_room(&self, range: &Range<VirtAddr>) -> Result<PageCursor<'_, M>, OutOfMemory> {
        // The levels stay once they are made, so that the second lock finds them.
        let cursor = self.manager.with_room(|| self.space.lock(range.clone()))?;
        Ok(PageCursor::new(cursor, self.manager.order.enter(Rank::Entries)))
    }
}
