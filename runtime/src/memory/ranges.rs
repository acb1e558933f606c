//! Sets of addresses: ranges that neither overlap nor touch.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// A set of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// The end of each range, by its start.
    ends: BTreeMap<u64, u64>,
    /// How many addresses there are.
    len: u64,
}

impl Ranges {
    /// No addresses.
    pub const fn new() -> Self {
        Self { ends: BTreeMap::new(), len: 0 }
    }

    /// How many addresses are in the set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Puts a range in; returns how many of its addresses were not there.
    pub fn insert(&mut self, range: &Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let before = self.len;
        let mut all = range.clone();
        // Those that overlap or touch become one.
        while let Some((&start, &end)) = self.ends.range(..=all.end).next_back() {
            if end < all.start {
                break;
            }
            self.ends.remove(&start);
            self.len -= end - start;
            all = all.start.min(start)..all.end.max(end);
        }
        self.ends.insert(all.start, all.end);
        self.len += all.end - all.start;
        self.len - before
    }

    /// Takes a range out; returns how many of its addresses were there.
    pub fn remove(&mut self, range: &Range<u64>) -> u64 {
        let before = self.len;
        while let Some((&start, &end)) = self.ends.range(..range.end).next_back() {
            if end <= range.start || range.is_empty() {
                break;
            }
            self.ends.remove(&start);
            self.len -= end - start;
            let rest = [start..range.start.max(start), range.end.min(end)..end];
            for kept in rest.into_iter().filter(|kept| !kept.is_empty()) {
                self.ends.insert(kept.start, kept.end);
                self.len += kept.end - kept.start;
            }
        }
        before - self.len
    }

    /// The parts of a range that are in the set, from the lowest up.
    pub fn within(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let first = self.ends.range(..=range.start).next_back().map_or(range.start, |(s, _)| *s);
        let cut = |(start, end): (&u64, &u64)| (*start).max(range.start)..(*end).min(range.end);
        let parts = self.ends.range(first..range.end.max(first)).map(cut);
        parts.filter(|part| !part.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_ranges_is_a_set() {
        let mut ranges = Ranges::new();
        let mut model = [false; 64];
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |most: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % most
        };
        for _ in 0..20_000 {
            let start = below(64);
            let range = start..start + below(65 - start);
            let indices = range.start as usize..range.end as usize;
            let there = model[indices.clone()].iter().filter(|there| **there).count() as u64;
            let found: u64 = ranges.within(&range).iter().map(|part| part.end - part.start).sum();
            assert_eq!(found, there, "{range:?} of {ranges:?}");
            if below(2) == 0 {
                assert_eq!(ranges.insert(&range), indices.len() as u64 - there);
                model[indices].fill(true);
            } else {
                assert_eq!(ranges.remove(&range), there);
                model[indices].fill(false);
            }
            assert_eq!(ranges.len(), model.iter().filter(|there| **there).count() as u64);
            let parts = ranges.within(&(0..64));
            assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start), "{parts:?}");
        }
    }
}
