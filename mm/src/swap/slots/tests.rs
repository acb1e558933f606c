//! One area's slots: the rules of counting (spec F4) and of giving out (spec F5).

use super::{Dropped, FREEING, RESERVED, RUN, Room, STICKY, SlotError, Slots, SlotsFault};
use parking_lot::RawMutex;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::vec::Vec;

fn slots(len: u32, bad: &[u32]) -> Slots<RawMutex> {
    let slots = Slots::new(len, bad, Arc::new(Room::default())).unwrap();
    slots.open();
    slots
}

fn release(slots: &Slots<RawMutex>, slot: u32) -> Result<u32, SlotError> {
    match slots.drop_reference(slot)? {
        Dropped::Remaining(count) => Ok(count),
        Dropped::Last => {
            slots.free(slot);
            Ok(0)
        }
    }
}

fn take(slots: &Slots<RawMutex>, count: u32) -> Vec<u32> {
    (0..count).map_while(|_| slots.allocate()).collect()
}

#[test]
fn every_good_slot_is_given_out_once() {
    let slots = slots(10, &[3, 9, 77]);
    assert_eq!(slots.good(), 7);
    assert_eq!(take(&slots, 100), [1, 2, 4, 5, 6, 7, 8]);
    assert_eq!((slots.in_use(), slots.room.total(), slots.room.free()), (7, 7, 0));
    slots.check().unwrap();
    release(&slots, 5).unwrap();
    release(&slots, 2).unwrap();
    slots.check().unwrap();
    assert_eq!(slots.used().collect::<Vec<_>>(), [1, 4, 6, 7, 8]);
    let mut again = take(&slots, 100);
    again.sort_unstable();
    assert_eq!(again, [2, 5]);
    slots.check().unwrap();
}

#[test]
fn areas_too_small_for_a_slot_give_none() {
    for len in [0, 1] {
        let slots = slots(len, &[]);
        assert_eq!((slots.good(), slots.allocate()), (0, None));
        slots.check().unwrap();
    }
}

#[test]
fn counts_follow_the_references() {
    let slots = slots(4, &[2]);
    let slot = slots.allocate().unwrap();
    slots.duplicate(slot).unwrap();
    slots.duplicate(slot).unwrap();
    assert_eq!(slots.count(slot), 3);
    assert_eq!(release(&slots, slot), Ok(2));
    assert_eq!(release(&slots, slot), Ok(1));
    assert_eq!(release(&slots, slot), Ok(0));
    assert_eq!(slots.count(slot), 0);
    let wrong = [(slot, SlotError::Free), (0, SlotError::Bad), (2, SlotError::Bad)];
    for (slot, error) in wrong.into_iter().chain([(4, SlotError::Missing)]) {
        assert_eq!(slots.duplicate(slot), Err(error));
        assert_eq!(slots.drop_reference(slot), Err(error));
        assert_eq!(slots.count(slot), 0);
    }
    slots.check().unwrap();
}

#[test]
fn a_count_that_reaches_the_end_stays_there() {
    let slots = slots(2, &[]);
    let slot = slots.allocate().unwrap();
    slots.counts[slot as usize].store(STICKY - 1, Ordering::Relaxed);
    slots.duplicate(slot).unwrap();
    assert_eq!(slots.count(slot), STICKY);
    slots.duplicate(slot).unwrap();
    assert_eq!(release(&slots, slot), Ok(STICKY));
    assert_eq!(release(&slots, slot), Ok(STICKY));
    assert_eq!(slots.count(slot), STICKY);
    slots.check().unwrap();
}

#[test]
fn a_slot_being_discarded_is_neither_used_nor_given_out() {
    let slots = slots(2, &[]);
    let slot = slots.allocate().unwrap();
    assert_eq!(slots.drop_reference(slot), Ok(Dropped::Last));
    assert_eq!(slots.count(slot), 0);
    assert_eq!(slots.duplicate(slot), Err(SlotError::Free));
    assert_eq!(slots.drop_reference(slot), Err(SlotError::Free));
    assert_eq!(slots.allocate(), None);
    assert_eq!((slots.in_use(), slots.room.free()), (1, 0));
    assert_eq!(slots.check(), Err(SlotsFault::NotFreed(slot)));
    slots.free(slot);
    slots.free(slot);
    assert_eq!((slots.in_use(), slots.room.free()), (0, 1));
    assert_eq!(slots.allocate(), Some(slot));
    slots.free(slot);
    assert_eq!(slots.count(slot), 1);
}

#[test]
fn a_slot_that_is_not_written_yet_has_no_second_user() {
    let slots = slots(2, &[]);
    let reserve = || {
        let mut reserved = None;
        slots.reserve_some(1, |slot| reserved = Some(slot));
        reserved
    };
    assert_eq!(reserve(), Some(1));
    assert_eq!((slots.duplicate(1), slots.claim(1)), (Err(SlotError::Free), false));
    assert_eq!((slots.count(1), slots.in_use(), reserve()), (0, 1, None));
    assert_eq!(slots.used().next(), None);
    // The page was not written after all.
    assert_eq!(release(&slots, 1), Ok(0));
    slots.publish(1);
    assert_eq!(slots.count(1), 0);
    slots.check().unwrap();
    assert_eq!(reserve(), Some(1));
    slots.publish(1);
    assert!(slots.claim(1));
    slots.publish(1);
    assert_eq!(slots.count(1), 2);
}

#[test]
fn a_run_goes_on_behind_slots_freed_meanwhile() {
    let slots = slots(4 * RUN, &[]);
    assert_eq!(take(&slots, 10), (1..=10).collect::<Vec<_>>());
    release(&slots, 3).unwrap();
    assert_eq!(slots.allocate(), Some(11));
}

#[test]
fn a_new_run_starts_where_256_slots_are_free_side_by_side() {
    let slots = slots(4 * RUN, &[]);
    // The first run fills 1 to 256; holes are left at 10 and 20.
    assert_eq!(take(&slots, RUN).last(), Some(&RUN));
    release(&slots, 10).unwrap();
    release(&slots, 20).unwrap();
    assert_eq!(slots.allocate(), Some(RUN + 1));
}

#[test]
fn without_256_slots_side_by_side_the_lowest_free_one_is_next() {
    // Every 200th slot is bad, so that no run is long enough.
    let bad: Vec<u32> = (1..20).map(|i| i * 200).collect();
    let slots = slots(4000, &bad);
    let first = take(&slots, RUN);
    assert_eq!((first[0], first[255]), (1, 257));
    release(&slots, 100).unwrap();
    release(&slots, 150).unwrap();
    assert_eq!(take(&slots, 3), [100, 150, 258]);
    slots.check().unwrap();
}

#[test]
fn the_run_found_is_the_lowest() {
    let bad = [100, 356, 400];
    let slots = slots(2000, &bad);
    // 101 to 355 are one slot too few; 401 is the first start of 256.
    assert_eq!(slots.allocate(), Some(401));
    let exact = self::slots(2000, &[100, 357, 400]);
    assert_eq!(exact.allocate(), Some(101));
}

#[test]
fn a_closed_area_gives_nothing_and_counts_for_nothing() {
    let slots = slots(6, &[]);
    let taken = take(&slots, 3);
    assert_eq!((slots.room.total(), slots.room.free()), (5, 2));
    slots.close();
    slots.close();
    assert_eq!((slots.room.total(), slots.room.free()), (0, 0));
    assert_eq!(slots.allocate(), None);
    slots.duplicate(taken[0]).unwrap();
    assert_eq!(release(&slots, taken[1]), Ok(0));
    assert_eq!((slots.room.total(), slots.room.free()), (0, 0));
    slots.open();
    slots.open();
    assert_eq!((slots.room.total(), slots.room.free()), (5, 3));
    slots.check().unwrap();
}

#[test]
fn the_walk_finds_what_is_broken() {
    let broken = |breaks: fn(&Slots<RawMutex>)| {
        let slots = slots(8, &[]);
        take(&slots, 3);
        slots.check().unwrap();
        breaks(&slots);
        slots.check()
    };
    let lost = broken(|slots| slots.counts[1].store(0, Ordering::Relaxed));
    assert_eq!(lost, Err(SlotsFault::OutOfBounds(1)));
    let leaked = broken(|slots| slots.counts[5].store(1, Ordering::Relaxed));
    assert_eq!(leaked, Err(SlotsFault::InUse { recorded: 3, counted: 4 }));
    let usable = broken(|slots| slots.counts[0].store(1, Ordering::Relaxed));
    assert_eq!(usable, Err(SlotsFault::Good));
    let half_freed = broken(|slots| slots.counts[1].store(FREEING, Ordering::Relaxed));
    assert_eq!(half_freed, Err(SlotsFault::NotFreed(1)));
    let half_written = broken(|slots| slots.counts[1].store(RESERVED, Ordering::Relaxed));
    assert_eq!(half_written, Err(SlotsFault::NotWritten(1)));
}

#[test]
fn threads_share_slots_without_losing_any() {
    let slots = slots(200, &[50]);
    let holders: Vec<AtomicU32> = (0..200).map(|_| AtomicU32::new(0)).collect();
    let start = Barrier::new(4);
    let work = |seed: u32| {
        start.wait();
        let mut mine = Vec::new();
        for step in 0..20_000u32 {
            match (step.wrapping_mul(seed) >> 7) % 3 {
                0 => mine.extend(slots.allocate().inspect(|slot| {
                    assert_eq!(holders[*slot as usize].fetch_add(1, Ordering::SeqCst), 0);
                })),
                1 if !mine.is_empty() => {
                    let slot = mine[step as usize % mine.len()];
                    slots.duplicate(slot).unwrap();
                    assert!(release(&slots, slot).unwrap() > 0);
                }
                _ => mine.pop().into_iter().for_each(|slot| {
                    holders[slot as usize].fetch_sub(1, Ordering::SeqCst);
                    release(&slots, slot).unwrap();
                }),
            }
        }
        mine.len() as u32
    };
    let left: u32 = thread::scope(|scope| {
        let threads = [2_654_435_761, 40_503, 2_246_822_519, 977];
        let work = &work;
        let threads = threads.map(|seed| scope.spawn(move || work(seed)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(slots.in_use(), left);
    assert_eq!(slots.room.free(), u64::from(198 - left));
    slots.check().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Allocate,
    Duplicate(u32),
    Release(u32),
    Close,
    Open,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Allocate),
        4 => (0u32..42).prop_map(Step::Duplicate),
        8 => (0u32..42).prop_map(Step::Release),
        1 => Just(Step::Close),
        2 => Just(Step::Open),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn the_slots_agree_with_a_map_of_counts(steps in steps(), bad in prop::collection::vec(0u32..40, 0..4)) {
        let slots = slots(40, &bad);
        let good = (1..40).filter(|slot| !bad.contains(slot)).count();
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        let mut open = true;
        for step in steps {
            match step {
                Step::Allocate => match slots.allocate() {
                    Some(slot) => {
                        prop_assert!(open && slot != 0 && slot < 40 && !bad.contains(&slot));
                        prop_assert_eq!(counts.insert(slot, 1), None);
                    }
                    None => prop_assert!(!open || counts.len() == good),
                },
                Step::Duplicate(slot) => {
                    let count = counts.get_mut(&slot);
                    prop_assert_eq!(slots.duplicate(slot).is_ok(), count.is_some());
                    count.into_iter().for_each(|count| *count += 1);
                }
                Step::Release(slot) => {
                    let left = counts.get(&slot).map(|count| count - 1);
                    prop_assert_eq!(release(&slots, slot).ok(), left);
                    match left {
                        Some(0) => { counts.remove(&slot); }
                        Some(left) => { counts.insert(slot, left); }
                        None => {}
                    }
                }
                Step::Close => { slots.close(); open = false; }
                Step::Open => { slots.open(); open = true; }
            }
            let free = (good - counts.len()) as u64;
            let room = if open { (good as u64, free) } else { (0, 0) };
            prop_assert_eq!((slots.room.total(), slots.room.free()), room);
            prop_assert_eq!(slots.check(), Ok(()));
        }
        prop_assert!(slots.used().eq(counts.keys().copied()));
        prop_assert!(counts.iter().all(|(slot, count)| slots.count(*slot) == *count));
    }
}
