//! Pages that more address spaces share than a batch has room for (spec F19, D8).

use crate::common::{PAGE, RW, World, at};
use pagefault::swap::area::Priority;
use pagefault::{AddressSpace, Config, MapRequest, Placement, Sharing};
use pagefault_sim::{Config as Machine, Sim, X86_64};

const PAGES: u64 = 8;

fn world(machine: Machine) -> World<X86_64> {
    let world = World::new(machine, Config { read_ahead: 1, ..Config::default() });
    world.add_disk(64, Priority::Descending);
    world
}

/// A machine that shows which pages are used, and one that does not.
fn machines() -> [Machine; 2] {
    let bits = Machine::calm();
    [bits, Machine { accessed_bits: false, dirty_bits: false, zero_frame: false, ..bits }]
}

/// Eleven address spaces that have the same pages mapped.
fn relatives(world: &World<X86_64>, sharing: Sharing) -> Vec<AddressSpace<Sim>> {
    let first = world.process();
    let request = MapRequest {
        placement: Placement::Fixed(at(0)),
        protection: RW,
        sharing,
        ..MapRequest::anonymous(PAGES * PAGE)
    };
    first.mm().mmap(&request).unwrap();
    for page in 0..PAGES {
        world.store(first.mm(), 0, at(page), &[page as u8 + 1]).unwrap();
    }
    let mut relatives = vec![first];
    for _ in 0..10 {
        relatives.push(relatives[0].fork().unwrap());
    }
    for space in &relatives {
        assert_content(world, space);
    }
    relatives
}

fn assert_content(world: &World<X86_64>, space: &AddressSpace<Sim>) {
    for page in 0..PAGES {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)).unwrap(), page as u8 + 1);
    }
}

/// Evicts all that can be.
fn evict(world: &World<X86_64>) {
    // The first pass spares pages that were used.
    for _ in 0..3 {
        world.manager.reclaim(PAGES as usize);
    }
    assert_eq!(world.manager.counters().evicted, PAGES);
    world.check();
}

#[test]
fn f19_pages_that_many_relatives_read_leave_all_of_them() {
    for machine in machines() {
        let world = world(machine);
        let relatives = relatives(&world, Sharing::Private);
        evict(&world);
        for space in &relatives {
            assert_content(&world, space);
        }
    }
}

#[test]
fn f19_pages_that_many_relatives_store_to_leave_all_of_them() {
    for machine in machines() {
        let world = world(machine);
        let relatives = relatives(&world, Sharing::Shared);
        for (other, space) in (1..).zip(&relatives) {
            for page in 0..PAGES {
                world.store(space.mm(), 0, at(page) + other, &[other as u8]).unwrap();
            }
        }
        evict(&world);
        for (other, space) in (1..).zip(&relatives) {
            assert_content(&world, space);
            for page in 0..PAGES {
                let stored = world.load_byte(relatives[0].mm(), 0, at(page) + other).unwrap();
                assert_eq!(stored, other as u8);
            }
        }
    }
}
