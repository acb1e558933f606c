//! Reading files ahead of need, on the simulated computer (spec D3, D4).

use crate::common::{PAGE, World, at, world_with};
use pagefault::{AddressSpace, Advice, Config, File, MapRequest, Overcommit};
use pagefault_sim::{Sim, SimFile, X86_64};
use std::sync::Arc;

/// Files may be mapped that are larger than memory.
fn rules(file_read_ahead: u32, fault_around: u32) -> Config {
    let overcommit = Overcommit::Always;
    Config { file_read_ahead, fault_around, overcommit, ..Config::default() }
}

/// A process with a file of `pages` pages mapped at 0, on a machine that maps nothing around a fault.
fn mapped(file_read_ahead: u32, pages: u64) -> (World<X86_64>, SimFile, AddressSpace<Sim>) {
    let world = world_with(512, rules(file_read_ahead, 1));
    let store = SimFile::pattern(pages * PAGE, 1);
    let file = File::open(&world.manager, Arc::new(store.clone()));
    let space = world.process();
    space.mmap(&MapRequest::file(&file, 0, pages * PAGE).at(at(0))).unwrap();
    (world, store, space)
}

/// Touches a page; returns how many pages were read for that, and whether it was a major fault.
fn touch(world: &World<X86_64>, space: &AddressSpace<Sim>, page: u64) -> (u64, bool) {
    let before = world.manager.counters();
    let byte = world.load_byte(space.mm(), 0, at(page));
    assert_eq!(byte, Ok(SimFile::pattern_byte(page * PAGE, 1)), "page {page}");
    let after = world.manager.counters();
    (after.file_reads - before.file_reads, after.major > before.major)
}

#[test]
fn d3_a_miss_reads_around_its_page_and_skips_what_is_there() {
    let (world, store, space) = mapped(32, 100);
    assert_eq!(touch(&world, &space, 40), (32, true));
    // Pages 24 to 55 are there.
    assert_eq!(touch(&world, &space, 24), (0, false));
    assert_eq!(touch(&world, &space, 55), (0, false));
    // Around 60 are 44 to 75, of which 56 to 75 are missing.
    assert_eq!(touch(&world, &space, 60), (20, true));
    assert_eq!(store.stats().reads, 52);
    assert_eq!(world.manager.counters().file_read_ahead, 50);
    world.check();
}

#[test]
fn d3_read_ahead_ends_with_the_file() {
    let (world, _, space) = mapped(32, 10);
    assert_eq!(touch(&world, &space, 9), (10, true));
    space.mm().madvise(at(0), 10 * PAGE, Advice::DontNeed).unwrap();
    assert_eq!(touch(&world, &space, 0), (0, false));
    world.check();
}

#[test]
fn d3_after_many_misses_nothing_is_read_around() {
    let (world, _, space) = mapped(2, 4000);
    let read: Vec<u64> = (1..=110).map(|n| touch(&world, &space, n * 30).0).collect();
    assert_eq!(read.iter().filter(|pages| **pages == 2).count(), 100);
    assert!(read[100..].iter().all(|pages| *pages == 1), "{read:?}");
    // Hits make up for misses.
    for n in 1..=100 {
        touch(&world, &space, n * 30 - 1);
    }
    assert_eq!(touch(&world, &space, 3501).0, 2);
    world.check();
}

#[test]
fn d3_a_sequential_reader_waits_once() {
    let (world, store, space) = mapped(32, 200);
    space.mm().madvise(at(0), 200 * PAGE, Advice::Sequential).unwrap();
    let faults: Vec<(u64, bool)> = (0..100).map(|page| touch(&world, &space, page)).collect();
    let windows: Vec<(usize, u64)> =
        faults.iter().enumerate().filter(|(_, f)| f.0 > 0).map(|(at, f)| (at, f.0)).collect();
    assert_eq!(windows, [(0, 4), (1, 8), (4, 16), (12, 32), (28, 32), (60, 32), (92, 32)]);
    // Each fault that starts a read is major, though its own page is there (spec D4).
    assert!(windows.iter().all(|(at, _)| faults[*at].1));
    // No page is missed but the first.
    assert_eq!(store.stats().reads, 156);
    world.check();
}

#[test]
fn d3_a_window_goes_on_where_faults_map_around() {
    let world = world_with(512, rules(32, 16));
    let store = SimFile::pattern(200 * PAGE, 1);
    let file = File::open(&world.manager, Arc::new(store.clone()));
    let space = world.process();
    space.mmap(&MapRequest::file(&file, 0, 200 * PAGE).at(at(0))).unwrap();
    space.mm().madvise(at(0), 200 * PAGE, Advice::Sequential).unwrap();
    let mut missed = 0;
    for page in 0..150 {
        let there = store.stats().reads > page;
        missed += u64::from(!there);
        touch(&world, &space, page);
    }
    assert_eq!(missed, 1, "the marker page was mapped before it was touched");
    world.check();
}

#[test]
fn d3_random_reads_are_of_one_page() {
    let (world, _, space) = mapped(32, 100);
    space.mm().madvise(at(0), 100 * PAGE, Advice::Random).unwrap();
    for page in [50, 51, 52, 3] {
        assert_eq!(touch(&world, &space, page), (1, true));
    }
    world.check();
}

#[test]
fn d3_errors_of_what_is_read_ahead_are_nobodys() {
    let (world, store, space) = mapped(32, 100);
    // The fault's second read, ahead of need.
    store.fail_nth_read(2);
    assert_eq!(touch(&world, &space, 40), (32, true));
    // The thread that touches the page reads it.
    assert!(touch(&world, &space, 24).0 > 0);
    // The first is the page's own.
    store.fail_nth_read(1);
    assert!(world.load_byte(space.mm(), 0, at(90)).is_err());
    world.check();
}

#[test]
fn d3_read_ahead_takes_half_of_what_is_free_at_most() {
    let world = world_with(40, rules(32, 1));
    let store = SimFile::pattern(100 * PAGE, 1);
    let file = File::open(&world.manager, Arc::new(store.clone()));
    let space = world.process();
    space.mmap(&MapRequest::file(&file, 0, 100 * PAGE).at(at(0))).unwrap();
    touch(&world, &space, 50);
    let read = store.stats().reads;
    assert!((2..=20).contains(&read), "{read}");
    // However often.
    for page in 0..100 {
        touch(&world, &space, page);
    }
    world.check();
}
