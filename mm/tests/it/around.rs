//! Faults mapped around a read of a file (spec J5).

use crate::common::{PAGE, at, world_with};
use pagefault::machine::{Cursor, Entry, Space};
use pagefault::{Config, File, MapRequest};
use pagefault_sim::SimFile;
use std::sync::Arc;

#[test]
fn j5_a_read_maps_the_cached_pages_around_it_and_reads_none() {
    let world = world_with(64, Config::default());
    let store = SimFile::pattern(20 * PAGE, 1);
    let file = File::open(&world.manager, Arc::new(store.clone()));
    file.read_at(4 * PAGE, &mut vec![0; 8 * PAGE as usize]).unwrap();
    let space = world.process();
    space.mmap(&MapRequest::file(&file, 0, 20 * PAGE).at(at(0))).unwrap();
    let reads = store.stats().reads;
    let byte = world.load_byte(space.mm(), 0, at(5));
    assert_eq!(byte, Ok(SimFile::pattern_byte(5 * PAGE, 1)));
    let present = |page: u64| {
        let cursor = space.space().lock_existing(at(page)..at(page + 1));
        cursor.is_some_and(|cursor| matches!(cursor.entry(at(page)), Entry::Present { .. }))
    };
    let mapped: Vec<u64> = (0..20).filter(|page| present(*page)).collect();
    assert_eq!(mapped, [4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(store.stats().reads, reads);
    world.check();
}
