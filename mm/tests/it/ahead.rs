//! Going ahead of faults that run through memory in order, on the simulated computer.

use crate::common::{PAGE, RW, World, at, map, stored, world_with};
use pagefault::machine::{Machine as _, Protection};
use pagefault::swap::area::Priority;
use pagefault::{AddressSpace, Advice, Config, Overcommit};
use pagefault_sim::{Sim, X86_64};

/// Touches pages in order, and returns how many faults that took.
fn faults_of_a_pass(world: &World<X86_64>, space: &AddressSpace<Sim>, pages: &[u64]) -> u64 {
    let before = world.manager.counters();
    for page in pages {
        assert_eq!(
            world.load_byte(space.mm(), 0, at(*page)).unwrap(),
            (*page as u8).wrapping_add(1)
        );
    }
    let after = world.manager.counters();
    after.swap_in - before.swap_in
}

fn swapped_out(read_ahead: u32) -> (World<X86_64>, AddressSpace<Sim>) {
    let world = world_with(256, Config { read_ahead, ..Config::default() });
    world.add_disk(256, Priority::Descending);
    let space = world.process();
    stored(&world, &space, 64);
    space.mm().madvise(at(0), 64 * PAGE, Advice::PageOut).unwrap();
    (world, space)
}

#[test]
fn f17_a_run_of_faults_brings_the_next_pages_back_in_either_direction() {
    let ascending: Vec<u64> = (0..64).collect();
    let descending: Vec<u64> = (0..64).rev().collect();
    for order in [ascending, descending] {
        let (world, space) = swapped_out(1);
        assert_eq!(faults_of_a_pass(&world, &space, &order), 64);
        let (world, space) = swapped_out(16);
        let faults = faults_of_a_pass(&world, &space, &order);
        assert!(faults <= 8, "{faults} faults");
        assert_eq!(world.manager.counters().read_ahead, 64 - faults);
        world.check();
    }
}

#[test]
fn f17_random_faults_read_nothing_ahead() {
    let (world, space) = swapped_out(16);
    let scattered: Vec<u64> = (0..64).map(|n| n * 23 % 64).collect();
    assert_eq!(faults_of_a_pass(&world, &space, &scattered), 64);
    assert_eq!(world.manager.counters().read_ahead, 0);
}

#[test]
fn f17_read_ahead_ends_with_the_region_and_evicts_nothing() {
    let (world, space) = swapped_out(16);
    // From page 3 on another region begins, which the run must not enter.
    space.mm().mprotect(at(3), 61 * PAGE, Protection::READ).unwrap();
    assert_eq!(faults_of_a_pass(&world, &space, &[0, 1]), 2);
    assert_eq!(world.manager.counters().read_ahead, 1);

    let (world, space) = swapped_out(16);
    // All frames but a few are in use: nothing is free beyond the mark.
    map(&space, 100, 400, RW);
    let mut page = 100;
    while world.manager.machine().free_frames() > 6 {
        world.store(space.mm(), 0, at(page), &[1]).unwrap();
        page += 1;
    }
    let evicted = world.manager.counters().evicted;
    for page in [0, 1] {
        world.load_byte(space.mm(), 0, at(page)).unwrap();
    }
    assert_eq!(world.manager.counters().evicted, evicted);
    assert_eq!(world.manager.counters().read_ahead, 0);
    world.check();
}

fn fresh(populate_ahead: u32) -> (World<X86_64>, AddressSpace<Sim>) {
    let world = world_with(256, Config { populate_ahead, ..Config::default() });
    let space = world.process();
    map(&space, 0, 64, RW);
    (world, space)
}

#[test]
fn b07_a_run_of_first_stores_gets_the_next_pages_at_once() {
    let store = |world: &World<X86_64>, space: &AddressSpace<Sim>, pages: &[u64]| {
        for page in pages {
            world.store(space.mm(), 0, at(*page), &[7]).unwrap();
        }
        let counters = world.manager.counters();
        for page in pages {
            assert_eq!(world.load_byte(space.mm(), 0, at(*page)).unwrap(), 7);
            assert_eq!(world.load_byte(space.mm(), 0, at(*page) + 1).unwrap(), 0);
        }
        world.check();
        (counters.anonymous, counters.populated_ahead)
    };
    let ascending: Vec<u64> = (0..64).collect();
    let descending: Vec<u64> = (0..64).rev().collect();
    let scattered: Vec<u64> = (0..64).map(|n| n * 23 % 64).collect();
    for order in [&ascending, &descending] {
        let (world, space) = fresh(1);
        assert_eq!(store(&world, &space, order), (64, 0));
        let (world, space) = fresh(16);
        let (faults, ahead) = store(&world, &space, order);
        assert!(faults <= 8, "{faults} faults");
        assert_eq!(ahead, 64 - faults);
    }
    let (world, space) = fresh(16);
    assert_eq!(store(&world, &space, &scattered), (64, 0));
    // From page 3 on another region begins, which the run must not enter.
    let (world, space) = fresh(16);
    space.mm().mprotect(at(3), 61 * PAGE, Protection::READ).unwrap();
    assert_eq!(store(&world, &space, &[0, 1]), (2, 1));
}

#[test]
fn f17_a_run_that_proved_itself_goes_ahead_though_no_frame_is_free() {
    let world = world_with(64, Config::default());
    world.add_disk(512, Priority::Descending);
    let space = world.process();
    stored(&world, &space, 200);
    assert!(world.manager.machine().free_frames() < 32);
    let order: Vec<u64> = (0..200).collect();
    let faults = faults_of_a_pass(&world, &space, &order);
    assert!(faults <= 50, "{faults} faults");
    world.check();
}

/// In a memory so large that a batch of freed frames does not reach the mark below which frames are few.
#[test]
fn f17_a_run_goes_ahead_where_every_batch_of_faults_must_evict() {
    let config = Config { overcommit: Overcommit::Always, ..Config::default() };
    let world = world_with(4096, config);
    world.add_disk(8192, Priority::Descending);
    let space = world.process();
    stored(&world, &space, 6000);
    let order: Vec<u64> = (0..6000).collect();
    let faults = faults_of_a_pass(&world, &space, &order);
    assert!(faults <= 600, "{faults} faults");
    world.check();
}

#[test]
fn f17_what_is_read_ahead_is_counted_as_used_where_the_run_goes_on() {
    let (world, space) = swapped_out(16);
    let order: Vec<u64> = (0..64).collect();
    faults_of_a_pass(&world, &space, &order);
    let counters = world.manager.counters();
    // Of the last window nothing is known: no fault came after it.
    let unknown = counters.read_ahead - counters.read_ahead_used;
    assert!(unknown <= 16, "{counters:?}");
    assert_eq!(counters.read_ahead_wasted, 0);
    // Reclaim finds the accessed bits of the rest.
    space.mm().madvise(at(0), 64 * PAGE, Advice::PageOut).unwrap();
    let counters = world.manager.counters();
    assert_eq!(counters.read_ahead_used, counters.read_ahead);
    assert_eq!(counters.read_ahead_wasted, 0);
    world.check();
}

#[test]
fn f17_what_is_evicted_untouched_was_wasted() {
    let (world, space) = swapped_out(16);
    faults_of_a_pass(&world, &space, &[10, 11]);
    assert_eq!(world.manager.counters().read_ahead, 2);
    space.mm().madvise(at(0), 64 * PAGE, Advice::PageOut).unwrap();
    let counters = world.manager.counters();
    assert_eq!((counters.read_ahead_used, counters.read_ahead_wasted), (0, 2));
}

/// Pairs of neighbours at random: each looks like the start of a run, and none continues.
#[test]
fn f17_read_ahead_stops_where_it_is_wasted_and_begins_again_where_it_pays() {
    let (world, space) = swapped_out(16);
    let pairs = |count: u64| {
        let before = world.manager.counters();
        for n in 0..count {
            let first = n * 20 % 60;
            faults_of_a_pass(&world, &space, &[first, first + 1]);
            space.mm().madvise(at(0), 64 * PAGE, Advice::PageOut).unwrap();
        }
        world.manager.counters().read_ahead - before.read_ahead
    };
    pairs(100);
    let later = pairs(64);
    assert!(later <= 2 * 64 / 8, "{later} pages for 64 pairs");
    // Runs that do continue are detected again.
    let order: Vec<u64> = (0..64).collect();
    for _ in 0..8 {
        faults_of_a_pass(&world, &space, &order);
        space.mm().madvise(at(0), 64 * PAGE, Advice::PageOut).unwrap();
    }
    assert!(faults_of_a_pass(&world, &space, &order) <= 16);
    world.check();
}

#[test]
fn b07_fresh_pages_given_ahead_are_counted_too() {
    let (world, space) = fresh(16);
    for page in 0..64 {
        world.store(space.mm(), 0, at(page), &[7]).unwrap();
    }
    let counters = world.manager.counters();
    assert!(counters.populated_ahead_used + 16 >= counters.populated_ahead, "{counters:?}");
    assert!(counters.populated_ahead_used > 16, "{counters:?}");
}
