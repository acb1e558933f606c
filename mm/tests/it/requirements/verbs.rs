//! The mmap family, on the simulated computer (spec C).

use super::world;
use crate::common::{PAGE, RW, at, map, world_with};
use core::sync::atomic::Ordering::Relaxed;
use pagefault::error::{LockError, ProtectError, RemapError, RemapPagesError};
use pagefault::machine::{Protection, VirtAddr};
use pagefault::{
    Advice, Config, File, FileAccess, LockAll, MapOptions, MapRequest, Move, NonlinearPolicy,
    Overcommit, Placement, RemapRequest, Sharing, Source,
};

#[test]
fn c12_what_becomes_writable_is_promised_then() {
    let overcommit = Overcommit::Never { ratio: 100 };
    let world = world_with(64, Config { overcommit, ..Config::default() });
    let space = world.process();
    map(&space, 0, 50, Protection::READ);
    map(&space, 100, 50, Protection::READ);
    assert_eq!(space.mm().mprotect(at(0), 50 * PAGE, RW), Ok(()));
    let second = space.mm().mprotect(at(100), 50 * PAGE, RW);
    assert_eq!(second, Err(ProtectError::CommitLimit));
    // Untouched and read-only again: the promise is given back.
    space.mm().mprotect(at(0), 50 * PAGE, Protection::READ).unwrap();
    assert_eq!(space.mm().mprotect(at(100), 50 * PAGE, RW), Ok(()));
    world.check();
}

#[test]
fn c15_the_heap_keeps_its_distance_from_a_stack_and_its_limit() {
    let world = world(256);
    let space = world.process();
    let stack = MapRequest {
        placement: Placement::Fixed(at(400)),
        ..MapRequest::anonymous(PAGE).with(MapOptions::GROWSDOWN)
    };
    space.mmap(&stack).unwrap();
    let brk = |page| space.brk(at(page), MapOptions::empty());
    space.begin_heap(at(0), 3 * PAGE);
    // 256 pages stay free below the stack, and one above the heap.
    assert_eq!(brk(144), at(0));
    assert_eq!(brk(143), at(143));
    space.limits().data.store(10 * PAGE, Relaxed);
    assert_eq!(brk(8), at(143), "with the program's own data it would be 11 pages");
    assert_eq!(brk(7), at(7));
    world.check();
}

#[test]
fn c14_a_move_promises_nothing_twice() {
    let overcommit = Overcommit::Never { ratio: 100 };
    let world = world_with(64, Config { overcommit, ..Config::default() });
    let space = world.process();
    map(&space, 0, 40, RW);
    let request = RemapRequest {
        address: at(0),
        old_length: 40 * PAGE,
        new_length: 40 * PAGE,
        movement: Move::To(at(100)),
    };
    assert_eq!(space.mm().mremap(&request), Ok(at(100)));
    world.check();
    let longer = RemapRequest { address: at(100), new_length: 70 * PAGE, ..request };
    let longer = RemapRequest { movement: Move::To(at(300)), ..longer };
    assert_eq!(space.mm().mremap(&longer), Err(RemapError::CommitLimit));
    world.check();
}

#[test]
fn c14_a_place_that_stays_mapped_is_empty_and_promised_again() {
    let overcommit = Overcommit::Never { ratio: 100 };
    let world = world_with(64, Config { overcommit, ..Config::default() });
    let space = world.process();
    map(&space, 0, 20, RW);
    world.store(space.mm(), 0, at(3), &[7]).unwrap();
    space.mm().mlock(at(0), 20 * PAGE).unwrap();
    let request = RemapRequest {
        address: at(2),
        old_length: 4 * PAGE,
        new_length: 4 * PAGE,
        movement: Move::Leaving(Placement::Hint(at(100))),
    };
    assert_eq!(space.mm().mremap(&request), Ok(at(100)));
    assert_eq!(world.load_byte(space.mm(), 0, at(3)), Ok(0));
    assert_eq!(world.load_byte(space.mm(), 0, at(101)), Ok(7));
    // The pages that moved are still locked; the region that they left is so no longer.
    let usage = space.mm().usage();
    assert_eq!((usage.total, usage.locked, usage.regions), (24, 4, 2));
    world.check();

    let refused = |movement, old, new| {
        let request = RemapRequest { address: at(0), old_length: old, new_length: new, movement };
        space.mm().mremap(&request).unwrap_err()
    };
    let leaving = Move::Leaving(Placement::Anywhere);
    assert_eq!(refused(leaving, 4 * PAGE, 5 * PAGE), RemapError::KeepsSize);
    assert_eq!(refused(leaving, 0, PAGE), RemapError::KeepsSize);
    assert_eq!(refused(leaving, 21 * PAGE, 21 * PAGE), RemapError::Unmapped);
    let overlapping = Move::Leaving(Placement::Hint(at(1)));
    assert_eq!(refused(overlapping, 2 * PAGE, 2 * PAGE), RemapError::BadTarget);
    let unaligned = Move::Leaving(Placement::Hint(VirtAddr(at(50).value() + 1)));
    assert_eq!(refused(unaligned, PAGE, PAGE), RemapError::Unaligned);
    // 24 pages are promised, of 64.
    for _ in 0..2 {
        let request = RemapRequest { address: at(0), old_length: 20 * PAGE, ..request };
        let request = RemapRequest { new_length: 20 * PAGE, movement: leaving, ..request };
        space.mm().mremap(&request).unwrap();
    }
    assert_eq!(refused(leaving, PAGE, PAGE), RemapError::CommitLimit);
    world.check();
}

#[test]
fn c14_mappings_that_are_left_are_one_still() {
    let world = world(64);
    let space = world.process();
    map(&space, 0, 8, RW);
    for page in 0..8 {
        world.store(space.mm(), 0, at(page), &[1 + page as u8]).unwrap();
    }
    let file = File::shared(&world.manager, 4 * PAGE);
    let request = MapRequest {
        sharing: Sharing::Shared,
        placement: Placement::Fixed(at(8)),
        source: Source::File { file: &file, offset: 0, access: FileAccess::all() },
        ..MapRequest::anonymous(4 * PAGE)
    };
    space.mm().mmap(&request).unwrap();
    world.store(space.mm(), 0, at(9), &[42]).unwrap();
    // Over both: the shared pages are seen at both places, the private ones at the new one.
    let request = RemapRequest {
        address: at(6),
        old_length: 4 * PAGE,
        new_length: 4 * PAGE,
        movement: Move::Leaving(Placement::Fixed(at(40))),
    };
    assert_eq!(space.mm().mremap(&request), Ok(at(40)));
    for (page, byte) in [(5, 6), (6, 0), (7, 0), (9, 42), (40, 7), (41, 8), (43, 42)] {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)), Ok(byte), "page {page}");
    }
    let maps = space.mm().maps(at(0)..at(100));
    let ranges: Vec<_> = maps.iter().map(|region| region.range.clone()).collect();
    assert_eq!(ranges, [at(0)..at(8), at(8)..at(12), at(40)..at(42), at(42)..at(44)]);
    world.check();
}

#[test]
fn c16_pages_read_ahead_can_leave_again() {
    let (world, _disk) = world(64).with_disk(256);
    let space = world.process();
    map(&space, 0, 100, RW);
    for page in 0..100 {
        world.store(space.mm(), 0, at(page), &[1]).unwrap();
    }
    for _ in 0..3 {
        space.mm().madvise(at(0), 100 * PAGE, Advice::WillNeed).unwrap();
        world.check();
    }
    world.manager.reclaim(1000);
    assert_eq!(world.sim.usage().allocated, 0);
}

/// A piece of a locked mapping is a new mapping, which counts beside the one that it replaces.
#[test]
fn c19_a_locked_piece_counts_towards_the_limit() {
    let world = world_with(64, Config { nonlinear: NonlinearPolicy::Regions, ..Config::default() });
    let space = world.process();
    let mm = space.mm();
    let request = MapRequest::anonymous(8 * PAGE).at(at(0)).shared();
    mm.mmap(&request).unwrap();
    let limit = |pages: u64| mm.limits().locked.store(pages * PAGE, Relaxed);
    limit(8);
    mm.mlock(at(0), 8 * PAGE).unwrap();
    let before = mm.maps(at(0)..at(8));
    let remap = |page: u64, index: u64| mm.remap_file_pages(at(page), PAGE, index);
    assert_eq!(remap(0, 3), Err(RemapPagesError::LockLimit));
    assert_eq!(remap(0, 1 << 51), Err(RemapPagesError::LockLimit));
    limit(0);
    assert_eq!(remap(0, 1 << 51), Err(RemapPagesError::NotPermitted));
    assert_eq!(mm.maps(at(0)..at(8)), before);
    limit(9);
    remap(0, 3).unwrap();
    assert_eq!(mm.usage().locked, 8);
    // What is not locked needs no room, unless all new mappings are locked.
    mm.munlock(at(0), 8 * PAGE).unwrap();
    limit(0);
    remap(1, 5).unwrap();
    limit(8);
    mm.mlockall(LockAll::FUTURE).unwrap();
    limit(0);
    assert_eq!(remap(2, 6), Err(RemapPagesError::LockLimit));
    world.check();
}

#[test]
fn c17_what_is_locked_counts_once_towards_the_limit() {
    let (world, _disk) = world(64).with_disk(64);
    let space = world.process();
    map(&space, 0, 20, RW);
    space.mm().limits().locked.store(8 * PAGE, Relaxed);
    space.mm().mlock(at(0), 6 * PAGE).unwrap();
    // Six of these eight are locked already.
    space.mm().mlock(at(0), 8 * PAGE).unwrap();
    assert_eq!(space.mm().mlock(at(4), 5 * PAGE), Err(LockError::OverLimit));
    assert_eq!(space.mm().mlock_on_fault(at(10), PAGE), Err(LockError::OverLimit));
    space.mm().munlock(at(0), 4 * PAGE).unwrap();
    space.mm().mlock_on_fault(at(10), 4 * PAGE).unwrap();
    let usage = space.mm().usage();
    assert_eq!((usage.locked, usage.anonymous), (8, 8));
    // Later pages stay, although no call brought them in.
    world.store(space.mm(), 0, at(11), &[1]).unwrap();
    world.manager.reclaim(100);
    assert_eq!(space.mm().usage().anonymous, 5);
    world.check();
}
