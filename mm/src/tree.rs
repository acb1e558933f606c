//! The regions of an address space by address, with search for gaps.
//!
//! Linux kept a red-black tree, a list and a cached hole; its later maple tree is one structure
//! that also knows the gaps. This tree does too: every node knows the largest gap between regions
//! of its subtree, and finding a place for a mapping costs O(log n) (spec C8).

use crate::avl::{Avl, AvlFault, Element, View};
#[cfg(test)]
use alloc::collections::TryReserveError;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use pagefault_machine::VirtAddr;

/// A value that covers the addresses from its start up to, but not including, its end.
pub trait Region {
    /// The first address.
    fn start(&self) -> VirtAddr;

    /// The first address past the region.
    fn end(&self) -> VirtAddr;
}

/// A fault that [`RegionTree::check`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeFault {
    /// The tree itself is broken.
    Structure(AvlFault),
    /// The region that starts here is empty.
    Empty(VirtAddr),
    /// The region that starts here starts before the end of its predecessor.
    Overlap(VirtAddr),
}

/// Disjoint, non-empty regions in the order of their addresses.
///
/// Every search costs O(log n). The tree allocates only in [`RegionTree::reserve`] and, beyond what
/// was reserved or used before, in [`RegionTree::insert`].
pub struct RegionTree<R: Region> {
    tree: Avl<R>,
    /// The index of the region that [`containing`](Self::containing) found last: the next address
    /// is usually in it too. It is only a hint, and verified before use.
    recent: AtomicU32,
}

impl<R: Region> Default for RegionTree<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Region> RegionTree<R> {
    /// No regions; allocates nothing.
    pub const fn new() -> Self {
        Self { tree: Avl::new(), recent: AtomicU32::new(0) }
    }

    /// The number of regions (Linux: `map_count`).
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there is no region.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.tree.len() == 0
    }

    /// Makes room for `additional` regions, so that as many insertions do not allocate.
    #[cfg(test)]
    pub fn reserve(&mut self, additional: usize) -> Result<(), TryReserveError> {
        self.tree.reserve(additional)
    }

    /// The first region that ends above `address`: it contains the address or is the next after it
    /// (Linux: `find_vma`, spec A13).
    pub fn find(&self, address: VirtAddr) -> Option<&R> {
        self.search(address).map(|(_, region)| region)
    }

    /// Like [`find`](Self::find), with the region's place in the tree.
    fn search(&self, address: VirtAddr) -> Option<(u32, &R)> {
        let mut best = None;
        let mut at = self.tree.root();
        while let Some(view) = at {
            if view.element().end() <= address {
                at = view.right();
            } else {
                best = Some((view.index(), view.element()));
                at = if view.element().start() <= address { None } else { view.left() };
            }
        }
        best
    }

    /// Calls `f` with every region that [`find`](Self::find) looks at, in that order.
    pub fn visit(&self, address: VirtAddr, mut f: impl FnMut(&R)) {
        let mut at = self.tree.root();
        while let Some(view) = at {
            f(view.element());
            at = match view.element().end() <= address {
                true => view.right(),
                false if view.element().start() <= address => None,
                false => view.left(),
            };
        }
    }

    /// The region that contains `address`.
    #[inline]
    pub fn containing(&self, address: VirtAddr) -> Option<&R> {
        let recent = self.tree.element(self.recent.load(Ordering::Relaxed));
        match recent.filter(|region| region.start() <= address && address < region.end()) {
            Some(region) => Some(region),
            None => self.search_containing(address),
        }
    }

    fn search_containing(&self, address: VirtAddr) -> Option<&R> {
        let (at, region) = self.search(address)?;
        if region.start() > address {
            return None;
        }
        self.recent.store(at, Ordering::Relaxed);
        Some(region)
    }

    /// The last region that ends at or below `address`.
    pub fn previous(&self, address: VirtAddr) -> Option<&R> {
        self.last_where(|region| region.end() <= address)
    }

    /// Whether no region overlaps `range`.
    pub fn is_free(&self, range: Range<VirtAddr>) -> bool {
        range.is_empty() || self.find(range.start).is_none_or(|region| region.start() >= range.end)
    }

    /// The regions in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &R> {
        self.tree.scan(|_| true)
    }

    /// The regions that overlap `range` in ascending order; O(log n) and the regions found.
    pub fn overlapping(&self, range: Range<VirtAddr>) -> impl Iterator<Item = &R> {
        // An empty range may still be asked for: it overlaps nothing.
        let Range { start, end } = range;
        let within = move |from: VirtAddr, to: VirtAddr| start < end && from < end && to > start;
        self.tree
            .scan(move |extent| within(extent.start, extent.end))
            .filter(move |region| within(region.start(), region.end()))
    }

    /// Adds a region, or returns it if it is empty or overlaps another.
    pub fn insert(&mut self, region: R) -> Result<(), R> {
        if region.start() >= region.end() || !self.is_free(region.start()..region.end()) {
            return Err(region);
        }
        self.tree.insert(region)
    }

    /// Takes out the region that starts at `start`.
    pub fn remove(&mut self, start: VirtAddr) -> Option<R> {
        self.tree.remove(start)
    }

    /// Replaces the region that starts at `start` by `region`, and returns the old one.
    ///
    /// This is how a region grows, shrinks or changes. If no region starts at `start`, or if the
    /// new one is empty or overlaps a neighbour of the old one, returns the new one and changes
    /// nothing. Never allocates.
    #[cfg(test)]
    pub fn replace(&mut self, start: VirtAddr, region: R) -> Result<R, R> {
        let Some(old) = self.containing(start).filter(|old| old.start() == start) else {
            return Err(region);
        };
        let floor = self.previous(start).map_or(VirtAddr::ZERO, R::end);
        let ceiling = self.find(old.end()).map_or(VirtAddr(u64::MAX), R::start);
        if region.start() >= region.end() || region.start() < floor || region.end() > ceiling {
            return Err(region);
        }
        self.tree.replace(start, region)
    }

    /// The lowest address in `range` from which `len` bytes within the range are free.
    ///
    /// Linux's bottom-up search (spec C8). `None` if there is no such address or `len` is 0.
    pub fn lowest_gap(&self, len: u64, range: Range<VirtAddr>) -> Option<VirtAddr> {
        let fits = |start: VirtAddr, ceiling: VirtAddr| {
            len > 0 && start.checked_add(len).is_some_and(|end| end <= ceiling)
        };
        let Some(first) = self.find(range.start) else {
            return fits(range.start, range.end).then_some(range.start);
        };
        if fits(range.start, range.end.min(first.start())) {
            return Some(range.start);
        }
        let root = self.tree.root()?;
        let start = lowest_gap_from(root, first.end(), len).unwrap_or_else(|| root.summary().end);
        fits(start, range.end).then_some(start)
    }

    /// The highest address in `range` from which `len` bytes within the range are free.
    ///
    /// Linux's top-down search (spec C8). `None` if there is no such address or `len` is 0.
    pub fn highest_gap(&self, len: u64, range: Range<VirtAddr>) -> Option<VirtAddr> {
        let fit = |floor: VirtAddr, end: VirtAddr| {
            let start = VirtAddr(end.value().checked_sub(len)?);
            (len > 0 && start >= floor).then_some(start)
        };
        let Some(last) = self.last_where(|region| region.start() < range.end) else {
            return fit(range.start, range.end);
        };
        let top = fit(range.start.max(last.end()), range.end);
        if top.is_some() {
            return top;
        }
        let root = self.tree.root()?;
        let end = highest_gap_to(root, last.start(), len).unwrap_or_else(|| root.summary().start);
        fit(range.start, end)
    }

    /// Walks the whole tree: sorted, disjoint, balanced, summaries right (spec I9).
    pub fn check(&self) -> Result<(), TreeFault> {
        let mut floor = VirtAddr::ZERO;
        for region in self.iter() {
            if region.start() >= region.end() {
                return Err(TreeFault::Empty(region.start()));
            }
            if region.start() < floor {
                return Err(TreeFault::Overlap(region.start()));
            }
            floor = region.end();
        }
        self.tree.check().map_err(TreeFault::Structure)
    }

    /// The last region for which `holds` is true; it must also be true for all regions before that
    /// one.
    fn last_where(&self, holds: impl Fn(&R) -> bool) -> Option<&R> {
        let mut best = None;
        let mut at = self.tree.root();
        while let Some(view) = at {
            if holds(view.element()) {
                best = Some(view.element());
                at = view.right();
            } else {
                at = view.left();
            }
        }
        best
    }
}

/// The start of the lowest gap of at least `len` bytes between two regions of a subtree that starts
/// at or above `from`.
///
/// O(log n): the search enters a subtree wholly above `from` only if it has such a gap, and only
/// one path leads through subtrees partly above.
fn lowest_gap_from<R: Region>(at: View<'_, R>, from: VirtAddr, len: u64) -> Option<VirtAddr> {
    let Extent { end, gap, .. } = at.summary();
    if gap < len || end <= from {
        return None;
    }
    let wide = |start: VirtAddr, end: VirtAddr| start >= from && end - start >= len;
    if let Some(left) = at.left() {
        let found = lowest_gap_from(left, from, len);
        if found.is_some() {
            return found;
        }
        let start = left.summary().end;
        if wide(start, at.element().start()) {
            return Some(start);
        }
    }
    let right = at.right()?;
    let start = at.element().end();
    if wide(start, right.summary().start) {
        return Some(start);
    }
    lowest_gap_from(right, from, len)
}

/// The end of the highest gap of at least `len` bytes between two regions of a subtree that ends at
/// or below `to`; the mirror image of [`lowest_gap_from`].
fn highest_gap_to<R: Region>(at: View<'_, R>, to: VirtAddr, len: u64) -> Option<VirtAddr> {
    let Extent { start, gap, .. } = at.summary();
    if gap < len || start >= to {
        return None;
    }
    let wide = |start: VirtAddr, end: VirtAddr| end <= to && end - start >= len;
    if let Some(right) = at.right() {
        let found = highest_gap_to(right, to, len);
        if found.is_some() {
            return found;
        }
        let end = right.summary().start;
        if wide(at.element().end(), end) {
            return Some(end);
        }
    }
    let left = at.left()?;
    let end = at.element().start();
    if wide(left.summary().end, end) {
        return Some(end);
    }
    highest_gap_to(left, to, len)
}

/// What a node knows of the regions in its subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The start of the first region.
    start: VirtAddr,
    /// The end of the last region.
    end: VirtAddr,
    /// The size in bytes of the largest gap between two of the regions; 0 without one.
    gap: u64,
}

impl<R: Region> Element for R {
    type Key = VirtAddr;
    type Summary = Extent;

    fn key(&self) -> VirtAddr {
        self.start()
    }

    fn summary(&self, left: Option<Extent>, right: Option<Extent>) -> Extent {
        let before = left.map_or(0, |left| left.gap.max(self.start() - left.end));
        let after = right.map_or(0, |right| right.gap.max(right.start - self.end()));
        Extent {
            start: left.map_or(self.start(), |left| left.start),
            end: right.map_or(self.end(), |right| right.end),
            gap: before.max(after),
        }
    }
}

#[cfg(test)]
mod tests;
