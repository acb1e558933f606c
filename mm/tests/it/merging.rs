//! Which regions are one, and where they may go, does not depend on how a machine answers reads of
//! memory that was never stored to (spec B8, C5): with the shared frame of zeros, or with a frame each.

use crate::common::{PAGE, RW, World, at, map};
use pagefault::machine::{Access, VirtAddr};
use pagefault::{AddressSpace, Advice, Config, Move, Placement, RegionReport, RemapRequest};
use pagefault_sim::{Config as Computer, Sim, X86_64};

/// Does the same on both kinds of machine and gives the regions of both.
fn on_both(
    play: impl Fn(&World<X86_64>, &AddressSpace<Sim>),
) -> (Vec<RegionReport>, Vec<RegionReport>) {
    let regions = |zero_frame| {
        let machine = Computer { frames: 96, zero_frame, ..Computer::calm() };
        let (world, _) = World::new(machine, Config::default()).with_disk(128);
        let space = world.process();
        play(&world, &space);
        world.check();
        let mut maps = space.mm().maps(VirtAddr(0)..VirtAddr(u64::MAX));
        // Families are numbered as they come, which is not what is compared.
        maps.iter_mut().for_each(|region| region.family = None);
        for page in 0..64 {
            // Moved pages can be found and evicted.
            let _ = space.mm().madvise(at(page), PAGE, Advice::PageOut);
        }
        world.manager.reclaim(100);
        world.check();
        drop(space);
        world.manager.reclaim(100);
        world.check_empty();
        maps
    };
    (regions(true), regions(false))
}

fn read(world: &World<X86_64>, space: &AddressSpace<Sim>, pages: core::ops::Range<u64>) {
    for page in pages {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)), Ok(0));
    }
}

fn move_page(space: &AddressSpace<Sim>, from: u64, movement: Move) {
    let (address, old_length, new_length) = (at(from), PAGE, PAGE);
    space.mm().mremap(&RemapRequest { address, old_length, new_length, movement }).unwrap();
}

#[test]
fn c5_a_moved_page_that_was_only_read_joins_its_neighbours() {
    let (shared, own) = on_both(|world, space| {
        map(space, 0, 9, RW);
        read(world, space, 0..9);
        move_page(space, 5, Move::To(at(2)));
        assert_eq!(world.load_byte(space.mm(), 0, at(2)), Ok(0));
        // Stored to at its new place, it is a page like the others.
        for page in 0..5 {
            world.store(space.mm(), 0, at(page), &[page as u8]).unwrap();
        }
        assert_eq!(world.load_byte(space.mm(), 0, at(2)), Ok(2));
    });
    assert_eq!(shared, own);
    assert_eq!(own.len(), 2);
}

#[test]
fn c5_a_page_that_leaves_its_mapping_joins_its_neighbours() {
    let (shared, own) = on_both(|world, space| {
        map(space, 0, 4, RW);
        map(space, 8, 4, RW);
        read(world, space, 0..4);
        read(world, space, 8..12);
        move_page(space, 1, Move::Leaving(Placement::Fixed(at(9))));
        read(world, space, 0..4);
        read(world, space, 8..12);
    });
    assert_eq!(shared, own);
    assert_eq!(own.len(), 2);
}

#[test]
fn a_pin_of_a_page_that_was_only_read_stays_with_it_when_it_moves() {
    let (shared, own) = on_both(|world, space| {
        map(space, 0, 9, RW);
        read(world, space, 5..6);
        let pin = space.mm().pin(at(5)..at(6), Access::Read).unwrap();
        move_page(space, 5, Move::To(at(2)));
        world.check();
        world.store(space.mm(), 0, at(2), &[7]).unwrap();
        let seen = pagefault::machine::Machine::drain(&world.sim, pin.frames()[0], |page| page[0]);
        assert_eq!(seen, 7);
    });
    // The pin of a page of zeros unshares it: on the one machine that is a store, on the other not.
    assert_eq!((shared.len(), own.len()), (4, 2));
}
