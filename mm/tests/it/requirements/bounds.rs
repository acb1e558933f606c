//! Limits, places and rights of mappings, on the simulated computer (spec A15, B10, C7–C17).

use super::{map_file, world};
use crate::common::{PAGE, RW, World, at, map, world_with};
use core::sync::atomic::Ordering::Relaxed;
use pagefault::entry::{SegvCode, Signal, Verdict};
use pagefault::error::{LockError, MapError, RemapError, RemapPagesError, UnmapError};
use pagefault::machine::{Access, Protection, VirtAddr};
use pagefault::{
    AddressSpace, Advice, Config, File, FileAccess, Layout, LockAll, MapOptions, MapRequest, Move,
    NonlinearPolicy, Overcommit, Placement, RemapRequest, Sharing,
};
use pagefault_sim::{Sim, SimFile, X86_64};
use std::sync::Arc;

const MAPERR: Verdict = Verdict::Signal(Signal::Segv(SegvCode::MapErr));
const BUS: Verdict = Verdict::Signal(Signal::Bus);

/// A stack of one page.
fn stack(space: &AddressSpace<Sim>, start: VirtAddr) {
    let request = MapRequest::anonymous(PAGE).at(start).with(MapOptions::GROWSDOWN);
    space.mmap(&request).unwrap();
}

fn resize(space: &AddressSpace<Sim>, pages: u64, new: u64) -> Result<VirtAddr, RemapError> {
    space.mremap(&RemapRequest {
        address: at(0),
        old_length: pages * PAGE,
        new_length: new * PAGE,
        movement: Move::Anywhere,
    })
}

/// With `pages` of memory to promise.
fn counting(frames: u32) -> World<X86_64> {
    let overcommit = Overcommit::Never { ratio: 100 };
    world_with(frames, Config { overcommit, ..Config::default() })
}

#[test]
fn a15_a_stack_stays_above_the_lowest_address_and_within_the_lock_limit() {
    let world = world(512);
    let space = world.process();
    let lowest = World::<X86_64>::layout().lowest_hint;
    stack(&space, lowest + 2 * PAGE);
    assert_eq!(world.store(space.mm(), 0, lowest, &[1]), Ok(()));
    let below = VirtAddr(lowest.value() - 1);
    assert_eq!(world.store(space.mm(), 0, below, &[1]), Err(MAPERR));
    stack(&space, at(1000));
    space.mlock(at(1000), PAGE).unwrap();
    space.limits().locked.store(3 * PAGE, Relaxed);
    assert_eq!(world.store(space.mm(), 0, at(997), &[1]), Err(MAPERR));
    assert_eq!(world.store(space.mm(), 0, at(998), &[1]), Ok(()));
    assert_eq!(space.usage().locked, 3);
    world.check();
}

/// An executable page is told by its region: a fetch from an absent page maps it first (spec A16).
#[test]
fn a16_a_fetch_from_an_absent_page_maps_it_and_is_refused_then() {
    let world = world(64);
    let space = world.process();
    let file = File::shared(&world.manager, PAGE);
    map_file(&space, &file, 0, 2, Sharing::Shared);
    let fetch = |page| {
        world.access(space.mm(), 0, |cpu| {
            cpu.fetch(space.mm().space(), at(page), pagefault::machine::Mode::User)
        })
    };
    assert_eq!(fetch(0).unwrap_err(), Verdict::Signal(Signal::Segv(SegvCode::AccErr)));
    assert_eq!(space.usage().file, 1, "the page came first");
    assert_eq!(fetch(1).unwrap_err(), BUS, "and a page that cannot come says so");
}

#[test]
fn b10_b16_a_backing_that_refuses_a_store_is_a_bus_error() {
    let world = world(64);
    let store = SimFile::pattern(2 * PAGE, 1);
    let file = File::open(&world.manager, Arc::new(store.clone()));
    let space = world.process();
    map_file(&space, &file, 0, 2, Sharing::Shared);
    store.fail_nth_make_writable(1);
    assert_eq!(world.store(space.mm(), 0, at(0), &[9]), Err(BUS), "of an absent page");
    assert_eq!(world.load_byte(space.mm(), 0, at(1)), Ok(SimFile::pattern_byte(PAGE, 1)));
    store.fail_nth_make_writable(1);
    assert_eq!(world.store(space.mm(), 0, at(1), &[9]), Err(BUS), "of a page that was read");
    file.sync().unwrap();
    assert_eq!(store.contents(), SimFile::pattern(2 * PAGE, 1).contents());
    assert_eq!(world.store(space.mm(), 0, at(0), &[9]), Ok(()));
    assert_eq!(world.store(space.mm(), 0, at(1), &[9]), Ok(()));
    assert_eq!(store.stats().made_writable, 4);
    world.check();
}

#[test]
fn c7_c8_a_low_hint_is_raised_and_a_full_top_is_no_end() {
    let world = world(64);
    let layout = World::<X86_64>::layout();
    let lowest = layout.lowest_hint;
    let base = layout.range.start + 64 * PAGE;
    let layout = Layout { mmap_base: base, ..layout };
    let space = AddressSpace::new(&world.manager, layout).unwrap();
    let place = |placement| space.mmap(&MapRequest::anonymous(PAGE).placed(placement));
    assert_eq!(place(Placement::Hint(VirtAddr(PAGE))), Ok(lowest));
    space.mmap(&MapRequest::anonymous(63 * PAGE).at(lowest + PAGE)).unwrap();
    assert_eq!(place(Placement::Anywhere), Ok(base), "nothing is free below the base");
}

#[test]
fn c9_a_file_that_is_open_for_reading_is_not_stored_to() {
    let config = Config { nonlinear: NonlinearPolicy::Regions, ..Config::default() };
    let world = world_with(64, config);
    let space = world.process();
    let file = File::shared(&world.manager, 2 * PAGE);
    let with = |access, protection| {
        let mut request = MapRequest::file(&file, 0, 2 * PAGE).at(at(0)).shared();
        if let pagefault::Source::File { access: of_file, .. } = &mut request.source {
            *of_file = access;
        }
        space.mmap(&request.allowing(protection))
    };
    assert_eq!(with(FileAccess::READ, RW), Err(MapError::NotWritable));
    assert_eq!(with(FileAccess::WRITE, RW), Err(MapError::NotReadable));
    assert_eq!(with(FileAccess::READ, Protection::READ), Ok(at(0)));
    assert!(space.mprotect(at(0), PAGE, RW).is_err());
    assert!(!file.is_mapped_to_write());
    // As Linux has it, such a mapping counts as private to all but /proc.
    assert_eq!(space.remap_file_pages(at(0), PAGE, 1), Err(RemapPagesError::NotShared));
}

#[test]
fn c10_what_a_mapping_replaces_counts_once() {
    let world = world(64);
    let space = world.process();
    map(&space, 0, 8, RW);
    space.limits().address_space.store(10 * PAGE, Relaxed);
    let fixed = |first, pages| space.mmap(&MapRequest::anonymous(pages * PAGE).at(at(first)));
    assert_eq!(fixed(0, 10), Ok(at(0)));
    assert_eq!(fixed(5, 6), Err(MapError::AddressSpaceLimit));
    assert_eq!(space.usage().total, 10);
}

#[test]
fn c11_no_region_is_split_at_the_limit() {
    let world = world_with(64, Config { max_regions: 4, ..Config::default() });
    let space = world.process();
    map(&space, 0, 9, RW);
    for page in [1, 3] {
        assert_eq!(space.munmap(at(page), PAGE), Ok(()));
    }
    assert_eq!(space.munmap(at(5), PAGE), Ok(()));
    assert_eq!(space.munmap(at(7), PAGE), Err(UnmapError::TooManyRegions));
    assert_eq!(space.usage().regions, 4);
    assert_eq!(space.munmap(at(6), PAGE), Ok(()), "nothing is split");
    world.check();
}

#[test]
fn c13_growth_keeps_the_limits() {
    let world = world(64);
    let space = world.process();
    map(&space, 0, 4, RW);
    space.limits().data.store(6 * PAGE, Relaxed);
    assert_eq!(resize(&space, 4, 7), Err(RemapError::DataLimit));
    space.mlock(at(0), 4 * PAGE).unwrap();
    space.limits().locked.store(5 * PAGE, Relaxed);
    assert_eq!(resize(&space, 4, 6), Err(RemapError::LockLimit));
    assert_eq!(resize(&space, 4, 5), Ok(at(0)));
    assert_eq!((space.usage().locked, space.usage().anonymous), (5, 5), "grown and brought in");
    world.check();
}

#[test]
fn c17_what_was_promised_for_later_ends_with_munlockall() {
    let world = world(64);
    let space = world.process();
    space.mlockall(LockAll::FUTURE).unwrap();
    map(&space, 0, 2, RW);
    assert_eq!((space.usage().locked, space.usage().anonymous), (2, 2));
    space.munlockall();
    map(&space, 10, 2, RW);
    assert_eq!((space.usage().locked, space.usage().anonymous), (0, 2));
    // Memory that is locked already does not count again, and other memory does.
    space.limits().locked.store(2 * PAGE, Relaxed);
    space.mlock(at(0), 2 * PAGE).unwrap();
    assert_eq!(space.mlock(at(0), PAGE), Ok(()));
    assert_eq!(space.mlock(at(10), PAGE), Err(LockError::OverLimit));
}

#[test]
fn c20_shared_objects_are_promised_whole() {
    let world = counting(64);
    let space = world.process();
    let request = || MapRequest::anonymous(40 * PAGE).shared();
    let first = space.mmap(&request()).unwrap();
    assert_eq!(space.mmap(&request()), Err(MapError::CommitLimit));
    let without = request().with(MapOptions::NORESERVE);
    space.mmap(&without).unwrap();
    // The promise is the object's, and ends with it.
    space.munmap(first, 40 * PAGE).unwrap();
    space.mmap(&request()).unwrap();
    world.check();
}

/// Advice to free spares what a device uses (spec B20, J9).
#[test]
fn j9_a_pinned_page_is_not_freed() {
    let (world, _disk) = world(64).with_disk(64);
    let space = world.process();
    map(&space, 0, 2, RW);
    world.store(space.mm(), 0, at(0), &[7]).unwrap();
    world.store(space.mm(), 0, at(1), &[8]).unwrap();
    let pin = space.pin(at(0)..at(1), Access::Read).unwrap();
    space.madvise(at(0), 2 * PAGE, Advice::Free).unwrap();
    drop(pin);
    world.manager.reclaim(100);
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(7));
    assert_eq!(world.load_byte(space.mm(), 0, at(1)), Ok(0));
    world.check();
}
