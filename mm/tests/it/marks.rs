//! The marks of regions and pages: guards, wipe-on-fork, seals, limits; and the pages that reclaim
//! takes last.

use crate::common::{PAGE, RW, at, map, stored, world_with};
use pagefault::entry::{SegvCode, Signal, Verdict};
use pagefault::error::{AdviseError, MapError, ProtectError, SealError};
use pagefault::machine::{Access, PageFault, Protection, VirtAddr};
use pagefault::{
    Advice, Config, File, FileAccess, MapRequest, Placement, RegionReport, Sharing, Source,
    VmaFlags,
};
use pagefault_sim::SimFile;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const MAPERR: Verdict = Verdict::Signal(Signal::Segv(SegvCode::MapErr));

fn regions(mm: &Arc<pagefault::Mm<pagefault_sim::Sim>>) -> Vec<RegionReport> {
    mm.maps(VirtAddr(0)..VirtAddr(u64::MAX))
}

#[test]
fn guards_refuse_and_the_region_stays_one() {
    let (world, _disk) = world_with(64, Config::default()).with_disk(64);
    let space = world.process();
    let mm = space.mm();
    stored(&world, &space, 8);
    mm.madvise(at(2), 2 * PAGE, Advice::GuardInstall).unwrap();
    let look = |page| world.load_byte(mm, 0, at(page));
    let expected = [Ok(2), Err(MAPERR), Err(MAPERR), Ok(5)];
    assert_eq!([look(1), look(2), look(3), look(4)], expected);
    assert_eq!(regions(mm).len(), 1);
    assert_eq!(mm.usage().anonymous, 6);
    assert_eq!(mm.copy_from_user(at(1), &mut [0; 3 * PAGE as usize]), 2 * PAGE as usize);
    let populated = mm.madvise(at(0), 8 * PAGE, Advice::PopulateWrite);
    assert_eq!(populated, Err(AdviseError::NotAccessible));
    world.manager.reclaim(100);
    world.check();
    assert_eq!([look(1), look(2), look(3), look(4)], expected, "after reclaim");
    mm.mprotect(at(0), 8 * PAGE, Protection::READ).unwrap();
    mm.mprotect(at(0), 8 * PAGE, RW).unwrap();
    mm.madvise(at(0), 8 * PAGE, Advice::Free).unwrap();
    mm.madvise(at(0), 8 * PAGE, Advice::DontNeed).unwrap();
    assert_eq!([look(1), look(2)], [Ok(0), Err(MAPERR)], "no other advice takes them away");
    let child = space.fork().unwrap();
    assert_eq!(world.load_byte(child.mm(), 0, at(3)), Err(MAPERR), "a child has them");
    world.check();
    mm.madvise(at(0), 3 * PAGE, Advice::GuardRemove).unwrap();
    assert_eq!([look(2), look(3)], [Ok(0), Err(MAPERR)]);
    mm.munmap(at(0), 8 * PAGE).unwrap();
    map(&space, 0, 8, RW);
    assert_eq!(look(3), Ok(0), "they go with the region");
    world.check();
}

/// A fork copies nothing of a region without pages, except its guards.
#[test]
fn guards_of_untouched_and_of_shared_memory_are_forked() {
    let world = world_with(64, Config::default());
    let space = world.process();
    map(&space, 0, 2, RW);
    let file = File::shared(&world.manager, 2 * PAGE);
    let access = FileAccess::READ | FileAccess::WRITE;
    let request = MapRequest {
        placement: Placement::Fixed(at(4)),
        sharing: Sharing::Shared,
        source: Source::File { file: &file, offset: 0, access },
        ..MapRequest::anonymous(2 * PAGE)
    };
    space.mm().mmap(&request).unwrap();
    for page in [0, 4] {
        space.mm().madvise(at(page), PAGE, Advice::GuardInstall).unwrap();
    }
    let child = space.fork().unwrap();
    for mm in [space.mm(), child.mm()] {
        for page in [0, 4] {
            assert_eq!(world.load_byte(mm, 0, at(page)), Err(MAPERR));
            assert_eq!(world.load_byte(mm, 0, at(page + 1)), Ok(0));
        }
    }
    // A new mapping in the guard's place continues the shared region, in a child too.
    child.mm().mmap(&MapRequest { length: PAGE, ..request }).unwrap();
    assert_eq!(world.load_byte(child.mm(), 0, at(4)), Ok(0));
    assert_eq!(regions(child.mm()).len(), 2);
    file.truncate(0).unwrap();
    world.check();
}

#[test]
fn a_child_finds_zeros_where_its_parent_wanted_them() {
    let (world, _disk) = world_with(64, Config::default()).with_disk(64);
    let space = world.process();
    let mm = space.mm();
    stored(&world, &space, 4);
    mm.madvise(at(1), 2 * PAGE, Advice::WipeOnFork).unwrap();
    mm.madvise(at(2), PAGE, Advice::KeepOnFork).unwrap();
    world.manager.reclaim(100);
    let child = space.fork().unwrap();
    let look = |mm, page| world.load_byte(mm, 0, at(page)).unwrap();
    assert_eq!([0, 1, 2, 3].map(|page| look(child.mm(), page)), [1, 0, 3, 4]);
    world.store(child.mm(), 0, at(1), &[9]).unwrap();
    assert_eq!([0, 1, 2, 3].map(|page| look(mm, page)), [1, 2, 3, 4]);
    let grandchild = child.fork().unwrap();
    assert_eq!(look(grandchild.mm(), 1), 0, "a child's child too");
    world.check();
    let file = File::shared(&world.manager, PAGE);
    let access = FileAccess::READ;
    let source = Source::File { file: &file, offset: 0, access };
    let placement = Placement::Fixed(at(8));
    let request = MapRequest { source, placement, ..MapRequest::anonymous(PAGE) };
    mm.mmap(&request).unwrap();
    assert_eq!(mm.madvise(at(8), PAGE, Advice::WipeOnFork), Err(AdviseError::Unsuitable));
}

#[test]
fn mergeable_is_a_mark_of_its_regions_that_can_be_taken_back() {
    let world = world_with(64, Config::default());
    let space = world.process();
    let mm = space.mm();
    map(&space, 0, 4, RW);
    world.store(mm, 0, at(1), &[7]).unwrap();
    mm.madvise(at(1), 2 * PAGE, Advice::Mergeable).unwrap();
    let marks = |mm| -> Vec<bool> {
        regions(mm).iter().map(|region| region.flags.contains(VmaFlags::MERGEABLE)).collect()
    };
    assert_eq!(marks(mm), [false, true, false]);
    let child = space.fork().unwrap();
    assert_eq!(marks(child.mm()), [false, true, false]);
    mm.madvise(at(0), 4 * PAGE, Advice::Unmergeable).unwrap();
    assert_eq!(marks(mm), [false]);
    assert_eq!(world.load_byte(mm, 0, at(1)), Ok(7));
    assert_eq!(marks(child.mm()), [false, true, false]);
    world.check();
}

#[test]
fn a_seal_covers_all_or_nothing() {
    let world = world_with(64, Config::default());
    let space = world.process();
    let mm = space.mm();
    map(&space, 0, 4, RW);
    assert_eq!(mm.seal(at(2), 4 * PAGE), Err(SealError::Unmapped));
    assert!(regions(mm).iter().all(|it| !it.flags.contains(VmaFlags::SEALED)));
    assert_eq!(mm.seal(at(0) + 1, PAGE), Err(SealError::Unaligned));
    mm.seal(at(1), PAGE).unwrap();
    let sealed: Vec<_> = regions(mm).iter().map(|it| it.flags.contains(VmaFlags::SEALED)).collect();
    assert_eq!(sealed, [false, true, false]);
}

#[test]
fn the_limit_on_data_counts_what_only_the_program_writes() {
    let world = world_with(64, Config::default());
    let space = world.process();
    let mm = space.mm();
    map(&space, 0, 2, RW);
    map(&space, 10, 4, Protection::READ);
    mm.limits().data.store(4 * PAGE, Ordering::Relaxed);
    let more = |pages| {
        let placement = Placement::Fixed(at(20));
        mm.mmap(&MapRequest { placement, ..MapRequest::anonymous(pages * PAGE) })
    };
    assert_eq!(more(3), Err(MapError::DataLimit));
    assert_eq!(mm.mprotect(at(10), 3 * PAGE, RW), Err(ProtectError::DataLimit));
    mm.mprotect(at(10), PAGE, RW).unwrap();
    assert_eq!(more(1), Ok(at(20)));
    assert_eq!(more(2), Err(MapError::DataLimit));
    assert_eq!(more(1), Ok(at(20)), "what it replaces does not count");
}

/// Without swap, the last pages of files stay: programs run from them, and each that went would come
/// back with the next instruction.
#[test]
fn memory_that_ends_leaves_the_last_pages_of_files() {
    let world = world_with(1024, Config { fault_around: 1, ..Config::default() });
    let space = world.process();
    let mm = space.mm();
    let file = File::open(&world.manager, Arc::new(SimFile::new(vec![1; 32 * PAGE as usize])));
    let source = Source::File { file: &file, offset: 0, access: FileAccess::READ };
    let request = MapRequest {
        placement: Placement::Fixed(at(0)),
        protection: Protection::READ,
        source,
        ..MapRequest::anonymous(32 * PAGE)
    };
    mm.mmap(&request).unwrap();
    for page in 0..32 {
        world.load_byte(mm, 0, at(page)).unwrap();
    }
    map(&space, 100, 900, RW);
    let fault = |page| {
        let fault = PageFault::user(at(page), Access::Write);
        world.manager.page_fault(Some(mm), &fault, &world.tables)
    };
    let mut taken = 0;
    while fault(100 + taken) == Verdict::Resume {
        taken += 1;
        if taken == 900 {
            map(&space, 1000, 900, RW);
        }
    }
    assert_eq!(fault(100 + taken), Verdict::OutOfMemory);
    // A hundred-and-twenty-eighth of memory, and what one batch takes at once.
    assert!((1..=8).contains(&mm.usage().file), "{:?}", mm.usage());
    world.check();
}
