//! Swap, reclaim and flushes, on the simulated computer (spec F, G, J).

use super::world;
use crate::common::{PAGE, RW, World, at, map, stored};
use pagefault::machine::{Entry, SwapSlot};
use pagefault::swap::area::Priority;
use pagefault::{Advice, Config};
use pagefault_sim::{Architecture, Config as Machine, Ia32, X86_64};

#[test]
fn f4_every_entry_counts_at_its_slot() {
    let (world, _disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 1);
    world.manager.reclaim(10);
    let areas = world.manager.swap_areas();
    let slot = SwapSlot { area: 0, offset: 1 };
    assert_eq!(areas.references(slot), 1);
    let children = [space.fork().unwrap(), space.fork().unwrap()];
    assert_eq!(areas.references(slot), 3);
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(1));
    assert_eq!(areas.references(slot), 3, "the cache's in the place of the parent's");
    drop(children);
    assert_eq!(areas.references(slot), 1);
    drop(space);
    world.check_empty();
}

#[test]
fn f5_areas_fill_by_priority_and_spill_when_full() {
    let world = world(64);
    let (low, slow) = world.add_disk(64, Priority::Descending);
    let (high, fast) = world.add_disk(64, Priority::Given(10));
    assert_ne!(low, high);
    fast.set_capacity(2);
    let space = world.process();
    stored(&world, &space, 5);
    world.manager.reclaim(10);
    assert_eq!((fast.stats().stored, slow.stats().stored), (2, 3));
    world.check();
    for page in 0..5 {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)), Ok(page as u8 + 1));
    }
}

#[test]
fn f12_an_area_that_cannot_be_emptied_stays() {
    let (world, disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 3);
    world.manager.reclaim(10);
    disk.fail_nth_read(2);
    assert_eq!(world.manager.swap_off(0), Err(pagefault::error::SwapOffError::Io));
    world.check();
    assert_eq!(world.manager.swap_off(0), Ok(()), "it can be tried again");
    for page in 0..3 {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)), Ok(page as u8 + 1));
    }
}

/// A frame is not used again before the flush that covers it: the computer panics otherwise.
#[test]
fn g4_frames_wait_for_their_flush() {
    let machine = Machine { frames: 96, cpus: 4, ..Machine::calm() };
    let world = World::<X86_64>::new(machine, Config::default());
    let space = world.process();
    for round in 0..20u8 {
        map(&space, 0, 30, RW);
        for page in 0..30 {
            world.store(space.mm(), u32::from(round) % 4, at(page), &[round]).unwrap();
            assert_eq!(world.load_byte(space.mm(), 1, at(page)), Ok(round));
        }
        space.mm().munmap(at(0), 30 * PAGE).unwrap();
        assert_eq!(world.sim.usage().allocated, 0);
    }
    world.check();
}

#[test]
fn j9_freed_pages_go_without_being_written() {
    let (world, disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 4);
    space.mm().madvise(at(0), 2 * PAGE, Advice::Free).unwrap();
    world.store(space.mm(), 0, at(1), &[8]).unwrap();
    world.manager.reclaim(10);
    assert_eq!(disk.stats().writes, 3);
    let look = |page| world.load_byte(space.mm(), 0, at(page));
    assert_eq!((look(0), look(1), look(2)), (Ok(0), Ok(8), Ok(3)));
}

/// What `/proc/PID/pagemap` is made of: resident, shared after a fork, zeros, in swap, absent.
#[test]
fn pages_report_where_each_one_is() {
    let (world, _disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 2);
    world.manager.reclaim(10);
    world.store(space.mm(), 0, at(1), &[9]).unwrap();
    map(&space, 4, 2, RW);
    world.load_byte(space.mm(), 0, at(4)).unwrap();
    let child = space.fork().unwrap();
    let mut seen = Vec::new();
    space.pages(at(0)..at(2000), |page| {
        let where_ = match page.entry {
            Entry::Present { .. } => "present",
            Entry::Swap(_) => "swap",
            _ => "other",
        };
        seen.push(((page.address - at(0)) / PAGE, where_, page.anonymous, page.maps));
    });
    assert_eq!(seen, [(0, "swap", true, 0), (1, "present", true, 2), (4, "present", true, 0)]);
    drop(child);
}

/// IA-32's entries hold 24 bits of a slot's number, x86-64's all 32.
#[test]
fn f3_a_swap_area_ends_where_entries_can_name_no_slot() {
    fn slots<A: Architecture>() -> u32 {
        let world = World::<A>::new(Machine::calm(), Config::default());
        world.add_disk(1 << 25, Priority::Descending);
        world.manager.swap_areas().total() as u32
    }
    assert_eq!(slots::<Ia32>(), (1 << 24) - 1);
    assert_eq!(slots::<X86_64>(), (1 << 25) - 1);
}
