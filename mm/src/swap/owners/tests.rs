//! The owner index against a map, and under threads that fight for the same slots.

use super::{END, Owner, Owners, OwnersFault, UNOWNED};
use parking_lot::RawMutex;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use std::vec::Vec;

fn owners(slots: u32) -> Owners<RawMutex> {
    Owners::new(slots).unwrap()
}

fn page(object: u64, index: u64) -> Owner {
    Owner { object, index }
}

#[test]
fn a_page_is_found_until_its_slot_is_cleared_or_set_anew() {
    let owners = owners(10);
    assert_eq!(owners.find(page(0, 0)), None);
    owners.set(4, page(0, 0));
    owners.set(5, page(u64::MAX, u64::MAX));
    assert_eq!(owners.find(page(0, 0)), Some(4));
    assert_eq!(owners.find(page(u64::MAX, u64::MAX)), Some(5));
    assert_eq!(owners.find(page(0, 1)), None);
    owners.set(4, page(0, 1));
    assert_eq!(owners.find(page(0, 0)), None);
    assert_eq!(owners.find(page(0, 1)), Some(4));
    assert_eq!((owners.owner(4), owners.owner(6)), (Some(page(0, 1)), None));
    owners.clear(4);
    owners.clear(4);
    assert_eq!(owners.find(page(0, 1)), None);
    owners.check().unwrap();
}

#[test]
fn slots_that_do_not_exist_hold_nothing() {
    let owners = owners(3);
    for slot in [0, 3, u32::MAX] {
        owners.set(slot, page(1, 1));
        owners.clear(slot);
        assert_eq!((owners.owner(slot), owners.find(page(1, 1))), (None, None));
    }
    owners.check().unwrap();
    self::owners(0).check().unwrap();
}

#[test]
fn the_walk_finds_what_is_broken() {
    let broken = |breaks: fn(&Owners<RawMutex>)| {
        let owners = owners(100);
        owners.set(7, page(1, 1));
        owners.check().unwrap();
        breaks(&owners);
        owners.check()
    };
    // Page (1, 2) belongs to another chain: the hash does not put neighbours together.
    let moved = broken(|owners| owners.pages[7][1].store(2, Ordering::Relaxed));
    assert_eq!(moved, Err(OwnersFault::Misplaced(7)));
    let unmarked = broken(|owners| owners.links[7].store(UNOWNED, Ordering::Relaxed));
    assert_eq!(unmarked, Err(OwnersFault::Misplaced(7)));
    let unlinked = broken(|owners| {
        owners.chains.iter().for_each(|chain| chain.store(END, Ordering::Relaxed));
    });
    assert_eq!(unlinked, Err(OwnersFault::Count { owned: 1, chained: 0, recorded: 1 }));
    let circle = broken(|owners| owners.links[7].store(7, Ordering::Relaxed));
    assert_eq!(circle, Err(OwnersFault::Count { owned: 1, chained: 100, recorded: 1 }));
}

#[test]
fn the_pages_of_an_object_spread_over_the_chains() {
    let owners = owners(4096);
    for slot in 1..4096 {
        owners.set(slot, page(3, u64::from(slot)));
    }
    let longest = (0..owners.chains.len()).map(|chain| owners.chain(chain).count()).max();
    assert!(longest.is_some_and(|longest| longest <= 12), "{longest:?}");
}

#[test]
fn threads_that_fight_for_slots_leave_the_chains_whole() {
    let owners = owners(32);
    // These stay, in the midst of chains that change.
    (16..32).for_each(|slot| owners.set(slot, page(9, slot.into())));
    let start = Barrier::new(4);
    let work = |seed: u64| {
        let mut state = seed;
        start.wait();
        for _ in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (slot, object) = ((state >> 40) as u32 % 16, (state >> 50) % 8);
            match (state >> 60) % 4 {
                0 => owners.clear(slot),
                1 => {
                    let stays = 16 + slot;
                    assert_eq!(owners.find(page(9, stays.into())), Some(stays));
                }
                _ => owners.set(slot, page(object, state >> 55 & 3)),
            }
        }
    };
    let work = &work;
    thread::scope(|scope| [1, 2, 3, 4].map(|seed| scope.spawn(move || work(seed))).len());
    owners.check().unwrap();
    for slot in 1..32 {
        if let Some(owner) = owners.owner(slot) {
            assert!(owners.find(owner).is_some());
        }
        owners.clear(slot);
        owners.check().unwrap();
    }
    assert_eq!(owners.owned.load(Ordering::Relaxed), 0);
}

#[test]
fn a_locked_chain_is_left_alone() {
    let owners = owners(10);
    owners.set(1, page(1, 1));
    let waits = |act: &(dyn Fn() + Sync)| {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let locked: Vec<_> = owners.shards.iter().map(|shard| shard.lock()).collect();
            let actor = scope.spawn(|| {
                act();
                done.store(true, Ordering::SeqCst);
            });
            // An act that does not wait has more than the time it needs.
            thread::sleep(Duration::from_millis(10));
            assert!(!done.load(Ordering::SeqCst));
            drop(locked);
            actor.join().unwrap();
        });
    };
    waits(&|| assert_eq!(owners.find(page(1, 1)), Some(1)));
    waits(&|| owners.set(2, page(2, 2)));
    waits(&|| owners.clear(1));
    assert_eq!((owners.owner(1), owners.owner(2)), (None, Some(page(2, 2))));
}

#[derive(Clone, Debug)]
enum Step {
    Set(u32, Owner),
    Clear(u32),
    Find(Owner),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owner = || (0u64..4, 0u64..6).prop_map(|(object, index)| page(object, index));
    let step = prop_oneof![
        (1u32..20, owner()).prop_map(|(slot, owner)| Step::Set(slot, owner)),
        (1u32..20).prop_map(Step::Clear),
        owner().prop_map(Step::Find),
    ];
    prop::collection::vec(step, 1..150)
}

proptest! {
    #[test]
    fn the_index_agrees_with_a_map(steps in steps()) {
        let owners = owners(20);
        // Each slot's owner, and when it was set: of two slots with one page the later is found.
        let mut model: BTreeMap<u32, (usize, Owner)> = BTreeMap::new();
        for (time, step) in steps.into_iter().enumerate() {
            match step {
                Step::Set(slot, owner) => {
                    owners.set(slot, owner);
                    model.insert(slot, (time, owner));
                }
                Step::Clear(slot) => {
                    owners.clear(slot);
                    model.remove(&slot);
                }
                Step::Find(owner) => {
                    let holders = model.iter().filter(|(_, (_, holder))| *holder == owner);
                    let last = holders.max_by_key(|(_, (time, _))| *time).map(|(slot, _)| *slot);
                    prop_assert_eq!(owners.find(owner), last);
                }
            }
            prop_assert_eq!(owners.check(), Ok(()));
        }
        for slot in 0..20 {
            prop_assert_eq!(owners.owner(slot), model.get(&slot).map(|(_, owner)| *owner));
        }
    }
}
