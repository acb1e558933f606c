//! The interval tree against a list.

use super::{Interval, IntervalTree};
use core::ops::Range;
use proptest::prelude::*;
use std::vec::Vec;

fn ids<'a>(found: impl Iterator<Item = &'a Interval<u8>>) -> Vec<u64> {
    found.map(|interval| interval.id).collect()
}

#[test]
fn equal_ranges_are_told_apart_by_their_ids() {
    let mut tree = IntervalTree::new();
    tree.insert(5..10, 2, b'b').unwrap();
    tree.insert(5..10, 1, b'a').unwrap();
    tree.insert(0..u64::MAX, 3, b'c').unwrap();
    assert_eq!(tree.insert(5..7, 2, b'd'), Err(b'd'));
    assert_eq!(tree.insert(8..8, 9, b'e'), Err(b'e'));
    assert_eq!(ids(tree.stabbing(9)), [3, 1, 2]);
    assert_eq!(ids(tree.stabbing(10)), [3]);
    assert_eq!(tree.remove(5, 2), Some(b'b'));
    assert_eq!(tree.remove(5, 2), None);
    assert_eq!(tree.remove(0, 1), None);
    assert_eq!(ids(tree.iter()), [3, 1]);
    assert_eq!(tree.check(), Ok(()));
}

#[test]
fn the_last_index_and_empty_ranges_are_no_exceptions() {
    let mut tree = IntervalTree::new();
    tree.insert(u64::MAX - 1..u64::MAX, 1, 0).unwrap();
    tree.insert(0..1, 2, 0).unwrap();
    assert_eq!(ids(tree.stabbing(u64::MAX - 1)), [1]);
    assert_eq!(ids(tree.stabbing(u64::MAX)), [0_u64; 0]);
    assert_eq!(ids(tree.overlapping(0..u64::MAX)), [2, 1]);
    assert_eq!(ids(tree.overlapping(0..0)), [0_u64; 0]);
    assert_eq!(ids(tree.overlapping(Range { start: 5, end: 0 })), [0_u64; 0]);
}

#[test]
fn entries_within_the_room_reserved_do_not_move_the_tree() {
    let mut tree = IntervalTree::new();
    tree.reserve(100).unwrap();
    tree.insert(0..1, 0, 0u8).unwrap();
    let place = core::ptr::from_ref(tree.iter().next().unwrap());
    for id in 1..100 {
        tree.insert(0..id, id, 0).unwrap();
    }
    assert_eq!(core::ptr::from_ref(tree.iter().next().unwrap()), place);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Range<u64>, u64),
    Remove(usize),
    Look(Range<u64>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || (0u64..100, 0u64..40).prop_map(|(start, len)| start..start + len);
    let step = prop_oneof![
        4 => (range(), 0u64..4).prop_map(|(range, id)| Step::Insert(range, id)),
        2 => any::<usize>().prop_map(Step::Remove),
        3 => range().prop_map(Step::Look),
    ];
    prop::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_tree_agrees_with_a_list(steps in steps()) {
        let mut tree = IntervalTree::new();
        let mut list: Vec<Interval<usize>> = Vec::new();
        for (value, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(range, id) => {
                    let taken = list.iter().any(|it| (it.range.start, it.id) == (range.start, id));
                    let allowed = !taken && !range.is_empty();
                    let result = tree.insert(range.clone(), id, value);
                    prop_assert_eq!(result, if allowed { Ok(()) } else { Err(value) });
                    if allowed {
                        list.push(Interval { range, id, value });
                        list.sort_by_key(|it| (it.range.start, it.id));
                    }
                }
                Step::Remove(nth) if list.is_empty() => {
                    prop_assert_eq!(tree.remove(nth as u64, 0), None);
                }
                Step::Remove(nth) => {
                    let gone = list.remove(nth % list.len());
                    prop_assert_eq!(tree.remove(gone.range.start, gone.id), Some(gone.value));
                }
                Step::Look(range) => {
                    let index = range.start;
                    let stabbed = list.iter().filter(|it| it.range.contains(&index));
                    prop_assert!(tree.stabbing(index).eq(stabbed));
                    let meets = |it: &&Interval<usize>| range.clone().any(|i| it.range.contains(&i));
                    prop_assert!(tree.overlapping(range.clone()).eq(list.iter().filter(meets)));
                }
            }
            prop_assert_eq!(tree.check(), Ok(()));
            prop_assert_eq!(tree.len(), list.len());
            prop_assert_eq!(tree.is_empty(), list.is_empty());
        }
        prop_assert!(tree.iter().eq(list.iter()));
    }
}
