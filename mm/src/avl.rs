//! An AVL tree in an arena, each node with a summary of its subtree.
//!
//! The address space's [`RegionTree`](crate::tree::RegionTree) and the reverse maps'
//! [`IntervalTree`](crate::interval::IntervalTree) are this tree with different elements. AVL rather
//! than red-black: lookups, which every fault makes, descend at most 1.44 · log₂ n levels (spec C4).
//!
//! Nodes are elements of one [`Arena`] and name each other by index. The arena has no holes: a
//! removal moves the last node into the gap. A tree that once had `n` elements, or room reserved
//! for them, takes `n` elements again without allocating. The arena grows by pieces of a few
//! kilobytes, so that a large tree needs no large block of memory.

mod arena;

#[cfg(test)]
use alloc::collections::TryReserveError;
use arena::Arena;
use core::cmp::Ordering;

/// What an [`Avl`] holds: something with a place in the order and a summary for its subtree.
pub trait Element {
    /// The key that orders elements; unique in a tree.
    type Key: Ord + Copy;
    /// What a node knows of its whole subtree, so that searches can skip the subtree.
    type Summary: Copy + PartialEq;

    /// The element's place in the order.
    fn key(&self) -> Self::Key;

    /// The summary of the subtree of which this element is the root.
    fn summary(&self, left: Option<Self::Summary>, right: Option<Self::Summary>) -> Self::Summary;
}

/// A fault that [`Avl::check`] found in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AvlFault {
    /// An element stands before one with a smaller or equal key.
    Unsorted,
    /// The heights of two siblings differ by more than 1 (spec C4).
    Unbalanced,
    /// A node's height is not one more than its higher child's.
    WrongHeight,
    /// A node's summary does not match its subtree.
    WrongSummary,
    /// The root does not reach every node of the arena exactly once.
    Unreachable,
}

/// A balanced search tree whose nodes summarise their subtrees.
pub struct Avl<T: Element> {
    nodes: Arena<Node<T>>,
    root: u32,
}

struct Node<T: Element> {
    element: T,
    summary: T::Summary,
    links: Links,
}

#[derive(Clone, Copy)]
struct Links {
    left: u32,
    right: u32,
    /// 1 for a leaf.
    height: u8,
}

/// Stands for no node.
const NONE: u32 = u32::MAX;

impl<T: Element> Avl<T> {
    /// An empty tree; allocates nothing.
    pub const fn new() -> Self {
        Self { nodes: Arena::new(), root: NONE }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Makes room for `additional` elements, so that as many insertions do not allocate.
    #[cfg(test)]
    pub fn reserve(&mut self, additional: usize) -> Result<(), TryReserveError> {
        self.nodes.reserve(additional)
    }

    /// The root, from which a search descends.
    pub fn root(&self) -> Option<View<'_, T>> {
        self.view(self.root)
    }

    /// The element at an index, if there is one; another may be there after the next change.
    #[inline]
    pub fn element(&self, index: u32) -> Option<&T> {
        self.nodes.get(index as usize).map(|node| &node.element)
    }

    /// The elements in ascending order, without the subtrees whose summary is not `wanted`.
    pub fn scan<P: Fn(&T::Summary) -> bool>(&self, wanted: P) -> Scan<'_, T, P> {
        let mut scan = Scan { tree: self, path: Path::new(), wanted };
        scan.descend(self.root);
        scan
    }

    /// Adds an element, or gives it back if there is one with the same key or no index left.
    pub fn insert(&mut self, element: T) -> Result<(), T> {
        if self.nodes.len() >= NONE as usize {
            return Err(element);
        }
        let key = element.key();
        let mut path = Path::new();
        let mut at = self.root;
        while at != NONE {
            path.push(at);
            at = match key.cmp(&self.key(at)) {
                Ordering::Less => self.links(at).left,
                Ordering::Greater => self.links(at).right,
                Ordering::Equal => return Err(element),
            };
        }
        let new = self.nodes.len() as u32;
        let summary = element.summary(None, None);
        let links = Links { left: NONE, right: NONE, height: 1 };
        self.nodes.push(Node { element, summary, links });
        match path.last() {
            None => self.root = new,
            Some(parent) if key < self.key(parent) => self.links_mut(parent).left = new,
            Some(parent) => self.links_mut(parent).right = new,
        }
        self.rebalance(path);
        Ok(())
    }

    /// Takes out the element with this key.
    pub fn remove(&mut self, key: T::Key) -> Option<T> {
        let mut path = self.path_to(key)?;
        let target = path.last()?;
        let Links { left, right, .. } = self.links(target);
        if left != NONE && right != NONE {
            // The next element has no left child: it moves here, and its node goes instead.
            let mut at = right;
            while at != NONE {
                path.push(at);
                at = self.links(at).left;
            }
            self.exchange_elements(target, path.last()?);
        }
        let gone = path.pop()?;
        let Links { left, right, .. } = self.links(gone);
        self.relink(path.last(), gone, if left != NONE { left } else { right });
        self.rebalance(path);
        Some(self.take(gone))
    }

    /// Puts `element` in the place of the one with this key, which is returned.
    ///
    /// The key may change as long as the order does not: the new element must stand between the
    /// neighbours of the old one. Without an element to replace, the new one is given back.
    #[cfg(test)]
    pub fn replace(&mut self, key: T::Key, element: T) -> Result<T, T> {
        let Some(path) = self.path_to(key) else { return Err(element) };
        let Some(target) = path.last() else { return Err(element) };
        let old = core::mem::replace(&mut self.nodes[target as usize].element, element);
        self.rebalance(path);
        Ok(old)
    }

    /// Walks the whole tree and reports the first fault, if any.
    pub fn check(&self) -> Result<(), AvlFault> {
        let mut last = None;
        let mut reached = 0;
        self.check_subtree(self.root, &mut last, &mut reached)?;
        if reached == self.nodes.len() { Ok(()) } else { Err(AvlFault::Unreachable) }
    }

    fn check_subtree(
        &self,
        at: u32,
        last: &mut Option<T::Key>,
        reached: &mut usize,
    ) -> Result<(), AvlFault> {
        if at == NONE {
            return Ok(());
        }
        // A cycle would reach more nodes than there are.
        *reached += 1;
        if *reached > self.nodes.len() || at as usize >= self.nodes.len() {
            return Err(AvlFault::Unreachable);
        }
        let Links { left, right, height } = self.links(at);
        self.check_subtree(left, last, reached)?;
        if last.is_some_and(|last| last >= self.key(at)) {
            return Err(AvlFault::Unsorted);
        }
        *last = Some(self.key(at));
        self.check_subtree(right, last, reached)?;
        if self.height(left).abs_diff(self.height(right)) > 1 {
            return Err(AvlFault::Unbalanced);
        }
        if height != 1 + self.height(left).max(self.height(right)) {
            return Err(AvlFault::WrongHeight);
        }
        if self.nodes[at as usize].summary != self.summary_of(at) {
            return Err(AvlFault::WrongSummary);
        }
        Ok(())
    }

    /// The nodes from the root to the one with this key.
    fn path_to(&self, key: T::Key) -> Option<Path> {
        let mut path = Path::new();
        let mut at = self.root;
        while at != NONE {
            path.push(at);
            at = match key.cmp(&self.key(at)) {
                Ordering::Less => self.links(at).left,
                Ordering::Greater => self.links(at).right,
                Ordering::Equal => return Some(path),
            };
        }
        None
    }

    /// Restores balance, heights and summaries along a path, from its end up to the root.
    fn rebalance(&mut self, mut path: Path) {
        while let Some(at) = path.pop() {
            let top = self.balance(at);
            self.relink(path.last(), at, top);
        }
    }

    /// Restores one node, whose subtrees are in order, and returns the root of what was its subtree.
    fn balance(&mut self, at: u32) -> u32 {
        let Links { left, right, .. } = self.links(at);
        if self.height(left) > self.height(right) + 1 {
            let inner = self.links(left);
            if self.height(inner.left) < self.height(inner.right) {
                self.links_mut(at).left = self.rotate_left(left);
            }
            self.rotate_right(at)
        } else if self.height(right) > self.height(left) + 1 {
            let inner = self.links(right);
            if self.height(inner.right) < self.height(inner.left) {
                self.links_mut(at).right = self.rotate_right(right);
            }
            self.rotate_left(at)
        } else {
            self.refresh(at);
            at
        }
    }

    /// Makes the left child of `at` its parent; returns that child.
    fn rotate_right(&mut self, at: u32) -> u32 {
        let pivot = self.links(at).left;
        self.links_mut(at).left = self.links(pivot).right;
        self.links_mut(pivot).right = at;
        self.refresh(at);
        self.refresh(pivot);
        pivot
    }

    /// Makes the right child of `at` its parent; returns that child.
    fn rotate_left(&mut self, at: u32) -> u32 {
        let pivot = self.links(at).right;
        self.links_mut(at).right = self.links(pivot).left;
        self.links_mut(pivot).left = at;
        self.refresh(at);
        self.refresh(pivot);
        pivot
    }

    /// Recomputes a node's height and summary from its children's.
    fn refresh(&mut self, at: u32) {
        let Links { left, right, .. } = self.links(at);
        let height = 1 + self.height(left).max(self.height(right));
        let summary = self.summary_of(at);
        let node = &mut self.nodes[at as usize];
        node.links.height = height;
        node.summary = summary;
    }

    fn summary_of(&self, at: u32) -> T::Summary {
        let Links { left, right, .. } = self.links(at);
        let summary = |child| self.view(child).map(|view| view.summary());
        self.nodes[at as usize].element.summary(summary(left), summary(right))
    }

    /// Makes `parent`, or the root, name `new` instead of `old`.
    fn relink(&mut self, parent: Option<u32>, old: u32, new: u32) {
        match parent {
            None => self.root = new,
            Some(parent) => {
                let links = self.links_mut(parent);
                if links.left == old {
                    links.left = new;
                } else {
                    links.right = new;
                }
            }
        }
    }

    /// Exchanges the elements of two nodes and leaves their places in the tree.
    fn exchange_elements(&mut self, a: u32, b: u32) {
        let (links_a, links_b) = (self.links(a), self.links(b));
        self.nodes.swap(a as usize, b as usize);
        *self.links_mut(a) = links_a;
        *self.links_mut(b) = links_b;
    }

    /// Takes a node that nothing links to out of the arena and moves the last node to its place.
    fn take(&mut self, gone: u32) -> T {
        let last = (self.nodes.len() - 1) as u32;
        if gone != last {
            let mut parents = self.path_to(self.key(last)).unwrap_or(Path::new());
            parents.pop();
            self.relink(parents.last(), last, gone);
        }
        self.nodes.swap_remove(gone as usize).element
    }

    fn view(&self, index: u32) -> Option<View<'_, T>> {
        (index != NONE).then_some(View { tree: self, index })
    }

    fn key(&self, at: u32) -> T::Key {
        self.nodes[at as usize].element.key()
    }

    fn height(&self, at: u32) -> u8 {
        if at == NONE { 0 } else { self.links(at).height }
    }

    fn links(&self, at: u32) -> Links {
        self.nodes[at as usize].links
    }

    fn links_mut(&mut self, at: u32) -> &mut Links {
        &mut self.nodes[at as usize].links
    }
}

/// A node as a search sees it.
pub struct View<'a, T: Element> {
    tree: &'a Avl<T>,
    index: u32,
}

impl<T: Element> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Element> Copy for View<'_, T> {}

impl<'a, T: Element> View<'a, T> {
    /// Where the node is in its tree.
    pub fn index(self) -> u32 {
        self.index
    }

    /// The node's element.
    pub fn element(self) -> &'a T {
        &self.tree.nodes[self.index as usize].element
    }

    /// The summary of the node's subtree.
    pub fn summary(self) -> T::Summary {
        self.tree.nodes[self.index as usize].summary
    }

    /// The root of the subtree of smaller keys.
    pub fn left(self) -> Option<Self> {
        self.tree.view(self.tree.links(self.index).left)
    }

    /// The root of the subtree of larger keys.
    pub fn right(self) -> Option<Self> {
        self.tree.view(self.tree.links(self.index).right)
    }
}

/// The iterator of [`Avl::scan`].
pub struct Scan<'a, T: Element, P> {
    tree: &'a Avl<T>,
    /// The nodes yet to be visited before their right subtrees, the nearest last.
    path: Path,
    wanted: P,
}

impl<T: Element, P: Fn(&T::Summary) -> bool> Scan<'_, T, P> {
    fn descend(&mut self, mut at: u32) {
        while at != NONE && (self.wanted)(&self.tree.nodes[at as usize].summary) {
            self.path.push(at);
            at = self.tree.links(at).left;
        }
    }
}

impl<'a, T: Element, P: Fn(&T::Summary) -> bool> Iterator for Scan<'a, T, P> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        let at = self.path.pop()?;
        self.descend(self.tree.links(at).right);
        Some(&self.tree.nodes[at as usize].element)
    }
}

/// Nodes on the way down from the root.
struct Path {
    nodes: [u32; Self::LONGEST],
    len: usize,
}

impl Path {
    /// An AVL tree of 46 levels has at least F(48) − 1 = 4,807,526,975 nodes, more than there are
    /// indexes.
    const LONGEST: usize = 46;

    const fn new() -> Self {
        Self { nodes: [NONE; Self::LONGEST], len: 0 }
    }

    fn push(&mut self, node: u32) {
        self.nodes[self.len] = node;
        self.len += 1;
    }

    fn pop(&mut self) -> Option<u32> {
        let last = self.last()?;
        self.len -= 1;
        Some(last)
    }

    fn last(&self) -> Option<u32> {
        self.nodes[..self.len].last().copied()
    }
}

#[cfg(test)]
mod tests;
