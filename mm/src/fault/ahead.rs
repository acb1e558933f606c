//! Serves sequential faults ahead of time: brings the next pages back from swap before they are
//! touched (spec F17, in the modern form that goes by address, not by slot), or gives fresh memory
//! its pages of zeros.
//!
//! Each address space remembers a few *runs*: the last page of each, its direction, and how far to
//! read ahead. A fault just past the end of a run doubles its window. A fault elsewhere, or on a
//! page that was read ahead and has left again, halves the window, until the run is forgotten. So a
//! window grows only under sequential access, and random access brings nothing ahead.
//!
//! A page that was brought ahead is marked until it shows a sign of use: its run has passed it, it
//! faults, or reclaim finds its accessed bit. A page evicted with its mark was wasted. When more
//! pages are wasted than used, no new run begins, except a few as a test.

use crate::error::Refusal;
use crate::event::{Ahead, Correction, Event};
use crate::fault::{Fault, Step, page_range};
use crate::machine::{Access, Cursor, Entry, Machine, PAGE_SIZE, Pages, Space, VirtAddr};
use crate::mm::Mm;
use crate::reclaim::batch::Batch;
use crate::runs::{Direction, MOST};
use crate::vma::Vma;
use alloc::sync::Arc;

/// A run with this window has continued three times.
const PROVEN_WINDOW: u32 = 8;

impl<M: Machine> Mm<M> {
    /// After a page came back from swap, or was first stored to: brings in the pages that a run of
    /// such faults will need next.
    ///
    /// Stays within the region. It may use the frames that are free above reclaim's watermark. It
    /// evicts pages only for a proven run, whose next faults would evict them anyway, one batch
    /// after the other.
    pub(super) fn bring_ahead(self: &Arc<Self>, fault: &Fault<M>, correction: Correction) {
        let manager = &self.manager;
        let (kind, most) = match correction {
            Correction::SwapIn => (Ahead::Swapped, manager.config.read_ahead),
            Correction::Anonymous => (Ahead::Fresh, manager.config.populate_ahead),
            _ => return,
        };
        let most = most.min(MOST);
        if most <= 1 {
            return;
        }
        let number = fault.page.value() / PAGE_SIZE;
        let may_begin = || manager.guesses.of(kind).allows();
        let Some(advance) = self.runs.advance(number, most, may_begin) else { return };
        self.were_passed(advance.passed);
        let ahead = advance.ahead;
        let access = if fault.access == Access::Write { Access::Write } else { Access::Read };
        let Some(vma) = self.containing(fault.page).filter(|vma| vma.allows(access)) else {
            return;
        };
        let few = || manager.machine.free_frames() <= manager.watermarks.low;
        if few() && ahead.pages >= PROVEN_WINDOW && manager.reclaim(Batch::<M>::SIZE) == 0 {
            // Perhaps nothing is left to evict. Not every fault of the run should search again.
            return self.runs.forget(number);
        }
        let mut page = fault.page;
        let brought = (0..ahead.pages).take_while(|_| {
            let last = VirtAddr(vma.end.value() - PAGE_SIZE);
            page = match ahead.direction {
                Direction::Up if page < last => page + PAGE_SIZE,
                Direction::Down if page > vma.start => VirtAddr(page.value() - PAGE_SIZE),
                _ => return false,
            };
            let mut next = Fault::guessed(page, access);
            !few() && self.bring(&vma, &mut next, kind) == Brought::There
        });
        self.runs.brought(number, ahead, brought.count() as u32);
    }

    /// Notes that a run has passed pages brought for it: they were used.
    fn were_passed(&self, (from, to): (u64, u64)) {
        let range = VirtAddr(from * PAGE_SIZE)..VirtAddr(to * PAGE_SIZE);
        let manager = &self.manager;
        let mut used = [0; 2];
        for part in Pages::new(&range, M::Space::SPAN) {
            let Some(cursor) = self.existing_entries(part.clone()) else { continue };
            let mut at = part.start;
            while at < part.end {
                // The cursor keeps the page.
                let frame = cursor.entry(at).frame().filter(|frame| !manager.is_bare(*frame));
                if let Some(ahead) = frame.and_then(|frame| manager.take_guess(frame)) {
                    used[ahead as usize] += 1;
                }
                at = at + PAGE_SIZE;
            }
        }
        for (ahead, pages) in [Ahead::Swapped, Ahead::Fresh].into_iter().zip(used) {
            if pages > 0 {
                manager.count_used(ahead, pages);
            }
        }
    }

    /// Brings one page in, if its entry is of the kind that the run's faults find.
    fn bring(self: &Arc<Self>, vma: &Arc<Vma<M>>, next: &mut Fault<M>, kind: Ahead) -> Brought {
        let entry = self
            .existing_entries(page_range(next.page))
            .map_or(Entry::None, |cursor| cursor.entry(next.page));
        let step = match (entry, kind) {
            (Entry::Present { .. }, _) => return Brought::There,
            (Entry::Swap(slot), Ahead::Swapped) => self.swap_in(vma, next, slot),
            (Entry::None, Ahead::Fresh) if vma.file.is_none() => self.absent(vma, next, None),
            _ => return Brought::Nothing,
        };
        self.manager.free_slots(next.unused.take());
        self.note_brought(next.page, kind, step)
    }

    fn note_brought(&self, address: VirtAddr, kind: Ahead, step: Result<Step, Refusal>) -> Brought {
        let manager = &self.manager;
        // The thread that touches the page will meet the error again.
        let Ok(Step::Done(_) | Step::Partly(_)) = step else { return Brought::Nothing };
        let counter = match kind {
            Ahead::Swapped => &manager.stats.of(&*manager.machine).read_ahead,
            Ahead::Fresh => &manager.stats.of(&*manager.machine).populated_ahead,
        };
        counter.add(&*manager.machine, 1);
        manager.observe(|| Event::Brought { space: self.id, address, ahead: kind });
        Brought::There
    }
}

/// How bringing a page ahead ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Brought {
    /// The page is in memory.
    There,
    /// It is not, and trying further pages is pointless.
    Nothing,
}
