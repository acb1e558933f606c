//! Eviction when only the caller can store to a page: nothing is cleaned first.

use crate::common::{PAGE, World, at, stored, world_with};
use pagefault::swap::area::Priority;
use pagefault::{AddressSpace, Advice, Config};
use pagefault_sim::{Config as Machine, Sim, X86_64};

const PAGES: u64 = 8;

fn with_pages(alone: bool) -> (World<X86_64>, AddressSpace<Sim>) {
    let world = World::new(Machine { alone, ..Machine::calm() }, Config::default());
    let space = world.process();
    stored(&world, &space, PAGES);
    (world, space)
}

fn page_out(world: &World<X86_64>, space: &AddressSpace<Sim>) -> u64 {
    let before = world.manager.counters().flushes;
    space.mm().madvise(at(0), PAGES * PAGE, Advice::PageOut).unwrap();
    world.check();
    world.manager.counters().flushes - before
}

fn assert_content(world: &World<X86_64>, space: &AddressSpace<Sim>) {
    for page in 0..PAGES {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)).unwrap(), page as u8 + 1);
    }
}

#[test]
fn one_flush_instead_of_two_takes_a_page_out() {
    let (world, space) = with_pages(false);
    world.add_disk(64, Priority::Descending);
    let several = page_out(&world, &space);
    assert_content(&world, &space);

    let (world, space) = with_pages(true);
    world.add_disk(64, Priority::Descending);
    assert_eq!(page_out(&world, &space) * 2, several);
    assert_eq!(world.manager.counters().evicted, PAGES);
    assert_content(&world, &space);
}

#[test]
fn a_page_that_cannot_be_written_stays_as_it_was() {
    let (world, space) = with_pages(true);
    // There is no room for it anywhere.
    page_out(&world, &space);
    assert_eq!(world.manager.counters().evicted, 0);
    let faults = world.manager.counters().minor;
    for page in 0..PAGES {
        world.store(space.mm(), 0, at(page), &[page as u8 + 1]).unwrap();
    }
    assert_eq!(world.manager.counters().minor, faults, "the right to store was lost");
    assert_content(&world, &space);
}

#[test]
fn a_page_that_relatives_share_is_cleaned_first() {
    let (world, space) = with_pages(true);
    world.add_disk(64, Priority::Descending);
    let child = space.fork().unwrap();
    page_out(&world, &space);
    assert_eq!(world.manager.counters().evicted, PAGES);
    world.store(space.mm(), 0, at(0), &[100]).unwrap();
    assert_content(&world, &child);
    drop((space, child));
    world.check_empty();
}

#[test]
fn what_was_written_once_is_not_written_again() {
    let (world, disk) = world_with(256, Config::default()).with_disk(64);
    let space = world.process();
    stored(&world, &space, PAGES);
    page_out(&world, &space);
    assert_content(&world, &space);
    page_out(&world, &space);
    assert_content(&world, &space);
    assert_eq!(world.manager.counters().swap_writes, PAGES);
    assert_eq!(disk.stats().stored, PAGES);
}
