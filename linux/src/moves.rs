//! Runs of pages that move between the program's addresses and [buffers](crate::buffer).
//!
//! `UFFDIO_MOVE` gives a page's memory another address. One call moves neighbouring pages to neighbouring pages, and
//! flushes once. So content that is brought in together needs no fresh memory and no copy. The buffers that it leaves
//! are bare. They get memory from pages on their way out, which need no copy either.

use crate::buffer::are_neighbours;
use crate::frame::{Held, Location};
use crate::fresh::Filled;
use crate::host::PAGE;
use crate::machine::Shared;
use crate::space::SpaceCore;
use crate::stats::Counter;
use crate::table::{LEAF_PAGES, LeafGuard};
use crate::uffd::{Mapped, UffdFeatures};
use arrayvec::ArrayVec;
use core::ops::Range;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use pagefault_machine::{Entry, Protection};

/// How far around a fault to look for pages that were brought in with it.
pub(crate) const AROUND: usize = 16;
/// The most pages that one call moves in.
const MOST: usize = 2 * AROUND + 1;

/// The shortest run worth a call of a thread that is alone: the flush costs as much as a copy.
const SHORT: usize = 2;
/// The same if the flush may interrupt another processor.
const LONG: usize = 8;
/// After so many faults in a row the thread that raised them is likely the only one that runs.
const STREAK: u32 = 64;

/// How many faults in a row the same thread raised, where nobody tells whether others run. Threads that change it at
/// once may lose a few.
#[derive(Default)]
pub(crate) struct Streak {
    context: AtomicU32,
    faults: AtomicU32,
}

impl Streak {
    /// Notes a fault of the calling thread.
    pub fn note(&self, context: u32) {
        let before = self.faults.load(Relaxed);
        if self.context.load(Relaxed) != context {
            self.context.store(context, Relaxed);
            self.faults.store(0, Relaxed);
        } else if before < STREAK {
            self.faults.store(before + 1, Relaxed);
        }
    }

    fn is_long(&self) -> bool {
        self.faults.load(Relaxed) >= STREAK
    }
}

/// Pages of the table that follow each other, and whose content is in neighbouring buffers.
struct Run<'a> {
    held: ArrayVec<Held<'a>, MOST>,
    page: usize,
    slot: u32,
}

impl Run<'_> {
    /// Whether a page whose content is in this buffer goes on with the run.
    fn is_followed_by(&self, slot: u32) -> bool {
        let Some(last) = self.held.len().checked_sub(1) else { return true };
        are_neighbours(self.slot + last as u32, slot)
    }
}

impl Shared {
    /// The fewest neighbouring pages that are cheaper to move than to copy; `None` if the host moves no pages.
    fn shortest_move(&self) -> Option<usize> {
        let moves = self.probe.features.contains(UffdFeatures::MOVE);
        moves.then(|| if self.is_alone() || self.streak.is_long() { SHORT } else { LONG })
    }

    /// Moves the content of `page` and of its neighbours to their host pages, as far as it was brought into
    /// neighbouring buffers.
    pub(crate) fn refill_parked(&self, space: &SpaceCore, page: usize) -> Filled {
        match self.shortest_move() {
            Some(shortest) if self.is_near_run(space, page) => {
                self.try_refill_parked(space, page, shortest).unwrap_or(Filled::Nothing)
            }
            _ => Filled::Nothing,
        }
    }

    /// Whether two pages beside each other, here or next to here, are in neighbouring buffers. A look without locks.
    fn is_near_run(&self, space: &SpaceCore, page: usize) -> bool {
        let slot = |page: usize| match self.frames.peek(space.table.entry(page).frame()?) {
            Location::Buffer(slot) => Some(slot),
            _ => None,
        };
        let is_run = |first: usize| {
            let pair = slot(first).zip(slot(first + 1));
            pair.is_some_and(|(one, next)| are_neighbours(one, next))
        };
        let last = (page + 2).min(space.pages() - 1);
        (page..last).any(is_run) || (page.saturating_sub(2)..page).any(is_run)
    }

    fn try_refill_parked(&self, space: &SpaceCore, page: usize, shortest: usize) -> Option<Filled> {
        let first = page / LEAF_PAGES * LEAF_PAGES;
        let end = (page + AROUND + 1).min(first + LEAF_PAGES).min(space.pages());
        let leaf = space.table.lock_existing(page)?;
        let mut run = Run { held: ArrayVec::new(), page: 0, slot: 0 };
        let mut filled = Filled::Nothing;
        let mut finish = |run: &mut Run<'_>| {
            if run.held.len() >= shortest && self.move_in(space, run).contains(&page) {
                filled = Filled::Run;
            }
            run.held.clear();
        };
        for next in page.saturating_sub(AROUND).max(first)..end {
            let parked = self.parked_at(space, &leaf, next);
            let Some((held, slot)) = parked else {
                finish(&mut run);
                continue;
            };
            if !run.is_followed_by(slot) {
                finish(&mut run);
            }
            if run.held.is_empty() {
                (run.page, run.slot) = (next, slot);
            }
            run.held.push(held);
        }
        finish(&mut run);
        Some(filled)
    }

    /// The frame and the buffer of a page that may be stored to and is not on the host.
    fn parked_at(
        &self,
        space: &SpaceCore,
        leaf: &LeafGuard<'_>,
        page: usize,
    ) -> Option<(Held<'_>, u32)> {
        let Entry::Present { frame, protection, .. } = leaf.entry(page) else { return None };
        if !protection.contains(Protection::WRITE)
            || !space.table.is_empty(page, space.host_of(page), &self.frames)
        {
            return None;
        }
        let held = self.frames.try_hold(frame)?;
        match held.location() {
            Location::Buffer(slot) => Some((held, slot)),
            _ => None,
        }
    }

    /// Moves a run into its place, and returns the pages that are there. Their leaf is locked.
    fn move_in(&self, space: &SpaceCore, run: &Run<'_>) -> Range<usize> {
        let (host, from) = (space.host_of(run.page), self.buffers.page(run.slot) as u64);
        // SAFETY: the frames are held, whose buffers these are; the target are pages of the space's own.
        let moved = unsafe { self.descriptor.move_run(host, from, run.held.len()) };
        for (at, held) in run.held[..moved].iter().enumerate() {
            space.table.set_shown(run.page + at, held.frame());
            held.set_location(Location::At(host + (at * PAGE) as u64, Mapped::Writable));
        }
        self.buffers.give_bare(run.slot..run.slot + moved as u32);
        self.counters.add(Counter::Installed, moved as u64);
        self.counters.add(Counter::MovedIn, moved as u64);
        run.page..run.page + moved
    }

    /// Moves at most `pages` host pages from `host` on into neighbouring buffers, and returns those: none if the pages
    /// are better copied. The frames of the pages are held.
    ///
    /// # Safety
    /// The pages are of a space of this machine.
    pub(crate) unsafe fn move_out(&self, host: u64, pages: usize) -> Range<u32> {
        const NONE: Range<u32> = 0..0;
        let Some(shortest) = self.shortest_move() else { return NONE };
        // A single page is moved where the buffer that it was copied to would need fresh memory.
        if pages < shortest && shortest > SHORT {
            return NONE;
        }
        let Some(slots) = self.buffers.take_bare(pages) else { return NONE };
        let register = |range| self.descriptor.register_for_moves(range).is_ok();
        let mut moved = 0;
        if self.buffers.is_target(slots.start, register) {
            let to = self.buffers.page(slots.start) as u64;
            // SAFETY: the buffers were taken just now, and the caller vouches for the pages.
            moved = unsafe { self.descriptor.move_run(to, host, slots.len()) };
        }
        let end = slots.start + moved as u32;
        if end < slots.end {
            self.buffers.give_bare(end..slots.end);
        }
        self.counters.add(Counter::MovedOut, moved as u64);
        slots.start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Advice, IoError, Memory, SwapDevice};
    use pagefault_machine::machine::Page;
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex, OnceLock};

    /// A device that takes the buffer after every fifth one that it fills, and stores other bytes to it.
    #[derive(Default)]
    struct Between {
        pages: Mutex<HashMap<u32, Page>>,
        reads: AtomicU32,
        machine: OnceLock<Arc<Shared>>,
    }

    impl SwapDevice for Between {
        fn slots(&self) -> u32 {
            1000
        }

        fn read(&self, slot: u32, page: &mut Page) -> Result<(), IoError> {
            *page = *self.pages.lock().unwrap().get(&slot).ok_or(IoError::Device)?;
            if let (Some(shared), 0) = (self.machine.get(), self.reads.fetch_add(1, Relaxed) % 5) {
                let next = shared.buffers.take();
                // SAFETY: the buffer was taken just now.
                unsafe { shared.buffers.page(next).write([0xee; PAGE]) };
            }
            Ok(())
        }

        fn write(&self, slot: u32, page: &Page) -> Result<(), IoError> {
            self.pages.lock().unwrap().insert(slot, *page);
            Ok(())
        }
    }

    #[test]
    fn pages_whose_buffers_are_no_neighbours_do_not_move_as_a_run() {
        const PAGES: usize = 400;
        let device = Arc::new(Between::default());
        let builder = Memory::builder(4 << 20).swap([]).swap_device(device.clone());
        let memory = builder.build().unwrap();
        let mut region = memory.map(PAGES * PAGE).unwrap();
        (region.chunks_mut(PAGE).zip(1..)).for_each(|(page, number)| page.fill(number as u8));
        region.advise(.., Advice::PageOut).unwrap();
        assert!(device.machine.set(memory.machine().shared.clone()).is_ok());
        for (page, number) in region.chunks(PAGE).zip(1..) {
            assert!(page.iter().all(|byte| *byte == number as u8), "page {number}");
        }
        assert!(memory.stats().manager.read_ahead > 100, "{:?}", memory.stats());
    }

    #[test]
    fn a_streak_ends_with_another_threads_fault() {
        let streak = Streak::default();
        let note = |context, count| (0..count).for_each(|_| streak.note(context));
        note(0, STREAK - 1);
        assert!(!streak.is_long());
        note(0, 5);
        assert!(streak.is_long());
        note(3, 1);
        assert!(!streak.is_long());
        note(3, STREAK);
        assert!(streak.is_long());
        note(0, 1);
        assert!(!streak.is_long());
    }
}
