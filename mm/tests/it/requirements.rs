//! Requirements of the specification, one by one, on the simulated computer.

use crate::common::{BASE, PAGE, RW, World, at, map, stored, world_with};
use pagefault::entry::{Oops, SegvCode, Signal, Verdict};
use pagefault::error::{AdviseError, FileError, LockError, RemapError};
use pagefault::exception::{ExceptionTable, ExceptionTables};
use pagefault::machine::{
    Access, Context, Entry, ErrorCode, Machine as _, PageFault, Protection, SwapSlot, VirtAddr,
};
use pagefault::swap::area::Priority;
use pagefault::{
    AddressSpace, Advice, Config, File, FileAccess, Limits, MapOptions, MapRequest, Move,
    NonlinearPolicy, Overcommit, Placement, RemapRequest, Sharing, Source, ZeroPolicy,
};
use pagefault_sim::{Architecture, Config as Machine, Ia32, Sim, SimFile, X86_64};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

fn world(frames: u32) -> World<X86_64> {
    world_with(frames, Config::default())
}

fn map_file(space: &AddressSpace<Sim>, file: &File<Sim>, first: u64, pages: u64, how: Sharing) {
    let access = FileAccess::READ | FileAccess::WRITE;
    let request = MapRequest {
        placement: Placement::Fixed(at(first)),
        sharing: how,
        source: Source::File { file, offset: 0, access },
        ..MapRequest::anonymous(pages * PAGE)
    };
    space.mm().mmap(&request).unwrap();
}

const MAPERR: Verdict = Verdict::Signal(Signal::Segv(SegvCode::MapErr));
const ACCERR: Verdict = Verdict::Signal(Signal::Segv(SegvCode::AccErr));

/// A kernel-mode fault at an instruction.
fn kernel_fault(address: u64, code: ErrorCode, ip: u64) -> PageFault {
    let user = PageFault::user(VirtAddr(address), Access::Read);
    PageFault { code, ip: VirtAddr(ip), ..user }
}

#[test]
fn a8_kernel_addresses_are_nobodys_to_touch() {
    let world = world(64);
    let space = world.process();
    let high = VirtAddr(0xffff_c200_0000_0000);
    let user = PageFault::user(high, Access::Read);
    assert_eq!(world.manager.page_fault(Some(space.mm()), &user, &world.tables), MAPERR);
    let kernel = kernel_fault(high.value(), ErrorCode::empty(), 1);
    let verdict = world.manager.page_fault(Some(space.mm()), &kernel, &world.tables);
    assert_eq!(verdict, Verdict::Oops(Oops::PagingRequest));
}

#[test]
fn a10_a_reserved_bit_means_a_corrupt_table() {
    let world = world(64);
    let space = world.process();
    let code = ErrorCode::PROTECTION | ErrorCode::RESERVED | ErrorCode::USER;
    let fault = PageFault { code, ..PageFault::user(BASE, Access::Read) };
    let verdict = world.manager.page_fault(Some(space.mm()), &fault, &world.tables);
    assert_eq!(verdict, Verdict::Corrupt);
}

#[test]
fn a11_who_may_not_sleep_is_not_helped() {
    let world = world(64);
    let space = world.process();
    map(&space, 0, 1, RW);
    let mut fault = kernel_fault(BASE.value(), ErrorCode::WRITE, 7);
    fault.context = Context::Atomic;
    let oops = Verdict::Oops(Oops::PagingRequest);
    assert_eq!(world.manager.page_fault(Some(space.mm()), &fault, &world.tables), oops);
    assert_eq!(world.manager.page_fault(None, &fault, &world.tables), oops);
    assert_eq!(space.mm().usage().anonymous, 0);
}

#[test]
fn a21_fixups_and_the_wording_of_an_oops() {
    let world = world(64);
    let space = world.process();
    let mut builder = ExceptionTable::builder();
    builder.add(VirtAddr(0x1000), VirtAddr(0x2000));
    let tables = ExceptionTables::new(builder.build().unwrap());
    let decide = |address, ip| {
        let fault = kernel_fault(address, ErrorCode::empty(), ip);
        world.manager.page_fault(Some(space.mm()), &fault, &tables)
    };
    assert_eq!(decide(8, 0x1000), Verdict::Fixup(VirtAddr(0x2000)));
    assert_eq!(decide(8, 0x1001), Verdict::Oops(Oops::NullPointer));
    assert_eq!(decide(PAGE, 0x1001), Verdict::Oops(Oops::PagingRequest));
}

#[test]
fn a24_the_machine_is_asked_before_anybody_gets_a_signal() {
    let world = world(64);
    let space = world.process();
    map(&space, 0, 1, RW);
    // A prefetch, and a load.
    world.store(space.mm(), 0, at(0), &[0x0f, 0x18, 0x08, 0x8a, 0x00]).unwrap();
    let decide = |ip| {
        let fault = PageFault { ip, ..PageFault::user(at(9), Access::Read) };
        world.manager.page_fault(Some(space.mm()), &fault, &world.tables)
    };
    assert_eq!(decide(at(0)), Verdict::Resume);
    assert_eq!(decide(at(0) + 3), Verdict::Signal(Signal::Segv(SegvCode::MapErr)));
    assert_eq!(world.manager.counters().refused, 1);
}

#[test]
fn a16_what_each_protection_allows() {
    let world = world(64);
    let space = world.process();
    let mm = space.mm();
    map(&space, 0, 1, Protection::READ);
    map(&space, 2, 1, Protection::WRITE);
    map(&space, 4, 1, Protection::empty());
    assert_eq!(world.load_byte(mm, 0, at(0)), Ok(0));
    assert_eq!(world.store(mm, 0, at(0), &[1]), Err(ACCERR));
    assert_eq!(world.store(mm, 0, at(2), &[1]), Ok(()));
    assert_eq!(world.load_byte(mm, 0, at(2)), Ok(1), "what can be written can be read");
    assert_eq!(world.load_byte(mm, 0, at(4)), Err(ACCERR));
    assert_eq!(world.load_byte(mm, 0, at(5)), Err(MAPERR));
}

#[test]
fn a14_a15_stacks_grow_as_far_as_they_may() {
    // The growth is charged against memory and swap.
    let world = world(512);
    let limits = Limits { stack: AtomicU64::new(301 * PAGE), ..Limits::default() };
    let (layout, table) = (World::<X86_64>::layout(), world.sim.space().unwrap());
    let space = AddressSpace::with_space(&world.manager, layout, limits, table);
    let mm = space.mm();
    let stack = MapRequest {
        placement: Placement::Fixed(at(1000)),
        options: MapOptions::GROWSDOWN,
        ..MapRequest::anonymous(PAGE)
    };
    mm.mmap(&stack).unwrap();
    map(&space, 700, 1, RW);
    assert_eq!(world.store(mm, 0, at(990), &[1]), Ok(()));
    assert_eq!(mm.usage().total, 12);
    // 256 pages below the stack stay free of other mappings.
    assert_eq!(world.store(mm, 0, at(701 + 256), &[1]), Ok(()));
    assert_eq!(world.store(mm, 0, at(701 + 255), &[1]), Err(MAPERR));
    mm.munmap(at(700), PAGE).unwrap();
    assert_eq!(world.store(mm, 0, at(1001 - 301), &[1]), Ok(()));
    assert_eq!(world.store(mm, 0, at(1001 - 302), &[1]), Err(MAPERR), "over its limit");
    world.check();
}

#[test]
fn a19_faults_count_once_and_refusals_do_not() {
    let (world, _disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 2);
    let _ = world.load_byte(space.mm(), 0, at(9));
    let usage = space.mm().usage();
    assert_eq!((usage.minor, usage.major), (2, 0));
    world.manager.reclaim(10);
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(1));
    let usage = space.mm().usage();
    assert_eq!((usage.minor, usage.major), (2, 1));
    assert_eq!(world.manager.counters().refused, 1);
}

#[test]
fn a22_memory_that_is_full_kills_and_goes_on() {
    let (world, _disk) = world(48).with_disk(17);
    let (hungry, modest) = (world.process(), world.process());
    stored(&world, &modest, 3);
    let request = MapRequest {
        options: MapOptions::NORESERVE,
        placement: Placement::Fixed(at(0)),
        ..MapRequest::anonymous(200 * PAGE)
    };
    hungry.mm().mmap(&request).unwrap();
    let verdict = (0..200).find_map(|page| world.store(hungry.mm(), 0, at(page), &[1]).err());
    assert_eq!(verdict, Some(Verdict::OutOfMemory));
    world.check();
    let kernel = kernel_fault(at(199).value(), ErrorCode::WRITE, 5);
    let oops = Verdict::Oops(Oops::OutOfMemory);
    assert_eq!(world.manager.page_fault(Some(hungry.mm()), &kernel, &world.tables), oops);
    drop(hungry);
    for page in 0..3 {
        assert_eq!(world.load_byte(modest.mm(), 0, at(page)), Ok(page as u8 + 1));
    }
    assert_eq!(world.store(modest.mm(), 0, at(0), &[9]), Ok(()));
    drop(modest);
    world.check_empty();
}

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

/// Pages out of their place stay where remap_file_pages put them, whatever takes them away.
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

#[test]
fn c17_what_is_locked_counts_once_towards_the_limit() {
    let (world, _disk) = world(64).with_disk(64);
    let space = world.process();
    map(&space, 0, 20, RW);
    space.mm().limits().locked.store(8 * PAGE, std::sync::atomic::Ordering::Relaxed);
    space.mm().mlock(at(0), 6 * PAGE).unwrap();
    // Six of these eight are locked already.
    space.mm().mlock(at(0), 8 * PAGE).unwrap();
    assert_eq!(space.mm().mlock(at(4), 5 * PAGE), Err(LockError::OverLimit));
    assert_eq!(space.mm().mlock_on_fault(at(10), PAGE), Err(LockError::OverLimit));
    space.mm().munlock(at(0), 4 * PAGE).unwrap();
    space.mm().mlock_on_fault(at(10), 4 * PAGE).unwrap();
    let usage = space.mm().usage();
    assert_eq!((usage.locked, usage.anonymous), (8, 8));
    // What comes later stays, though nobody brought it in.
    world.store(space.mm(), 0, at(11), &[1]).unwrap();
    world.manager.reclaim(100);
    assert_eq!(space.mm().usage().anonymous, 5);
    world.check();
}

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

#[test]
fn f4_every_entry_counts_at_its_slot() {
    let (world, _disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 1);
    world.manager.reclaim(10);
    let areas = world.manager.swap_areas();
    let slot = SwapSlot { area: 0, offset: 1 };
    assert_eq!(areas.references(slot), 1);
    let children = [space.fork().unwrap(), space.fork().unwrap()];
    assert_eq!(areas.references(slot), 3);
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(1));
    assert_eq!(areas.references(slot), 3, "the cache's in the place of the parent's");
    drop(children);
    assert_eq!(areas.references(slot), 1);
    drop(space);
    world.check_empty();
}

#[test]
fn f5_areas_fill_by_priority_and_spill_when_full() {
    let world = world(64);
    let (low, slow) = world.add_disk(64, Priority::Descending);
    let (high, fast) = world.add_disk(64, Priority::Given(10));
    assert_ne!(low, high);
    fast.set_capacity(2);
    let space = world.process();
    stored(&world, &space, 5);
    world.manager.reclaim(10);
    assert_eq!((fast.stats().stored, slow.stats().stored), (2, 3));
    world.check();
    for page in 0..5 {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)), Ok(page as u8 + 1));
    }
}

#[test]
fn f12_an_area_that_cannot_be_emptied_stays() {
    let (world, disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 3);
    world.manager.reclaim(10);
    disk.fail_nth_read(2);
    assert_eq!(world.manager.swap_off(0), Err(pagefault::error::SwapOffError::Io));
    world.check();
    assert_eq!(world.manager.swap_off(0), Ok(()), "it can be tried again");
    for page in 0..3 {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)), Ok(page as u8 + 1));
    }
}

/// A frame is not used again before the flush that covers it: the computer panics otherwise.
#[test]
fn g4_frames_wait_for_their_flush() {
    let machine = Machine { frames: 96, cpus: 4, ..Machine::calm() };
    let world = World::<X86_64>::new(machine, Config::default());
    let space = world.process();
    for round in 0..20u8 {
        map(&space, 0, 30, RW);
        for page in 0..30 {
            world.store(space.mm(), u32::from(round) % 4, at(page), &[round]).unwrap();
            assert_eq!(world.load_byte(space.mm(), 1, at(page)), Ok(round));
        }
        space.mm().munmap(at(0), 30 * PAGE).unwrap();
        assert_eq!(world.sim.usage().allocated, 0);
    }
    world.check();
}

#[test]
fn j9_freed_pages_go_without_being_written() {
    let (world, disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 4);
    space.mm().madvise(at(0), 2 * PAGE, Advice::Free).unwrap();
    world.store(space.mm(), 0, at(1), &[8]).unwrap();
    world.manager.reclaim(10);
    assert_eq!(disk.stats().writes, 3);
    let look = |page| world.load_byte(space.mm(), 0, at(page));
    assert_eq!((look(0), look(1), look(2)), (Ok(0), Ok(8), Ok(3)));
}

/// What `/proc/PID/pagemap` is made of: resident, shared after a fork, zeros, in swap, absent.
#[test]
fn pages_report_where_each_one_is() {
    let (world, _disk) = world(64).with_disk(64);
    let space = world.process();
    stored(&world, &space, 2);
    world.manager.reclaim(10);
    world.store(space.mm(), 0, at(1), &[9]).unwrap();
    map(&space, 4, 2, RW);
    world.load_byte(space.mm(), 0, at(4)).unwrap();
    let child = space.fork().unwrap();
    let mut seen = Vec::new();
    space.pages(at(0)..at(2000), |page| {
        let where_ = match page.entry {
            Entry::Present { .. } => "present",
            Entry::Swap(_) => "swap",
            _ => "other",
        };
        seen.push(((page.address - at(0)) / PAGE, where_, page.anonymous, page.maps));
    });
    assert_eq!(seen, [(0, "swap", true, 0), (1, "present", true, 2), (4, "present", true, 0)]);
    drop(child);
}

/// IA-32's entries hold 24 bits of a slot's number, x86-64's all 32.
#[test]
fn f3_a_swap_area_ends_where_entries_can_name_no_slot() {
    fn slots<A: Architecture>() -> u32 {
        let world = World::<A>::new(Machine::calm(), Config::default());
        world.add_disk(1 << 25, Priority::Descending);
        world.manager.swap_areas().total() as u32
    }
    assert_eq!(slots::<Ia32>(), (1 << 24) - 1);
    assert_eq!(slots::<X86_64>(), (1 << 25) - 1);
}
