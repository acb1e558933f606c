//! The region tree against a sorted map, and each promise of its searches by example.

use super::{Region, RegionTree};
use core::ops::Range;
use pagefault_machine::VirtAddr;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec::Vec;

/// A region of the test: bounds, and a mark that distinguishes equal ones.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    range: Range<u64>,
    mark: u32,
}

impl Region for Span {
    fn start(&self) -> VirtAddr {
        VirtAddr(self.range.start)
    }

    fn end(&self) -> VirtAddr {
        VirtAddr(self.range.end)
    }
}

fn span(range: Range<u64>) -> Span {
    Span { range, mark: 0 }
}

fn addresses(range: &Range<u64>) -> Range<VirtAddr> {
    VirtAddr(range.start)..VirtAddr(range.end)
}

fn tree_of(ranges: &[(u64, u64)]) -> RegionTree<Span> {
    let mut tree = RegionTree::new();
    for &(start, end) in ranges {
        tree.insert(span(start..end)).unwrap();
    }
    tree.check().unwrap();
    tree
}

#[test]
fn what_was_found_last_is_not_believed_after_a_change() {
    let mut tree = tree_of(&[(10, 20), (20, 40), (50, 60)]);
    let start = |tree: &RegionTree<Span>, address| {
        tree.containing(VirtAddr(address)).map(|found| found.range.start)
    };
    assert_eq!(start(&tree, 30), Some(20));
    assert_eq!(start(&tree, 39), Some(20));
    // Another region takes its place in the arena, and others divide its addresses.
    tree.remove(VirtAddr(20)).unwrap();
    assert_eq!(start(&tree, 30), None);
    tree.insert(span(25..35)).unwrap();
    assert_eq!(start(&tree, 30), Some(25));
    assert_eq!(start(&tree, 20), None);
    assert_eq!(start(&tree, 35), None);
    assert_eq!(start(&tree, 55), Some(50));
    tree.remove(VirtAddr(10)).unwrap();
    tree.remove(VirtAddr(25)).unwrap();
    tree.remove(VirtAddr(50)).unwrap();
    assert_eq!(start(&tree, 55), None);
}

#[test]
fn find_gives_the_region_at_an_address_or_the_next_above() {
    let tree = tree_of(&[(20, 30), (40, 50), (50, 60)]);
    let find = |address| tree.find(VirtAddr(address)).map(|found| found.range.start);
    assert_eq!(find(0), Some(20));
    assert_eq!(find(29), Some(20));
    assert_eq!(find(30), Some(40));
    assert_eq!(find(50), Some(50));
    assert_eq!(find(60), None);
    assert!(tree.containing(VirtAddr(30)).is_none());
    assert_eq!(tree.containing(VirtAddr(49)), Some(&span(40..50)));
    assert_eq!(tree.previous(VirtAddr(29)), None);
    assert_eq!(tree.previous(VirtAddr(30)), Some(&span(20..30)));
    assert_eq!(tree.previous(VirtAddr(59)), Some(&span(40..50)));
}

#[test]
fn empty_and_overlapping_regions_come_back_and_change_nothing() {
    let mut tree = tree_of(&[(20, 30)]);
    let refused = [(10, 10), (5, 4), (10, 21), (29, 31), (22, 23), (20, 30), (0, 100)];
    for refused in refused.map(|(start, end)| Range { start, end }) {
        assert_eq!(tree.insert(span(refused.clone())), Err(span(refused)));
        tree.check().unwrap();
        assert_eq!(tree.len(), 1);
    }
    tree.insert(span(10..20)).unwrap();
    tree.insert(span(30..40)).unwrap();
    assert_eq!(tree.len(), 3);
}

#[test]
fn a_region_is_replaced_by_one_between_its_neighbours() {
    let mut tree = tree_of(&[(10, 20), (30, 40), (50, 60)]);
    let mut replace = |start, range: Range<u64>| {
        let result = tree.replace(VirtAddr(start), span(range));
        tree.check().unwrap();
        result
    };
    assert_eq!(replace(30, 20..50), Ok(span(30..40)));
    assert_eq!(replace(20, 19..50), Err(span(19..50)));
    assert_eq!(replace(20, 20..51), Err(span(20..51)));
    assert_eq!(replace(20, 25..25), Err(span(25..25)));
    assert_eq!(replace(21, 25..26), Err(span(25..26)));
    assert_eq!(replace(20, 44..45), Ok(span(20..50)));
    assert_eq!(replace(50, 46..u64::MAX), Ok(span(50..60)));
    assert_eq!(replace(10, 0..44), Ok(span(10..20)));
}

#[test]
fn gaps_are_found_from_either_side() {
    let tree = tree_of(&[(10, 20), (30, 40), (45, 60)]);
    let lowest = |len, range| tree.lowest_gap(len, addresses(&range)).map(VirtAddr::value);
    let highest = |len, range| tree.highest_gap(len, addresses(&range)).map(VirtAddr::value);
    assert_eq!(lowest(10, 0..100), Some(0));
    assert_eq!(lowest(10, 1..100), Some(20));
    assert_eq!(lowest(5, 22..100), Some(22));
    assert_eq!(lowest(5, 26..100), Some(40));
    assert_eq!(lowest(11, 0..100), Some(60));
    assert_eq!(lowest(11, 0..70), None);
    assert_eq!(highest(10, 0..100), Some(90));
    assert_eq!(highest(10, 0..60), Some(20));
    assert_eq!(highest(5, 0..64), Some(40));
    assert_eq!(highest(4, 0..44), Some(40));
    assert_eq!(highest(10, 0..29), Some(0));
    assert_eq!(highest(10, 1..29), None);
    for len in [0, 1000, u64::MAX] {
        assert_eq!(lowest(len, 0..100), None);
        assert_eq!(highest(len, 0..100), None);
    }
    let reversed = Range { start: 90, end: 80 };
    assert_eq!(lowest(1, reversed.clone()), None);
    assert_eq!(highest(1, reversed), None);
}

#[test]
fn gaps_reach_to_both_ends_of_the_numbers() {
    let tree = tree_of(&[(10, 20)]);
    let all = 0..u64::MAX;
    assert_eq!(tree.highest_gap(5, addresses(&all)), Some(VirtAddr(u64::MAX - 5)));
    assert_eq!(tree.lowest_gap(u64::MAX - 20, addresses(&all)), Some(VirtAddr(20)));
    assert_eq!(tree.lowest_gap(u64::MAX - 19, addresses(&all)), None);
    let empty = RegionTree::<Span>::new();
    assert_eq!(empty.lowest_gap(u64::MAX, addresses(&all)), Some(VirtAddr(0)));
    assert_eq!(empty.highest_gap(u64::MAX, addresses(&all)), Some(VirtAddr(0)));
}

#[test]
fn insertions_within_the_room_reserved_do_not_move_the_tree() {
    let mut tree = RegionTree::new();
    tree.reserve(1000).unwrap();
    tree.insert(span(0..1)).unwrap();
    let place = core::ptr::from_ref(tree.find(VirtAddr(0)).unwrap());
    for i in 1..1000 {
        tree.insert(span(2 * i..2 * i + 1)).unwrap();
    }
    assert_eq!(core::ptr::from_ref(tree.find(VirtAddr(0)).unwrap()), place);
    assert!(tree.reserve(usize::MAX).is_err());
}

#[test]
fn sequences_that_unbalance_a_plain_tree_do_not_unbalance_this_one() {
    let orders: [fn(u64) -> u64; 3] = [|i| i, |i| 4095 - i, |i| (i * 1657) % 4096];
    for order in orders {
        let mut tree = RegionTree::new();
        for i in 0..4096 {
            let start = order(i) * 2;
            tree.insert(span(start..start + 1)).unwrap();
            if i % 64 == 0 {
                tree.check().unwrap();
            }
        }
        for i in 0..4096 {
            let start = order(4095 - i) * 2;
            assert_eq!(tree.remove(VirtAddr(start)), Some(span(start..start + 1)));
            if i % 64 == 0 {
                tree.check().unwrap();
            }
        }
        assert!(tree.is_empty());
    }
}

/// The same searches in the simplest way.
#[derive(Default)]
struct Model {
    regions: BTreeMap<u64, Span>,
}

impl Model {
    fn overlapping(&self, range: &Range<u64>) -> Vec<&Span> {
        let meets = |span: &&Span| {
            !range.is_empty() && span.range.start < range.end && span.range.end > range.start
        };
        self.regions.values().filter(meets).collect()
    }

    fn is_free(&self, range: &Range<u64>) -> bool {
        self.overlapping(range).is_empty()
    }

    /// Every address in `range` from which `len` bytes are free.
    fn gaps(&self, len: u64, range: &Range<u64>) -> Vec<u64> {
        let fits = |start: &u64| len > 0 && start + len <= range.end;
        range.clone().filter(fits).filter(|start| self.is_free(&(*start..start + len))).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Range<u64>),
    Remove(usize),
    Replace(usize, Range<u64>),
    Look(u64, Range<u64>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || (0u64..300, 0u64..20).prop_map(|(start, len)| start..start + len);
    let step = prop_oneof![
        4 => range().prop_map(Step::Insert),
        2 => any::<usize>().prop_map(Step::Remove),
        1 => (any::<usize>(), range()).prop_map(|(nth, range)| Step::Replace(nth, range)),
        3 => (0u64..40, 0u64..330, 0u64..330).prop_map(|(len, a, b)| Step::Look(len, a..b)),
    ];
    prop::collection::vec(step, 1..150)
}

fn start_of_nth(model: &Model, nth: usize) -> u64 {
    let count = model.regions.len().max(1);
    model.regions.keys().nth(nth % count).copied().unwrap_or(7)
}

fn insert(tree: &mut RegionTree<Span>, model: &mut Model, new: Span) {
    let allowed = !new.range.is_empty() && model.is_free(&new.range);
    assert_eq!(tree.insert(new.clone()), if allowed { Ok(()) } else { Err(new.clone()) });
    if allowed {
        model.regions.insert(new.range.start, new);
    }
}

fn replace(tree: &mut RegionTree<Span>, model: &mut Model, start: u64, new: Span) {
    let old = model.regions.remove(&start);
    let floor = model.regions.range(..start).next_back().map_or(0, |(_, span)| span.range.end);
    let ceiling = model.regions.range(start..).next().map_or(u64::MAX, |(next, _)| *next);
    let fits = !new.range.is_empty() && floor <= new.range.start && new.range.end <= ceiling;
    let result = tree.replace(VirtAddr(start), new.clone());
    match old {
        Some(old) if fits => {
            assert_eq!(result, Ok(old));
            model.regions.insert(new.range.start, new);
        }
        old => {
            assert_eq!(result, Err(new));
            model.regions.extend(old.map(|old| (start, old)));
        }
    }
}

fn look(tree: &RegionTree<Span>, model: &Model, len: u64, range: &Range<u64>) {
    let Range { start, end } = *range;
    let values = || model.regions.values();
    assert_eq!(tree.find(VirtAddr(start)), values().find(|span| span.range.end > start));
    assert_eq!(tree.previous(VirtAddr(start)), values().rfind(|span| span.range.end <= start));
    let within = tree.containing(VirtAddr(start));
    assert_eq!(within, values().find(|span| span.range.contains(&start)));
    let found: Vec<_> = tree.overlapping(addresses(range)).collect();
    assert_eq!(found, model.overlapping(range));
    assert_eq!(tree.is_free(addresses(range)), model.is_free(range));
    let gaps = model.gaps(len, range);
    let at = |gap: Option<&u64>| gap.copied().map(VirtAddr);
    assert_eq!(tree.lowest_gap(len, VirtAddr(start)..VirtAddr(end)), at(gaps.first()));
    assert_eq!(tree.highest_gap(len, VirtAddr(start)..VirtAddr(end)), at(gaps.last()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_tree_agrees_with_a_sorted_map(steps in steps()) {
        let (mut tree, mut model) = (RegionTree::new(), Model::default());
        for (mark, step) in (0..).zip(steps) {
            match step {
                Step::Insert(range) => insert(&mut tree, &mut model, Span { range, mark }),
                Step::Remove(nth) => {
                    let start = start_of_nth(&model, nth);
                    prop_assert_eq!(tree.remove(VirtAddr(start)), model.regions.remove(&start));
                }
                Step::Replace(nth, range) => {
                    let start = start_of_nth(&model, nth);
                    replace(&mut tree, &mut model, start, Span { range, mark });
                }
                Step::Look(len, range) => look(&tree, &model, len, &range),
            }
            prop_assert_eq!(tree.check(), Ok(()));
            prop_assert_eq!(tree.len(), model.regions.len());
        }
        prop_assert!(tree.iter().eq(model.regions.values()));
    }
}
