//! The page cache, on the simulated computer (spec D).

use super::{map_file, world};
use crate::common::{PAGE, at};
use pagefault::error::FileError;
use pagefault::{File, Sharing};
use pagefault_sim::{Sim, SimFile};
use std::sync::Arc;

#[test]
fn d5_what_is_stored_past_the_end_never_becomes_content() {
    let world = world(64);
    let store = SimFile::pattern(PAGE + 100, 1);
    for file in [
        File::open(&world.manager, Arc::new(store.clone())),
        File::shared(&world.manager, PAGE + 100),
    ] {
        let space = world.process();
        map_file(&space, &file, 0, 2, Sharing::Shared);
        assert_eq!(world.load_byte(space.mm(), 0, at(1) + 100), Ok(0));
        world.store(space.mm(), 0, at(1) + 100, &[9, 9]).unwrap();
        file.sync().unwrap();
        file.truncate(2 * PAGE).unwrap();
        assert_eq!(world.load_byte(space.mm(), 0, at(1) + 100), Ok(0));
        file.sync().unwrap();
    }
    assert_eq!(store.contents()[PAGE as usize + 100..], [0; PAGE as usize - 100]);
}

#[test]
fn d8_a_failed_write_is_told_once_and_made_up_for() {
    let world = world(64);
    let store = SimFile::pattern(PAGE, 1);
    let file = File::open(&world.manager, Arc::new(store.clone()));
    let space = world.process();
    map_file(&space, &file, 0, 1, Sharing::Shared);
    world.store(space.mm(), 0, at(0), &[42]).unwrap();
    store.fail_nth_write(1);
    // A pass may come around a second time, and then the store works.
    let freed = world.manager.reclaim(10);
    assert_eq!(freed == 1, store.contents()[0] == 42, "what was not written stays");
    assert_eq!(file.sync(), Err(FileError::Io));
    assert_eq!(store.contents()[0], 42);
    assert_eq!(file.sync(), Ok(()));
}

#[test]
fn d1_a_write_that_finds_no_room_is_cut_where_it_stopped() {
    let world = world(64);
    let store = SimFile::pattern(100, 1);
    let file = File::open(&world.manager, Arc::new(store.clone()));
    store.fail_nth_make_writable(3);
    assert_eq!(file.write_at(100, &[7; 4 * PAGE as usize]), Ok(2 * PAGE as usize - 100));
    assert_eq!(file.len(), Ok(2 * PAGE));
    store.fail_nth_make_writable(1);
    assert_eq!(file.write_at(5 * PAGE, &[7]), Err(FileError::Io));
    assert_eq!(file.len(), Ok(2 * PAGE));
    file.sync().unwrap();
    assert_eq!(store.contents()[100..], [7; 2 * PAGE as usize - 100]);
    world.manager.check().unwrap();
}

#[test]
fn d2_clean_pages_that_nobody_maps_can_leave_the_cache() {
    let world = world(64);
    let store = SimFile::pattern(3 * PAGE, 1);
    let file = File::open(&world.manager, Arc::new(store.clone()));
    let shared = File::shared(&world.manager, PAGE);
    let space = world.process();
    map_file(&space, &file, 0, 1, Sharing::Shared);
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(1));
    file.write_at(PAGE, &[42]).unwrap();
    file.read_at(2 * PAGE, &mut [0]).unwrap();
    shared.write_at(0, &[43]).unwrap();
    for file in [&file, &shared] {
        file.discard_clean(0..u64::MAX);
    }
    let reads = store.stats().reads;
    let byte_at = |file: &File<Sim>, offset| {
        let mut byte = [0];
        file.read_at(offset, &mut byte).unwrap();
        byte[0]
    };
    assert_eq!([byte_at(&file, 0), byte_at(&file, PAGE), byte_at(&shared, 0)], [1, 42, 43]);
    assert_eq!(store.stats().reads, reads, "mapped, dirty, without another home: they stayed");
    file.read_at(2 * PAGE, &mut [0]).unwrap();
    assert_eq!(store.stats().reads, reads + 1, "clean and not mapped: read again");
    world.manager.check().unwrap();
}
