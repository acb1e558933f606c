//! The entries of a page table: locks them, and walks ranges of them.

use crate::machine::{Cursor, Entry, Machine, PAGE_SIZE, Pages, Space, SwapSlot, VirtAddr};
use crate::mm::Mm;
use crate::sync::{Held, Rank};
use crate::tlb::Gather;
use core::ops::{ControlFlow, Deref, DerefMut, Range};

/// The slot that marks the entry of a guard page (`MADV_GUARD_INSTALL`). No swap area has it.
pub const GUARD: SwapSlot = SwapSlot { area: 31, offset: 1 };

/// Whether an entry is a guard.
pub(crate) fn is_guard(entry: &Entry) -> bool {
    *entry == Entry::Swap(GUARD)
}

/// A cursor whose place in the lock order is checked.
pub(crate) struct PageCursor<'a, M: Machine> {
    cursor: <M::Space as Space>::Cursor<'a>,
    _held: Held<'a>,
}

impl<'a, M: Machine> Deref for PageCursor<'a, M> {
    type Target = <M::Space as Space>::Cursor<'a>;
    fn deref(&self) -> &Self::Target {
        &self.cursor
    }
}

impl<M: Machine> DerefMut for PageCursor<'_, M> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.cursor
    }
}

impl<'a, M: Machine> PageCursor<'a, M> {
    /// A cursor with its place in the order, which was entered before it was locked.
    #[inline(always)]
    pub(crate) const fn new(cursor: <M::Space as Space>::Cursor<'a>, held: Held<'a>) -> Self {
        Self { cursor, _held: held }
    }
}

impl<M: Machine> Mm<M> {
    /// Locks entries where there is a table for them.
    #[inline]
    pub(crate) fn existing_entries(&self, range: Range<VirtAddr>) -> Option<PageCursor<'_, M>> {
        let held = self.manager.order.enter(Rank::Entries);
        Some(PageCursor { cursor: self.space.lock_existing(range)?, _held: held })
    }

    /// The parts of a range that may have entries, in order, each within one block. Where there is no
    /// table, large parts are skipped at once. The caller holds no cursor.
    #[inline]
    pub(crate) fn blocks(&self, range: Range<VirtAddr>) -> impl Iterator<Item = Range<VirtAddr>> {
        let mut rest = range;
        core::iter::from_fn(move || {
            let first = Pages::new(&rest, M::Space::SPAN).next()?;
            let block = if first.end == rest.end {
                first
            } else {
                let start = self.space.next_leaf(rest.clone())?;
                Pages::new(&(start..rest.end), M::Space::SPAN).next()?
            };
            rest.start = block.end;
            Some(block)
        })
    }

    /// The first entry in a range that is not none, and its address. The caller holds no cursor.
    pub(crate) fn next_entry(&self, range: Range<VirtAddr>) -> Option<(VirtAddr, Entry)> {
        self.blocks(range).find_map(|block| {
            let cursor = self.existing_entries(block.clone())?;
            let address = cursor.next(block.start).filter(|address| *address < block.end)?;
            Some((address, cursor.entry(address)))
        })
    }
}

impl<'a, M: Machine> Gather<'a, M> {
    /// Calls `step` with the address of every non-empty entry in a range, block by block and under
    /// its lock, and flushes whenever the batch is full. Returns the address at which `step` broke
    /// off, or the end of the range. The last pages that `step` gathered still wait for a flush.
    ///
    /// One step gathers at most one page and one slot, and may change no other entry.
    pub(crate) fn each_entry(
        &mut self,
        range: Range<VirtAddr>,
        mut step: impl FnMut(&mut Self, &mut PageCursor<'a, M>, VirtAddr, Entry) -> ControlFlow<()>,
    ) -> VirtAddr {
        for chunk in self.mm.blocks(range.clone()) {
            let mut from = chunk.start;
            while from < chunk.end {
                match self.some_entries(from..chunk.end, &mut step) {
                    ControlFlow::Continue(reached) => from = reached,
                    ControlFlow::Break(at) => return at,
                }
                self.flush_if_full();
            }
        }
        range.end
    }

    /// Goes through a range in one block until its end, or until the batch is full.
    fn some_entries(
        &mut self,
        range: Range<VirtAddr>,
        step: &mut impl FnMut(&mut Self, &mut PageCursor<'a, M>, VirtAddr, Entry) -> ControlFlow<()>,
    ) -> ControlFlow<VirtAddr, VirtAddr> {
        let mm = self.mm;
        let end = ControlFlow::Continue(range.end);
        let Some(mut cursor) = mm.existing_entries(range.clone()) else { return end };
        let mut from = range.start;
        while from < range.end {
            if self.is_full() {
                return ControlFlow::Continue(from);
            }
            let Some(address) = cursor.next(from) else { return end };
            let entry = cursor.entry(address);
            if step(self, &mut cursor, address, entry).is_break() {
                return ControlFlow::Break(address);
            }
            from = address + PAGE_SIZE;
        }
        end
    }
}
