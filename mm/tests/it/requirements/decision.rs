//! What becomes of a fault (spec A).

use super::{map_file, world};
use crate::common::{BASE, PAGE, RW, World, at, map, stored};
use pagefault::entry::{Oops, SegvCode, Signal, Verdict};
use pagefault::exception::{ExceptionTable, ExceptionTables};
use pagefault::machine::{
    Access, Context, Cursor as _, Entry, ErrorCode, Machine as _, PageFault, Protection,
    Space as _, VirtAddr,
};
use pagefault::{AddressSpace, File, Limits, MapOptions, MapRequest, Placement, Sharing};
use pagefault_sim::{Architecture as _, X86_64};
use std::sync::atomic::AtomicU64;

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
fn a6_only_a_kernels_access_without_an_entry_has_the_table_brought_up_to_date() {
    let world = world(64);
    let space = world.process();
    let address = VirtAddr(X86_64::SYNCHRONISED.start);
    let frame = world.sim.allocate().unwrap();
    let entry = Entry::Present { frame, protection: RW, accessed: false, dirty: false };
    world.sim.kernel().lock(address..address + PAGE).unwrap().replace(address, entry);
    world.sim.cpu(0).switch(space.mm().space());
    let decide = |code| {
        let fault = kernel_fault(address.value(), code, 1);
        world.manager.page_fault(Some(space.mm()), &fault, &world.tables)
    };
    let oops = Verdict::Oops(Oops::PagingRequest);
    assert_eq!(decide(ErrorCode::USER), MAPERR, "a program's access");
    assert_eq!(decide(ErrorCode::PROTECTION), oops, "the entry is there");
    assert_eq!(decide(ErrorCode::RESERVED), oops, "the table is corrupt");
    assert_eq!(world.sim.stats().synchronisations, 0);
    assert_eq!(decide(ErrorCode::WRITE), Verdict::Resume);
    assert_eq!(world.sim.stats().synchronisations, 1);
}

#[test]
fn a23_beyond_the_end_of_a_file_the_kernel_goes_to_its_fixup() {
    let world = world(64);
    let space = world.process();
    let file = File::shared(&world.manager, PAGE);
    map_file(&space, &file, 0, 2, Sharing::Shared);
    let mut builder = ExceptionTable::builder();
    builder.add(VirtAddr(0x1000), VirtAddr(0x2000));
    let tables = ExceptionTables::new(builder.build().unwrap());
    let decide = |fault: &PageFault| world.manager.page_fault(Some(space.mm()), fault, &tables);
    let past = at(1).value();
    let fixup = Verdict::Fixup(VirtAddr(0x2000));
    assert_eq!(decide(&kernel_fault(past, ErrorCode::empty(), 0x1000)), fixup);
    let oops = Verdict::Oops(Oops::PagingRequest);
    assert_eq!(decide(&kernel_fault(past, ErrorCode::empty(), 0x1001)), oops);
    let user = PageFault::user(at(1), Access::Read);
    assert_eq!(decide(&user), Verdict::Signal(Signal::Bus));
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
