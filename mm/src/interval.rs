//! Ranges of page indexes that may overlap: the reverse map from a page to the regions that show it.
//!
//! Linux's `i_mmap` and the trees of its later `anon_vma` (spec J7). Entries are ordered by start and
//! then by id; every node knows the largest end in its subtree.

use crate::avl::{Avl, AvlFault, Element};
#[cfg(test)]
use alloc::collections::TryReserveError;
use core::ops::Range;

/// One entry of an [`IntervalTree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval<V> {
    /// The page indexes that the entry covers; not empty.
    pub range: Range<u64>,
    /// Distinguishes entries of equal range.
    pub id: u64,
    /// The value of the entry.
    pub value: V,
}

/// A fault that [`IntervalTree::check`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalFault {
    /// The tree itself is broken.
    Structure(AvlFault),
    /// The entry with this id has an empty range.
    Empty(u64),
}

/// A set of ranges, searched by overlap with a page or a range of pages.
///
/// A search that finds k of n entries visits O((k + 1) log n) nodes, and never more than all. The
/// tree allocates only in [`IntervalTree::reserve`] and, beyond what was reserved or used before, in
/// [`IntervalTree::insert`].
pub struct IntervalTree<V> {
    tree: Avl<Interval<V>>,
}

impl<V> Default for IntervalTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> IntervalTree<V> {
    /// No entries; allocates nothing.
    pub const fn new() -> Self {
        Self { tree: Avl::new() }
    }

    /// The number of entries.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there is no entry.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.tree.len() == 0
    }

    /// Makes room for `additional` entries, so that as many insertions do not allocate.
    #[cfg(test)]
    pub fn reserve(&mut self, additional: usize) -> Result<(), TryReserveError> {
        self.tree.reserve(additional)
    }

    /// Adds an entry, or returns the value if the range is empty or an entry with this start and id
    /// exists.
    pub fn insert(&mut self, range: Range<u64>, id: u64, value: V) -> Result<(), V> {
        if range.is_empty() {
            return Err(value);
        }
        self.tree.insert(Interval { range, id, value }).map_err(|refused| refused.value)
    }

    /// Takes out the entry with this start and id.
    pub fn remove(&mut self, start: u64, id: u64) -> Option<V> {
        self.tree.remove((start, id)).map(|interval| interval.value)
    }

    /// The entries in the order of their starts.
    pub fn iter(&self) -> impl Iterator<Item = &Interval<V>> {
        self.tree.scan(|_| true)
    }

    /// The entries that cover page `index`, in the order of their starts.
    pub fn stabbing(&self, index: u64) -> impl Iterator<Item = &Interval<V>> {
        self.between(index, index)
    }

    /// The entries that overlap `range`, in the order of their starts.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = &Interval<V>> {
        // Nothing starts at or below 0 and ends above the last number: an empty range finds nothing.
        let (first, last) =
            if range.is_empty() { (u64::MAX, 0) } else { (range.start, range.end - 1) };
        self.between(first, last)
    }

    /// The entries with an index from `first` to `last`, both included.
    fn between(&self, first: u64, last: u64) -> impl Iterator<Item = &Interval<V>> {
        let meets = move |start: u64, end: u64| start <= last && end > first;
        self.tree
            .scan(move |reach| meets(reach.start, reach.end))
            .filter(move |interval| meets(interval.range.start, interval.range.end))
    }

    /// Walks the whole tree: sorted, balanced, no empty range, every reach right.
    pub fn check(&self) -> Result<(), IntervalFault> {
        match self.iter().find(|interval| interval.range.is_empty()) {
            Some(empty) => Err(IntervalFault::Empty(empty.id)),
            None => self.tree.check().map_err(IntervalFault::Structure),
        }
    }
}

/// What a node knows of the ranges in its subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The smallest start.
    start: u64,
    /// The largest end.
    end: u64,
}

impl<V> Element for Interval<V> {
    type Key = (u64, u64);
    type Summary = Reach;

    fn key(&self) -> (u64, u64) {
        (self.range.start, self.id)
    }

    fn summary(&self, left: Option<Reach>, right: Option<Reach>) -> Reach {
        let end = |reach: Option<Reach>| reach.map_or(0, |reach| reach.end);
        Reach {
            start: left.map_or(self.range.start, |left| left.start),
            end: self.range.end.max(end(left)).max(end(right)),
        }
    }
}

#[cfg(test)]
mod tests;
