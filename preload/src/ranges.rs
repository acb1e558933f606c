//! A set of addresses as disjoint ranges.

use core::ops::Range;
use std::collections::BTreeMap;

/// A set of addresses; neighbouring ranges are one.
#[derive(Debug, Default)]
pub struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    /// The empty set.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds a range.
    pub fn insert(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&s, &e)) = self.0.range(..=end).next_back() {
            if e < start {
                break;
            }
            (start, end) = (start.min(s), end.max(e));
            self.0.remove(&s);
        }
        self.0.insert(start, end);
    }

    /// Takes a range away.
    pub fn remove(&mut self, range: Range<usize>) {
        while let Some((&s, &e)) = self.0.range(..range.end).next_back() {
            if e <= range.start || range.is_empty() {
                break;
            }
            self.0.remove(&s);
            if e > range.end {
                self.0.insert(range.end, e);
            }
            if s < range.start {
                self.0.insert(s, range.start);
            }
        }
    }

    /// The parts of a range that are in the set, from the highest down.
    pub fn within(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let start = range.start;
        self.0
            .range(..range.end)
            .rev()
            .take_while(move |(_, e)| **e > start)
            .map(move |(&s, &e)| s.max(range.start)..e.min(range.end))
            .filter(|part| !part.is_empty())
    }

    /// Whether all of a range is in the set.
    pub fn covers(&self, range: Range<usize>) -> bool {
        self.0.range(..=range.start).next_back().is_some_and(|(_, &e)| range.end <= e)
    }
}

#[cfg(test)]
mod tests;
