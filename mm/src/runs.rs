//! The runs of faults that an address space remembers, in atomic words instead of under a lock.

use core::sync::atomic::{AtomicU64, Ordering};

/// How many runs an address space remembers.
const RUNS: usize = 64;

/// Runs are identified by blocks of this many pages.
const BLOCK: u64 = 512;

/// A fault this many pages past a run's end still continues it: some pages may never have left.
const REACH: u64 = 4;

/// The window of a run's second fault.
const FIRST_WINDOW: u32 = 2;

/// The most pages ever read ahead at once, whatever the configuration says.
pub(crate) const MOST: u32 = 256;

/// A run in a word: the window, how many pages were brought, the direction, the last page's number.
const COUNT: u64 = 0x1ff;
const BROUGHT: u32 = 9;
const DOWN: u32 = 18;
const LAST: u32 = 19;

/// The runs of an address space. A race between two faults costs a run its window, nothing else.
pub(crate) struct Runs([AtomicU64; RUNS]);

/// Which way a run goes through memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// A run of faults, as remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The number of the last page that was faulted on or read ahead.
    last: u64,
    direction: Direction,
    /// How many pages should be read ahead last time; 0: a single fault, not a run yet.
    window: u32,
    /// How many of them were read: those that end at `last`.
    brought: u32,
}

/// The pages to read ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) direction: Direction,
    pub(crate) pages: u32,
}

/// What a fault reveals about the run that it continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advance {
    /// The pages to read ahead now.
    pub(crate) ahead: Window,
    /// The numbers of pages that were read ahead and that the run has passed: from, and to before.
    pub(crate) passed: (u64, u64),
}

impl Runs {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; RUNS])
    }

    /// Notes a fault on the page with this number and returns what to read ahead, at most `most`
    /// pages. [`brought`](Self::brought) notes the outcome. `may_begin` decides whether to begin
    /// reading ahead for a run.
    pub(crate) fn advance(
        &self,
        page: u64,
        most: u32,
        may_begin: impl FnOnce() -> bool,
    ) -> Option<Advance> {
        let word = self.of(page);
        let run = Run::decode(word.load(Ordering::Relaxed));
        let continued = run.continued_by(page).filter(|_| run.window > 0 || may_begin());
        let Some(direction) = continued else {
            let next = match run.window / 2 {
                0 => Run { last: page, direction: Direction::Up, window: 0, brought: 0 },
                window => Run { window, ..run },
            };
            word.store(next.encode(), Ordering::Relaxed);
            return None;
        };
        // A fault before the run's end: some of its pages were not read, or reclaim has evicted
        // them.
        let window = if run.reaches(page) { run.window / 2 } else { run.window * 2 };
        let ahead = Window { direction, pages: window.max(FIRST_WINDOW).min(most) };
        self.brought(page, ahead, 0);
        Some(Advance { ahead, passed: run.passed_by(page) })
    }

    /// Notes that this many pages were read ahead after a fault on the page with this number; fewer
    /// than planned if there was no more room.
    pub(crate) fn brought(&self, page: u64, ahead: Window, pages: u32) {
        let Window { direction, pages: window } = ahead;
        let last = match direction {
            Direction::Up => page + u64::from(pages),
            Direction::Down => page.saturating_sub(u64::from(pages)),
        };
        let run = Run { last, direction, window, brought: pages }.encode();
        self.of(page).store(run, Ordering::Relaxed);
        // The run may go on in the next block.
        self.of(direction.step(last)).store(run, Ordering::Relaxed);
    }

    /// Makes the run around the page with this number prove itself again.
    pub(crate) fn forget(&self, page: u64) {
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

    /// Whether `page` is among those planned for reading ahead.
    fn reaches(self, page: u64) -> bool {
        let back = match self.direction {
            Direction::Up => self.last.wrapping_sub(page),
            Direction::Down => page.wrapping_sub(self.last),
        };
        back < u64::from(self.window)
    }

    /// The pages read ahead that a fault on `page` proves passed; none if `page` is one of them and
    /// has left again.
    fn passed_by(self, page: u64) -> (u64, u64) {
        let pages = u64::from(self.brought);
        match self.direction {
            _ if self.reaches(page) => (0, 0),
            Direction::Up => ((self.last + 1).saturating_sub(pages), self.last + 1),
            Direction::Down => (self.last, self.last + pages),
        }
    }

    fn encode(self) -> u64 {
        debug_assert!(self.window <= COUNT as u32 && self.brought <= COUNT as u32);
        self.last << LAST
            | u64::from(self.direction == Direction::Down) << DOWN
            | u64::from(self.brought) << BROUGHT
            | u64::from(self.window)
    }

    fn decode(word: u64) -> Self {
        let is_down = word >> DOWN & 1 != 0;
        Self {
            last: word >> LAST,
            direction: if is_down { Direction::Down } else { Direction::Up },
            window: (word & COUNT) as u32,
            brought: (word >> BROUGHT & COUNT) as u32,
        }
    }
}

impl Direction {
    pub(crate) const fn step(self, page: u64) -> u64 {
        match self {
            Self::Up => page + 1,
            Self::Down => page.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests;
