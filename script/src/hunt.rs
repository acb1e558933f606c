//! Runs one random script after the other, until machines differ.

use crate::ast::Script;
use crate::diff::compare;
use crate::machine::{Entry, StartError};
use crate::random;
use crate::shrink::{Minimal, shrink};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The scripts to try.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// The lines of each script.
    pub lines: usize,
    /// The seed of the first script; the others have the following numbers.
    pub seed: u64,
    /// How many scripts.
    pub scripts: u64,
    /// How many processors the machines have.
    pub cpus: u64,
}

/// What a hunt found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The machines gave equal answers to all scripts.
    Nothing,
    /// They differed.
    Difference {
        /// The seed of the script.
        seed: u64,
        /// The number of frames.
        frames: u64,
        /// The answers to the first line on which the machines differed.
        seen: String,
        /// The script made minimal; `None` if a second run had no difference.
        minimal: Option<Minimal>,
    },
}

/// The fewest frames of a script; the pages that a random script locks in memory fit.
const FEWEST: u64 = 512;

impl Hunt {
    /// The script of a seed. Every third one has so few frames that pages are evicted all the time.
    pub fn script(&self, seed: u64) -> Script {
        let mut script = random::script(self.lines, seed);
        script.sizes.cpus = self.cpus;
        if seed.is_multiple_of(3) {
            script.sizes.frames = FEWEST + seed / 3 % FEWEST;
        }
        script
    }

    /// Runs one script after the other, and calls `done` after each.
    ///
    /// If a machine panics or fails, the seed is printed on standard error, and that ends the hunt.
    pub fn run(
        &self,
        machines: &[&Entry],
        mut done: impl FnMut(&Script),
    ) -> Result<Found, StartError> {
        for seed in (self.seed..).take(usize::try_from(self.scripts).unwrap_or(usize::MAX)) {
            let script = self.script(seed);
            let run = || compare(&script, machines, seed).map(|found| found.summary());
            let told = |what| eprintln!("seed {seed}: {what}; {} frames", script.sizes.frames);
            let seen = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
                told("a machine panicked");
                resume_unwind(panic)
            });
            let seen = seen.inspect_err(|_| told("a machine failed"))?;
            if !seen.is_empty() {
                let minimal = shrink(&script, machines, seed)?;
                return Ok(Found::Difference { seed, frames: script.sizes.frames, seen, minimal });
            }
            done(&script);
        }
        Ok(Found::Nothing)
    }
}

#[cfg(test)]
mod tests;
