//! A memory of a given number of frames, which replays a trace.

use crate::ahead::{Ahead, Runs};
use crate::policies::{Origin, Policy, Touch};
use crate::trace::{Deed, Trace};

/// The counts of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Faults that needed a page from swap.
    pub misses: u64,
    /// Faults that found their page in memory.
    pub rescues: u64,
    /// Pages read from swap.
    pub pages_in: u64,
    /// Pages written to swap.
    pub pages_out: u64,
    /// Pages read ahead that were used.
    pub used: u64,
    /// Pages read ahead that left unused.
    pub wasted: u64,
}

impl Counts {
    /// Pages moved, either way.
    pub const fn moved(&self) -> u64 {
        self.pages_in + self.pages_out
    }
}

#[derive(Clone, Copy, Default)]
struct Page {
    is_here: bool,
    /// The content differs from swap's copy, or swap has none.
    is_dirty: bool,
    is_stored: bool,
    /// Read ahead, and not used yet.
    is_guess: bool,
}

struct Memory<'a> {
    trace: &'a Trace,
    policy: &'a mut dyn Policy,
    pages: Vec<Page>,
    free: usize,
    counts: Counts,
}

/// Replays a trace. `next` comes from [`Trace::next_uses`].
pub fn replay(
    trace: &Trace,
    next: &[u32],
    frames: usize,
    ahead: Ahead,
    policy: &mut dyn Policy,
) -> Counts {
    let pages = vec![Page::default(); trace.pages()];
    let mut memory = Memory { trace, policy, pages, free: frames, counts: Counts::default() };
    let mut runs = Runs::new(ahead);
    for (step, next) in trace.steps.iter().zip(next) {
        memory.step(step.page, step.deed, *next, &mut runs);
    }
    memory.counts
}

impl Memory<'_> {
    fn step(&mut self, number: u32, deed: Deed, next: u32, runs: &mut Runs) {
        let page = self.pages[number as usize];
        match deed {
            Deed::Discard => return self.give_up(number),
            Deed::FirstStore | Deed::FirstLoad => self.give_up(number),
            Deed::Load | Deed::Store if page.is_here => self.touch(number, next),
            Deed::Load | Deed::Store if page.is_stored => {
                self.counts.misses += 1;
                self.bring(number, Origin::Back, next);
                self.read_ahead(number, runs);
            }
            // In a trace without marks for fresh memory, the first use is fresh.
            Deed::Load | Deed::Store => {}
        }
        if !self.pages[number as usize].is_here {
            self.bring(number, Origin::Fresh, next);
        }
        if matches!(deed, Deed::Store | Deed::FirstStore) {
            self.pages[number as usize].is_dirty = true;
        }
    }

    fn touch(&mut self, number: u32, next: u32) {
        if std::mem::take(&mut self.pages[number as usize].is_guess) {
            self.counts.used += 1;
        }
        if self.policy.touch(number, next) == Touch::Rescue {
            self.counts.rescues += 1;
        }
    }

    fn bring(&mut self, number: u32, origin: Origin, next: u32) {
        if self.free == 0 {
            self.evict();
        }
        self.free = self.free.saturating_sub(1);
        let page = &mut self.pages[number as usize];
        page.is_here = true;
        page.is_dirty = false;
        page.is_guess = origin == Origin::Guess;
        self.counts.pages_in += u64::from(origin != Origin::Fresh);
        self.policy.insert(number, origin, next);
    }

    fn evict(&mut self) {
        let Some(number) = self.policy.evict() else { return };
        let page = &mut self.pages[number as usize];
        page.is_here = false;
        self.counts.wasted += u64::from(std::mem::take(&mut page.is_guess));
        if std::mem::take(&mut page.is_dirty) {
            page.is_stored = true;
            self.counts.pages_out += 1;
        }
        self.free += 1;
    }

    fn give_up(&mut self, number: u32) {
        if std::mem::take(&mut self.pages[number as usize]).is_here {
            self.policy.remove(number);
            self.free += 1;
        }
    }

    /// Reads ahead after a miss, up to the first page that is not in swap.
    fn read_ahead(&mut self, number: u32, runs: &mut Runs) {
        let at = self.trace.numbers[number as usize];
        let Some((direction, window)) = runs.advance(at) else { return };
        let mut brought = 0;
        for distance in 1..=i64::from(window) {
            let Some(other) = self.trace.neighbour(number, distance * direction) else { break };
            let page = self.pages[other as usize];
            if !page.is_here && !page.is_stored {
                break;
            }
            if !page.is_here {
                self.bring(other, Origin::Guess, u32::MAX);
            }
            brought = distance;
        }
        runs.brought(at, direction, window, brought);
    }
}
