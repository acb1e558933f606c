//! The walk over a tree finds every way in which the tree can be broken.

use super::{Avl, AvlFault, Element, NONE};

/// A number, summarised by the sum of its subtree.
impl Element for u32 {
    type Key = u32;
    type Summary = u32;

    fn key(&self) -> u32 {
        *self
    }

    fn summary(&self, left: Option<u32>, right: Option<u32>) -> u32 {
        self + left.unwrap_or(0) + right.unwrap_or(0)
    }
}

/// The numbers 0 to 6, with 3 at the root.
fn seven() -> Avl<u32> {
    let mut tree = Avl::new();
    for number in 0..7 {
        tree.insert(number).unwrap();
    }
    assert_eq!(tree.check(), Ok(()));
    assert_eq!(tree.root().map(|root| (*root.element(), root.summary())), Some((3, 21)));
    tree
}

#[test]
fn an_element_out_of_order_is_found() {
    let mut tree = seven();
    tree.replace(2, 4).unwrap();
    assert_eq!(tree.check(), Err(AvlFault::Unsorted));
}

#[test]
fn a_missing_subtree_is_found() {
    let mut tree = seven();
    let root = tree.root;
    tree.links_mut(root).left = NONE;
    assert_eq!(tree.check(), Err(AvlFault::Unbalanced));
    tree.root = NONE;
    assert_eq!(tree.check(), Err(AvlFault::Unreachable));
}

#[test]
fn a_cycle_is_found() {
    let mut tree = seven();
    let root = tree.root;
    let leaf = tree.path_to(6).and_then(|path| path.last()).unwrap();
    tree.links_mut(leaf).left = root;
    assert_eq!(tree.check(), Err(AvlFault::Unreachable));
    tree.links_mut(leaf).left = NONE;
    assert_eq!(tree.check(), Ok(()));
    let first = tree.path_to(0).and_then(|path| path.last()).unwrap();
    tree.links_mut(first).left = root;
    assert_eq!(tree.check(), Err(AvlFault::Unreachable));
}

#[test]
fn a_wrong_height_is_found() {
    let mut tree = seven();
    let root = tree.root;
    tree.links_mut(root).height = 4;
    assert_eq!(tree.check(), Err(AvlFault::WrongHeight));
}

#[test]
fn a_wrong_summary_is_found() {
    let mut tree = seven();
    let root = tree.root as usize;
    tree.nodes[root].summary = 20;
    assert_eq!(tree.check(), Err(AvlFault::WrongSummary));
}
