//! Pages on standby, on a simulated computer whose processors set neither accessed nor dirty bits.

use crate::common::{BASE, PAGE, RW, World, at, map, stored};
use pagefault::machine::{Access, Protection};
use pagefault::replacement::{SegmentedFifo, Shares};
use pagefault::swap::area::Priority;
use pagefault::{Config, Counters};
use pagefault_sim::X86_64;

const FRAMES: u32 = 256;

fn world() -> World<X86_64> {
    world_with(10)
}

/// A world with so many percent of the pages on standby.
fn world_with(standby: u32) -> World<X86_64> {
    let machine = pagefault_sim::Config {
        frames: FRAMES,
        cpus: 2,
        accessed_bits: false,
        dirty_bits: false,
        zero_frame: false,
        ..pagefault_sim::Config::calm()
    };
    let policy = SegmentedFifo { shares: Shares { standby, ..Shares::default() } };
    let replacement = Some(Box::new(policy) as _);
    let world = World::new(machine, Config { read_ahead: 1, replacement, ..Config::default() });
    world.add_disk(8192, Priority::Descending);
    world
}

/// Stores to a thousand pages once each, and between any two to one of `hot` pages in turn.
fn scan_past(hot: u64) -> Counters {
    let world = world();
    let space = world.process();
    map(&space, 0, hot + 1000, RW);
    for turn in 0..1000 {
        world.store(space.mm(), 0, at(hot + turn), &[1]).unwrap();
        world.store(space.mm(), 0, at(turn % hot), &[2]).unwrap();
    }
    world.check();
    world.manager.counters()
}

#[test]
fn f18_pages_that_are_used_stay_while_a_scan_goes_by() {
    // A hot page is used again before as many others come in as are on standby. A FIFO would bring each
    // back once for every 256 pages that come in: some 50 times in all.
    let counters = scan_past(16);
    assert!(counters.rescued > 0);
    // When memory is full for the first time nothing is on standby, and the oldest pages leave unasked.
    assert!(counters.swap_in <= 24, "hot pages came back {} times", counters.swap_in);
}

#[test]
fn f18_the_oldest_pages_leave_wherever_their_frames_are() {
    let world = world();
    let space = world.process();
    map(&space, 0, 1000, RW);
    for turn in 0..1000 {
        // As much as a run of faults evicts at a time.
        if turn >= 200 && turn % 32 == 0 {
            assert!(world.manager.reclaim(32) > 0);
        }
        world.store(space.mm(), 0, at(turn), &[1]).unwrap();
    }
    let mut old = 0;
    let count = |_, is_resident: bool| old += u32::from(is_resident);
    space.mm().mincore(at(0), (1000 - u64::from(FRAMES)) * PAGE, count).unwrap();
    assert!(old <= 32, "{old} pages stayed although newer ones left");
    world.check();
}

#[test]
fn f18_the_same_accesses_evict_the_same_pages() {
    assert_eq!(scan_past(16), scan_past(16));
}

#[test]
fn f18_hot_pages_are_not_asked_again_at_every_round() {
    let counters = scan_past(16);
    // 760 pages leave, so that each hot page is due three times or four, and asked once or twice.
    assert!(counters.rescued <= 32, "{} faults to see who is used", counters.rescued);
}

/// A space with 100 pages that were stored to, some of which are on standby.
fn with_standby(world: &World<X86_64>) -> pagefault::AddressSpace<pagefault_sim::Sim> {
    let space = world.process();
    stored(world, &space, 100);
    assert_eq!(world.manager.reclaim(1), 1);
    assert_eq!(world.manager.queue_report().standby.len(), 10);
    space
}

#[test]
fn f18_a_page_on_standby_comes_back_without_io() {
    let world = world();
    let space = with_standby(&world);
    let before = world.manager.counters();
    for page in 0..100 {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)).unwrap(), page as u8 + 1);
    }
    let after = world.manager.counters();
    assert_eq!(after.swap_reads - before.swap_reads, 1);
    assert_eq!(after.rescued - before.rescued, 10);
    assert_eq!(after.minor - before.minor, 10);
    assert!(world.manager.queue_report().standby.is_empty());
    world.check();
}

#[test]
fn f18_pages_that_fit_are_asked_only_while_others_leave() {
    // More than one refill has room there.
    let world = world_with(50);
    let space = world.process();
    map(&space, 0, 1000, RW);
    for turn in 0..1000 {
        world.store(space.mm(), 0, at(turn), &[1]).unwrap();
    }
    let rounds = |count: u64| {
        let before = world.manager.counters();
        for turn in 0..count * 240 {
            world.load_byte(space.mm(), 0, at(turn % 240)).unwrap();
        }
        let after = world.manager.counters();
        (after.rescued - before.rescued, after.swap_in - before.swap_in)
    };
    rounds(4);
    let (rescued, swapped_in) = rounds(16);
    assert_eq!(swapped_in, 0, "they fit");
    // Those that are still on standby, and those that replace them a few times.
    assert!(rescued <= 400, "{rescued} faults to see who is used");
    world.check();
}

#[test]
fn f18_others_take_the_place_of_pages_used_on_standby() {
    let world = world_with(50);
    let space = world.process();
    stored(&world, &space, 200);
    while world.manager.queue_report().standby.len() < 90 {
        assert_eq!(world.manager.reclaim(1), 1);
    }
    let before = world.manager.queue_report().standby.len();
    // The oldest pages that were not evicted are there.
    let mut pages = 10..200;
    while world.manager.counters().rescued < 64 {
        world.load_byte(space.mm(), 0, at(pages.next().unwrap())).unwrap();
    }
    let after = world.manager.queue_report().standby.len();
    assert!(after.abs_diff(before) <= 2, "{before} pages on standby became {after}");
    world.check();
}

#[test]
fn f18_its_owner_may_store_to_it_at_once_if_it_was_written_before() {
    let world = world();
    let space = with_standby(&world);
    for page in 0..100 {
        world.load_byte(space.mm(), 0, at(page)).unwrap();
    }
    let before = world.manager.counters();
    for page in 0..100 {
        world.store(space.mm(), 0, at(page), &[9]).unwrap();
    }
    // All but the one that was evicted, whose copy in swap is good until it is stored to.
    let after = world.manager.counters();
    assert!(after.minor - before.minor <= 1, "{} faults", after.minor - before.minor);
}

#[test]
fn f18_what_relatives_share_stays_apart_after_standby() {
    let world = world();
    let parent = with_standby(&world);
    let child = parent.fork().unwrap();
    // Those that were on standby, and more that are shared by now.
    world.manager.reclaim(20);
    for page in 0..100 {
        assert_eq!(world.load_byte(parent.mm(), 0, at(page)).unwrap(), page as u8 + 1);
        world.store(child.mm(), 1, at(page), &[0xcc]).unwrap();
    }
    world.manager.reclaim(20);
    for page in 0..100 {
        assert_eq!(world.load_byte(parent.mm(), 0, at(page)).unwrap(), page as u8 + 1);
        assert_eq!(world.load_byte(child.mm(), 1, at(page)).unwrap(), 0xcc);
    }
    world.check();
    drop((parent, child));
    world.check_empty();
}

#[test]
fn f18_standby_can_be_emptied() {
    let world = world();
    let space = with_standby(&world);
    // A page that was used since it went there is not there any more.
    let used = (0..100).filter(|page| {
        let before = world.manager.counters().rescued;
        world.load_byte(space.mm(), 0, at(*page)).unwrap();
        world.manager.counters().rescued > before
    });
    assert_eq!(used.take(4).count(), 4);
    let free = world.free();
    assert_eq!(world.manager.evict_standby(), 6);
    assert_eq!(world.free(), free + 6);
    assert!(world.manager.queue_report().standby.is_empty());
    for page in 0..100 {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)).unwrap(), page as u8 + 1);
    }
    world.check();
}

#[test]
fn f18_locked_and_pinned_pages_do_not_go_on_standby() {
    let world = world();
    let space = world.process();
    stored(&world, &space, 100);
    space.mm().mlock(at(0), 50 * PAGE).unwrap();
    let pin = space.mm().pin(at(50)..at(75), Access::Write).unwrap();
    world.manager.reclaim(5);
    let before = world.manager.counters();
    for page in 0..75 {
        world.store(space.mm(), 0, at(page), &[3]).unwrap();
    }
    assert_eq!(world.manager.counters().minor, before.minor);
    assert_eq!(world.manager.counters().major, before.major);
    drop(pin);
    world.check();
}

#[test]
fn f18_memory_that_may_not_be_accessed_leaves_and_refuses() {
    let world = world();
    let space = with_standby(&world);
    space.mm().mprotect(BASE, 100 * PAGE, Protection::empty()).unwrap();
    world.manager.reclaim(50);
    assert!(world.load_byte(space.mm(), 0, at(60)).is_err());
    space.mm().mprotect(BASE, 100 * PAGE, RW).unwrap();
    for page in 0..100 {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)).unwrap(), page as u8 + 1);
    }
    world.check();
}
