//! Corrections, on the simulated computer (spec B).

use super::{map_file, world};
use crate::common::{PAGE, RW, at, map, stored, world_with};
use pagefault::entry::{Signal, Verdict};
use pagefault::error::AdviseError;
use pagefault::{Advice, Config, File, NonlinearPolicy, Sharing, ZeroPolicy};

#[test]
fn b7_b8_a_read_takes_a_frame_or_the_frame_of_zeros() {
    for (zero, frames) in [(ZeroPolicy::Shared, 0), (ZeroPolicy::Fresh, 1)] {
        let world = world_with(64, Config { zero, ..Config::default() });
        let space = world.process();
        map(&space, 0, 2, RW);
        assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(0));
        assert_eq!(space.mm().usage().anonymous, frames);
        world.store(space.mm(), 0, at(0), &[5]).unwrap();
        assert_eq!(space.mm().usage().anonymous, 1);
        assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(5));
        world.check();
    }
}

/// Pages out of order stay where remap_file_pages put them, whatever removes them from memory.
#[test]
fn b12_c19_f19_pages_out_of_place_are_found_again() {
    let config = Config { nonlinear: NonlinearPolicy::Entries, ..Config::default() };
    let (world, _disk) = world_with(96, config).with_disk(64);
    let space = world.process();
    let mm = space.mm();
    let file = File::shared(&world.manager, 6 * PAGE);
    map_file(&space, &file, 0, 6, Sharing::Shared);
    for page in 0..6 {
        world.store(mm, 0, at(page), &[page as u8 + 1]).unwrap();
    }
    mm.remap_file_pages(at(0), 2 * PAGE, 4).unwrap();
    let look = |page| world.load_byte(mm, 0, at(page));
    assert_eq!((look(0), look(1), look(2)), (Ok(5), Ok(6), Ok(3)));
    world.manager.reclaim(100);
    world.check();
    assert_eq!((look(0), look(1), look(2)), (Ok(5), Ok(6), Ok(3)), "after reclaim");
    mm.madvise(at(0), 3 * PAGE, Advice::DontNeed).unwrap();
    assert_eq!((look(0), look(1), look(2)), (Ok(5), Ok(6), Ok(3)), "after MADV_DONTNEED");
    file.truncate(5 * PAGE).unwrap();
    world.check();
    assert_eq!(look(1), Err(Verdict::Signal(Signal::Bus)), "truncated");
    file.truncate(6 * PAGE).unwrap();
    assert_eq!((look(0), look(1)), (Ok(5), Ok(0)), "grown again");
    assert_eq!(mm.madvise(at(0), PAGE, Advice::Remove), Err(AdviseError::Unsuitable));
    world.check();
}

#[test]
fn b14_a_write_by_the_sole_owner_gives_the_slot_up() {
    let (world, disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 2);
    world.manager.reclaim(10);
    assert_eq!(disk.stats().stored, 2);
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(1));
    assert_eq!(disk.stats().stored, 2, "a page that was only read keeps its copy in swap");
    world.store(space.mm(), 0, at(1), &[7]).unwrap();
    assert_eq!(disk.stats().stored, 1);
    assert_eq!(world.manager.counters().swap_in, 2);
}

#[test]
fn b14_a_crowded_area_gets_its_slots_back() {
    let (world, disk) = world(64).with_disk(5);
    let space = world.process();
    stored(&world, &space, 3);
    world.manager.reclaim(10);
    assert_eq!(disk.stats().stored, 3);
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(1));
    assert_eq!(disk.stats().stored, 2, "more than half full: the slot is worth more");
    world.check();
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(1));
}

#[test]
fn b15_a_page_whose_slot_others_name_is_copied() {
    let (world, disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 1);
    let child = space.fork().unwrap();
    world.manager.reclaim(10);
    world.store(space.mm(), 0, at(0), &[9]).unwrap();
    assert_eq!(disk.stats().stored, 1);
    assert_eq!(world.load_byte(child.mm(), 0, at(0)), Ok(1));
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(9));
    world.check();
}

/// A slot that cannot be read gives no page, whether the access loads or stores, and nothing is lost.
#[test]
fn b14_an_unreadable_slot_is_a_bus_error() {
    let (world, disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 2);
    world.manager.reclaim(10);
    let bus = Verdict::Signal(Signal::Bus);
    disk.fail_nth_read(1);
    assert_eq!(world.store(space.mm(), 0, at(0) + 1, &[9]), Err(bus));
    disk.fail_nth_read(1);
    assert_eq!(world.load_byte(space.mm(), 0, at(1)), Err(bus));
    world.check();
    assert_eq!(world.store(space.mm(), 0, at(0) + 1, &[9]), Ok(()));
    for page in 0..2 {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)), Ok(page as u8 + 1));
    }
}
