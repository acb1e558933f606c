//! What a backing is asked and told, and what it can do wrong, on the simulated computer (spec D).

use super::{map_file, world};
use crate::common::{PAGE, RW, World, at, map, world_with};
use core::sync::atomic::AtomicI64;
use core::sync::atomic::Ordering::Relaxed;
use pagefault::error::{RemapPagesError, SyncError, UserError};
use pagefault::machine::{Access, Backing, IoError, Machine as _, Protection};
use pagefault::{
    AddressSpace, Advice, Config, File, FileAccess, MapRequest, Move, NonlinearPolicy,
    RemapRequest, Sharing, Source, SyncMode,
};
use pagefault_sim::{Sim, SimFile};
use std::sync::Arc;

/// A page and a half that the backing leaves dirty behind its end. It counts the regions over it, and has no
/// room to write.
#[derive(Default)]
struct Rough {
    regions: AtomicI64,
}

impl Backing for Rough {
    fn read(&self, _: u64, page: &mut [u8; PAGE as usize]) -> Result<(), IoError> {
        page.fill(0xee);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), IoError> {
        Err(IoError::Full)
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(PAGE + PAGE / 2)
    }

    fn opened(&self) {
        self.regions.fetch_add(1, Relaxed);
    }

    fn closed(&self) {
        self.regions.fetch_sub(1, Relaxed);
    }
}

#[test]
fn d1_a_backing_is_told_of_each_region_that_comes_and_goes() {
    let world = world(64);
    let rough = Arc::new(Rough::default());
    let file = File::open(&world.manager, rough.clone());
    let space = world.process();
    // The first region is not told: who maps knows.
    map_file(&space, &file, 0, 4, Sharing::Shared);
    let told = || rough.regions.load(Relaxed);
    space.munmap(at(1), PAGE).unwrap();
    assert_eq!(told(), 1, "a hole makes two of one");
    let copy = RemapRequest {
        address: at(0),
        old_length: 0,
        new_length: PAGE,
        movement: Move::To(at(10)),
    };
    space.mremap(&copy).unwrap();
    assert_eq!(told(), 2, "a second mapping of the same pages");
    let child = space.fork().unwrap();
    assert_eq!(told(), 5, "three more in a child");
    space.munmap(at(0), 20 * PAGE).unwrap();
    assert_eq!(told(), 2);
    drop(child);
    assert_eq!(told(), -1, "the first one too");
}

#[test]
fn d5_d8_c18_a_tail_reads_as_zeros_and_a_full_store_says_so() {
    let world = world(64);
    let file = File::open(&world.manager, Arc::new(Rough::default()));
    let space = world.process();
    map_file(&space, &file, 0, 2, Sharing::Shared);
    assert_eq!(world.load_byte(space.mm(), 0, at(1) + (PAGE / 2 - 1)), Ok(0xee));
    assert_eq!(world.load_byte(space.mm(), 0, at(1) + PAGE / 2), Ok(0));
    world.store(space.mm(), 0, at(0), &[1]).unwrap();
    assert_eq!(space.msync(at(0), PAGE, SyncMode::Sync), Err(SyncError::Full));
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(1), "it stays");
}

#[test]
fn c18_a_cached_page_counts_as_resident() {
    let world = world(64);
    let file = File::open(&world.manager, Arc::new(SimFile::pattern(3 * PAGE, 1)));
    let space = world.process();
    map_file(&space, &file, 0, 3, Sharing::Shared);
    file.read_at(PAGE, &mut [0]).unwrap();
    let mut resident = Vec::new();
    space.mincore(at(0), 3 * PAGE, |_, is| resident.push(is)).unwrap();
    assert_eq!(resident, [false, true, false]);
}

#[test]
fn c19_a_place_that_no_entry_can_name_is_refused() {
    let config = Config { nonlinear: NonlinearPolicy::Entries, ..Config::default() };
    let world = world_with(64, config);
    let space = world.process();
    let file = File::shared(&world.manager, 4 * PAGE);
    map_file(&space, &file, 0, 4, Sharing::Shared);
    let limit = world.sim.capabilities().file_index_limit;
    let remap = |index| space.remap_file_pages(at(0), 2 * PAGE, index);
    assert_eq!(remap(limit), Err(RemapPagesError::NotEncodable), "its second page");
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(0), "nothing has changed");
    assert_eq!(remap(limit - 1), Ok(()));
    assert!(world.load_byte(space.mm(), 0, at(0)).is_err(), "past the end");
}

/// A page that a device stores to leaves the cache only after the device (spec B20).
#[test]
fn b20_a_pinned_page_of_a_file_stays_cached() {
    let world = world(64);
    let store = SimFile::pattern(PAGE, 1);
    let file = File::open(&world.manager, Arc::new(store.clone()));
    let space = world.process();
    map_file(&space, &file, 0, 1, Sharing::Shared);
    let pin = space.pin(at(0)..at(1), Access::Write).unwrap();
    file.sync().unwrap();
    space.munmap(at(0), PAGE).unwrap();
    file.sync().unwrap();
    file.discard_clean(0..1);
    world.sim.fill(pin.frames()[0], |page| page[7] = 0xd1);
    drop(pin);
    file.sync().unwrap();
    assert_eq!(store.contents()[7], 0xd1);
    world.check();
}

#[test]
fn h6_what_may_never_be_stored_to_is_not_forced() {
    let world = world(64);
    let space = world.process();
    let file = File::shared(&world.manager, PAGE);
    let source = Source::File { file: &file, offset: 0, access: FileAccess::READ };
    let request = MapRequest { source, ..MapRequest::anonymous(PAGE) };
    space.mmap(&request.at(at(0)).shared().allowing(Protection::READ)).unwrap();
    assert_eq!(space.write_forced(at(0), &[1]), (0, Some(UserError::BadAddress)));
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(0));
}

/// Pages that a relative still shows are not the parent's to give away (spec J9).
#[test]
fn j9_a_page_that_a_child_shows_is_not_freed() {
    let (world, _disk) = world(64).with_disk(64);
    let space = world.process();
    map(&space, 0, 1, RW);
    world.store(space.mm(), 0, at(0), &[7]).unwrap();
    let child = space.fork().unwrap();
    space.madvise(at(0), PAGE, Advice::Free).unwrap();
    world.manager.reclaim(100);
    assert_eq!(world.load_byte(child.mm(), 0, at(0)), Ok(7));
    world.check();
}

/// Advice reads ahead only what memory has room for (spec C16).
#[test]
fn c16_pages_that_will_be_needed_leave_room() {
    let (world, _disk) = world(64).with_disk(256);
    let space = world.process();
    map(&space, 0, 100, RW);
    (0..100).for_each(|page| world.store(space.mm(), 0, at(page), &[1]).unwrap());
    world.manager.reclaim(1000);
    let free = world.free();
    space.madvise(at(0), 100 * PAGE, Advice::WillNeed).unwrap();
    let read = free - world.free();
    assert!(read > 0 && read <= free / 2, "{read} of {free} free frames");
    assert_eq!(world.manager.counters().evicted, 100, "none left for it");
}

/// Tables that name nothing any more are freed with the range (spec E6).
#[test]
fn e6_a_range_that_is_unmapped_takes_its_tables_along() {
    fn tables(world: &World<pagefault_sim::X86_64>, space: &AddressSpace<Sim>) -> (u32, u32) {
        let before = world.sim.usage().tables;
        map(space, 0, 1, RW);
        world.store(space.mm(), 0, at(0), &[1]).unwrap();
        let with = world.sim.usage().tables;
        space.munmap(at(0), PAGE).unwrap();
        (with - before, world.sim.usage().tables - before)
    }
    let world = world(64);
    let space = world.process();
    // The highest of the three holds addresses below the layout too.
    assert_eq!(tables(&world, &space), (3, 1));
}
