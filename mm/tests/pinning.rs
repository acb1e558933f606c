//! Pages that a device uses behind the processor's back (spec B20, E3, J6): while a page is pinned,
//! the device and the program that pinned it see the same bytes, whatever else happens.

mod common;

use common::{BASE, PAGE, World};
use pagefault::machine::{Access, Frame, Machine, Protection, VirtAddr};
use pagefault::{
    AddressSpace, Config, File, FileAccess, MapRequest, Placement, Sharing, Source, SyncMode,
};
use pagefault_sim::{Config as Computer, Sim, SimFile, Task, X86_64};
use std::sync::Arc;

const READ: Protection = Protection::READ;
const RW: Protection = READ.union(Protection::WRITE);

fn calm() -> (World<X86_64>, AddressSpace<Sim>) {
    on(Computer { frames: 64, cpus: 3, ..Computer::calm() })
}

fn on(machine: Computer) -> (World<X86_64>, AddressSpace<Sim>) {
    let (world, _) = World::new(machine, Config::default()).with_disk(128);
    let space = world.process();
    let request =
        MapRequest { placement: Placement::Fixed(BASE), ..MapRequest::anonymous(8 * PAGE) };
    space.mm().mmap(&request).unwrap();
    (world, space)
}

/// The device stores a byte at the start of a frame.
fn device_stores(world: &World<X86_64>, frame: Frame, byte: u8) {
    world.sim.fill(frame, |page| page[0] = byte);
}

fn device_loads(world: &World<X86_64>, frame: Frame) -> u8 {
    world.sim.drain(frame, |page| page[0])
}

/// Device and program see each other's stores, both ways.
#[track_caller]
fn assert_coherent(world: &World<X86_64>, space: &AddressSpace<Sim>, at: VirtAddr, frame: Frame) {
    device_stores(world, frame, 0xd1);
    assert_eq!(world.load_byte(space.mm(), 1, at), Ok(0xd1), "the device's store");
    world.store(space.mm(), 0, at, &[0xc2]).unwrap();
    assert_eq!(device_loads(world, frame), 0xc2, "the program's store");
}

#[test]
fn e3_a_fork_copies_pinned_pages() {
    let (world, space) = calm();
    for page in 0..3 {
        world.store(space.mm(), 0, BASE + page * PAGE, &[10 + page as u8]).unwrap();
    }
    let pin = space.mm().pin(BASE + PAGE..BASE + 2 * PAGE, Access::Write).unwrap();
    let frame = pin.frames()[0];
    let child = space.fork().unwrap();
    world.check();
    assert_coherent(&world, &space, BASE + PAGE, frame);
    for page in 0..3 {
        let seen = world.load_byte(child.mm(), 0, BASE + page * PAGE);
        assert_eq!(seen, Ok(10 + page as u8), "the child has what was there at the fork");
        world.store(child.mm(), 0, BASE + page * PAGE, &[77]).unwrap();
    }
    assert_eq!(device_loads(&world, frame), 0xc2);
    assert_eq!(world.load_byte(space.mm(), 0, BASE), Ok(10));
    world.check();
    drop(pin);
    drop((child, space));
    world.check_empty();
}

/// In a region without the right to store at the moment of the fork, too.
#[test]
fn e3_a_fork_copies_pinned_pages_that_are_read_only() {
    let (world, space) = calm();
    world.store(space.mm(), 0, BASE, &[5]).unwrap();
    let pin = space.mm().pin(BASE..BASE + PAGE, Access::Write).unwrap();
    space.mm().mprotect(BASE, PAGE, READ).unwrap();
    let child = space.fork().unwrap();
    device_stores(&world, pin.frames()[0], 6);
    assert_eq!(world.load_byte(child.mm(), 0, BASE), Ok(5));
    assert!(world.store(child.mm(), 0, BASE, &[7]).is_err());
    world.check();
    space.mm().mprotect(BASE, PAGE, RW).unwrap();
    assert_coherent(&world, &space, BASE, pin.frames()[0]);
    world.check();
}

/// mprotect takes the right to store away and gives it back; the store that then faults must not
/// leave the device with the old page.
#[test]
fn j6_a_store_after_mprotect_reuses_a_pinned_page() {
    for access in [Access::Read, Access::Write] {
        let (world, space) = calm();
        world.store(space.mm(), 0, BASE, &[1]).unwrap();
        let pin = space.mm().pin(BASE..BASE + PAGE, access).unwrap();
        space.mm().mprotect(BASE, PAGE, READ).unwrap();
        space.mm().mprotect(BASE, PAGE, RW).unwrap();
        assert_coherent(&world, &space, BASE, pin.frames()[0]);
        world.check();
    }
}

/// A page shared with a child, or shown from a file, or the frame of zeros, gets its own copy when
/// it is pinned: a later store would part the program from the device.
#[test]
fn j6_a_pin_for_reading_has_a_page_of_its_own() {
    let (world, space) = calm();
    world.store(space.mm(), 0, BASE, &[3]).unwrap();
    let child = space.fork().unwrap();
    let file = File::open(&world.manager, Arc::new(SimFile::pattern(2 * PAGE, 9)));
    let source = Source::File { file: &file, offset: 0, access: FileAccess::READ };
    let placement = Placement::Fixed(BASE + 16 * PAGE);
    let request = MapRequest { source, placement, ..MapRequest::anonymous(PAGE) };
    space.mm().mmap(&request).unwrap();
    assert_eq!(world.load_byte(space.mm(), 0, BASE + PAGE), Ok(0));
    for page in [0, 1, 16] {
        let at = BASE + page * PAGE;
        let before = world.load_byte(space.mm(), 0, at).unwrap();
        let pin = space.mm().pin(at..at + PAGE, Access::Read).unwrap();
        assert_eq!(device_loads(&world, pin.frames()[0]), before);
        assert_coherent(&world, &space, at, pin.frames()[0]);
        world.check();
    }
    assert_eq!(world.load_byte(child.mm(), 0, BASE), Ok(3), "the child keeps its own");
    // A region that may not be stored to stays so.
    let at = BASE + 2 * PAGE;
    space.mm().mprotect(at, PAGE, READ).unwrap();
    let _pin = space.mm().pin(at..at + PAGE, Access::Read).unwrap();
    assert!(world.store(space.mm(), 0, at, &[1]).is_err());
    world.check();
}

#[test]
fn i17_what_a_device_stored_after_a_sync_reaches_the_file() {
    let (world, space) = calm();
    let store = SimFile::pattern(PAGE, 9);
    let file = File::open(&world.manager, Arc::new(store.clone()));
    let access = FileAccess::READ | FileAccess::WRITE;
    let source = Source::File { file: &file, offset: 0, access };
    let (placement, sharing) = (Placement::Fixed(BASE + 16 * PAGE), Sharing::Shared);
    let request = MapRequest { source, placement, sharing, ..MapRequest::anonymous(PAGE) };
    let at = space.mm().mmap(&request).unwrap();
    let pin = space.mm().pin(at..at + PAGE, Access::Write).unwrap();
    space.mm().msync(at, PAGE, SyncMode::Sync).unwrap();
    device_stores(&world, pin.frames()[0], 0xd2);
    drop(pin);
    space.mm().msync(at, PAGE, SyncMode::Sync).unwrap();
    assert_eq!(store.contents()[0], 0xd2);
    world.check();
}

/// Nothing takes a pinned page away, and a page is as it was when its last pin is gone.
#[test]
fn b20_reclaim_leaves_pinned_pages_alone() {
    let (world, space) = calm();
    world.store(space.mm(), 0, BASE, &[9]).unwrap();
    let first = space.mm().pin(BASE..BASE + PAGE, Access::Write).unwrap();
    let second = space.mm().pin(BASE..BASE + PAGE, Access::Read).unwrap();
    assert_eq!(first.frames(), second.frames());
    assert_eq!(world.manager.reclaim(10), 0);
    drop(first);
    assert_eq!(world.manager.reclaim(10), 0);
    space.mm().mprotect(BASE, PAGE, READ).unwrap();
    space.mm().mprotect(BASE, PAGE, RW).unwrap();
    assert_coherent(&world, &space, BASE, second.frames()[0]);
    drop(second);
    assert_eq!(world.manager.reclaim(10), 1);
    assert_eq!(world.load_byte(space.mm(), 0, BASE), Ok(0xc2));
    world.check();
}

/// A pin, the device's store, and a fork, a store or reclaim in every order.
#[test]
fn e3_pins_against_forks_stores_and_reclaim() {
    // With 1684 the page once was freed between the look at its entry and the reference to it.
    for seed in (0..200).chain([1684]) {
        let machine = Computer { seed, frames: 64, cpus: 3, ..Computer::default() };
        let (world, space) = on(machine);
        world.store(space.mm(), 0, BASE, &[1]).unwrap();
        let device: Task<'_> = Box::new(|| {
            for round in 0..3 {
                let pin = space.mm().pin(BASE..BASE + PAGE, Access::Write).unwrap();
                space.mm().mprotect(BASE, PAGE, READ).unwrap();
                space.mm().mprotect(BASE, PAGE, RW).unwrap();
                world.sim.fill(pin.frames()[0], |page| page[9] = round);
                assert_eq!(world.load_byte(space.mm(), 0, BASE + 9), Ok(round));
            }
        });
        let fork: Task<'_> = Box::new(|| {
            let child = space.fork().unwrap();
            let seen = world.load_byte(child.mm(), 1, BASE + 9);
            for _ in 0..3 {
                assert_eq!(world.load_byte(child.mm(), 1, BASE + 9), seen);
            }
            // The fork may have come while the page was read-only for a moment.
            child.mm().mprotect(BASE, PAGE, RW).unwrap();
            world.store(child.mm(), 1, BASE + 9, &[200]).unwrap();
        });
        let user: Task<'_> = Box::new(|| {
            for round in 0..4 {
                // Refused while the page is read-only for a moment.
                while world.store(space.mm(), 2, BASE, &[round]).is_err() {}
                world.manager.reclaim(2);
            }
        });
        world.sim.explore(seed, vec![device, fork, user]);
        assert_eq!(world.load_byte(space.mm(), 0, BASE + 9), Ok(2), "seed {seed}");
        assert_eq!(world.load_byte(space.mm(), 0, BASE), Ok(3), "seed {seed}");
        world.check();
        drop(space);
        world.manager.reclaim(1000);
        world.check_empty();
    }
}
