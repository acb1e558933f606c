//! Going ahead of faults that run through memory in order: the pages that come next are brought back
//! from swap before they are touched (spec F17, in the modern form that goes by address, not by slot),
//! or fresh memory gets its pages of zeros.
//!
//! Each address space remembers a few *runs*: where the last page of a run was, which way it goes,
//! and how far to read ahead. A fault just past the end of a run doubles its window; a fault
//! elsewhere, or on a page that was read ahead and is not there any more, halves it, until the run is
//! forgotten. So a window only grows while memory is passed through in order, and random access brings
//! nothing ahead.

use crate::event::{Correction, Event};
use crate::fault::{Fault, Refusal, Step, page_range};
use crate::machine::{Access, Cursor, Entry, Machine, PAGE_SIZE, VirtAddr};
use crate::mm::Mm;
use crate::reclaim::batch::Batch;
use crate::vma::Vma;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

/// How many runs an address space remembers.
const RUNS: usize = 64;

/// Runs are told apart by the blocks of so many pages that they are in.
const BLOCK: u64 = 512;

/// A fault so many pages past a run's end still continues it: some pages may never have left.
const REACH: u64 = 4;

/// The window of a run's second fault.
const FIRST_WINDOW: u32 = 2;

/// A run with this window has gone on in order three times.
const PROVEN_WINDOW: u32 = 8;

/// The runs of an address space. A race between two faults costs a run its window, nothing else.
pub(crate) struct Runs([AtomicU64; RUNS]);

/// Which way a run goes through memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// A run of faults, as remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The number of the last page that was faulted on or read ahead.
    last: u64,
    direction: Direction,
    /// How many pages were read ahead at last; 0: one fault is not a run yet.
    window: u32,
}

/// What is to be read ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ahead {
    direction: Direction,
    pages: u32,
}

impl Runs {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; RUNS])
    }

    /// Notes a fault on the page with this number and says what to read ahead, at most `most` pages.
    /// What becomes of that is noted by [`brought`](Self::brought).
    fn advance(&self, page: u64, most: u32) -> Option<Ahead> {
        let word = self.of(page);
        let run = Run::decode(word.load(Ordering::Relaxed));
        let Some(direction) = run.continued_by(page) else {
            let next = match run.window / 2 {
                0 => Run { last: page, direction: Direction::Up, window: 0 },
                window => Run { window, ..run },
            };
            word.store(next.encode(), Ordering::Relaxed);
            return None;
        };
        // Short of its end, the run has outpaced reclaim: not all of it was or stayed read.
        let window = if run.reaches(page) { run.window / 2 } else { run.window * 2 };
        let ahead = Ahead { direction, pages: window.max(FIRST_WINDOW).min(most) };
        self.brought(page, ahead, 0);
        Some(ahead)
    }

    /// Notes that after a fault on the page with this number so many pages were read ahead: fewer
    /// than were to be where there was no room for more.
    fn brought(&self, page: u64, ahead: Ahead, pages: u32) {
        let Ahead { direction, pages: window } = ahead;
        let last = match direction {
            Direction::Up => page + u64::from(pages),
            Direction::Down => page.saturating_sub(u64::from(pages)),
        };
        let run = Run { last, direction, window }.encode();
        self.of(page).store(run, Ordering::Relaxed);
        // The run may go on in the next block.
        self.of(direction.step(last)).store(run, Ordering::Relaxed);
    }

    /// Lets the run that the page with this number is in prove itself anew.
    fn forget(&self, page: u64) {
        self.of(page).store(0, Ordering::Relaxed);
    }

    fn of(&self, page: u64) -> &AtomicU64 {
        &self.0[(page / BLOCK) as usize % RUNS]
    }
}

impl Run {
    /// The direction in which a fault on `page` continues the run, if it does.
    fn continued_by(self, page: u64) -> Option<Direction> {
        let (up, down) = (page.wrapping_sub(self.last), self.last.wrapping_sub(page));
        let fits = |distance: u64, direction| match self.window {
            0 => distance == 1,
            _ if self.reaches(page) => self.direction == direction,
            _ => self.direction == direction && (1..=REACH).contains(&distance),
        };
        match () {
            () if fits(up, Direction::Up) => Some(Direction::Up),
            () if fits(down, Direction::Down) => Some(Direction::Down),
            () => None,
        }
    }

    /// Whether `page` is among those that were to be read ahead.
    fn reaches(self, page: u64) -> bool {
        let back = match self.direction {
            Direction::Up => self.last.wrapping_sub(page),
            Direction::Down => page.wrapping_sub(self.last),
        };
        back < u64::from(self.window)
    }

    fn encode(self) -> u64 {
        self.last << 12
            | u64::from(self.direction == Direction::Down) << 11
            | u64::from(self.window)
    }

    fn decode(word: u64) -> Self {
        let direction = if word & 1 << 11 == 0 { Direction::Up } else { Direction::Down };
        Self { last: word >> 12, direction, window: word as u32 & 0x7FF }
    }
}

impl Direction {
    const fn step(self, page: u64) -> u64 {
        match self {
            Self::Up => page + 1,
            Self::Down => page.saturating_sub(1),
        }
    }
}

/// The most pages that are ever read ahead at once, whatever is asked for.
const MOST: u32 = 256;

impl<M: Machine> Mm<M> {
    /// After a page came back from swap, or was first stored to: brings in what a run of such faults
    /// will want next.
    ///
    /// Never beyond the region. Frames that are free beyond the mark at which reclaim begins are used
    /// freely; others are evicted for it only where the run has proved itself, since its next faults
    /// would have to evict them one batch after the other all the same.
    pub(super) fn bring_ahead(self: &Arc<Self>, fault: &Fault, correction: Correction) {
        let manager = &self.manager;
        let most = match correction {
            Correction::SwapIn => manager.config.read_ahead.min(MOST),
            Correction::Anonymous => manager.config.populate_ahead.min(MOST),
            _ => return,
        };
        if most <= 1 {
            return;
        }
        let number = fault.page.value() / PAGE_SIZE;
        let Some(ahead) = self.runs.advance(number, most) else { return };
        let access = if fault.access == Access::Write { Access::Write } else { Access::Read };
        let Some(vma) = self.containing(fault.page).filter(|vma| vma.allows(access)) else {
            return;
        };
        let few = || manager.machine.free_frames() <= manager.watermarks.low;
        if few() && ahead.pages >= PROVEN_WINDOW && manager.reclaim(Batch::<M>::SIZE) == 0 {
            // There may be nothing left to evict: not every fault of the run is to search for it.
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
            let mut next = Fault::at(page, access);
            !few() && self.bring(&vma, &mut next, correction) == Brought::There
        });
        self.runs.brought(number, ahead, brought.count() as u32);
    }

    /// Brings one page in if its entry is of the kind that the faults of the run find.
    fn bring(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        next: &mut Fault,
        correction: Correction,
    ) -> Brought {
        let entry = self
            .existing_entries(page_range(next.page))
            .map_or(Entry::None, |cursor| cursor.entry(next.page));
        let step = match (entry, correction) {
            (Entry::Present { .. }, _) => return Brought::There,
            (Entry::Swap(slot), Correction::SwapIn) => self.swap_in(vma, next, slot),
            (Entry::None, Correction::Anonymous) if vma.file.is_none() => {
                self.absent(vma, next, None)
            }
            _ => return Brought::Nothing,
        };
        self.manager.free_slots(next.unused.take());
        self.count_ahead(next.page, correction, step)
    }

    fn count_ahead(
        &self,
        address: VirtAddr,
        correction: Correction,
        step: Result<Step, Refusal>,
    ) -> Brought {
        let manager = &self.manager;
        // Whoever touches a page that could not be had will find out what is the matter.
        let Ok(Step::Done(_) | Step::Partly(_)) = step else { return Brought::Nothing };
        let (counter, event) = if correction == Correction::Anonymous {
            (&manager.stats.populated_ahead, Event::PopulatedAhead { space: self.id, address })
        } else {
            (&manager.stats.read_ahead, Event::ReadAhead { space: self.id, address })
        };
        counter.add(manager.machine.context(), 1);
        manager.observe(|| event);
        Brought::There
    }
}

/// How bringing a page ahead ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Brought {
    /// The page is in memory.
    There,
    /// It is not, and no further one is to be tried.
    Nothing,
}

#[cfg(test)]
mod tests;
