//! Pages that a device uses behind the processor's back (spec B20, E3, J6): while a page is pinned,
//! the device and the program that pinned it see the same bytes, whatever else happens.

use crate::common::{BASE, PAGE, World};
use pagefault::error::UserError;
use pagefault::machine::{Access, Cursor, Entry, Frame, Machine, Protection, Space, VirtAddr};
use pagefault::{
    AddressSpace, Advice, Config, File, FileAccess, MapRequest, Placement, Sharing, Source,
    SyncMode,
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

/// Reclaim of more pages than there are ends, although a pinned page comes back to its queue again and again.
#[test]
fn b20_reclaim_without_accessed_bits_ends() {
    let (world, space) = on(Computer { frames: 64, accessed_bits: false, ..Computer::calm() });
    for page in 0..8 {
        world.store(space.mm(), 0, BASE + page * PAGE, &[page as u8]).unwrap();
    }
    let pin = space.mm().pin(BASE..BASE + PAGE, Access::Read).unwrap();
    assert_eq!(world.manager.reclaim(usize::MAX), 7);
    drop(pin);
    assert_eq!(world.manager.reclaim(usize::MAX), 1);
    world.check();
}

/// A page's entry.
fn entry(space: &AddressSpace<Sim>, at: VirtAddr) -> Entry {
    space.space().lock_existing(at..at + PAGE).map_or(Entry::None, |cursor| cursor.entry(at))
}

/// Through the entry a device that knows nothing but the page table could store to the pinned page.
#[track_caller]
fn assert_ready(space: &AddressSpace<Sim>, at: VirtAddr, frame: Frame) {
    let entry = entry(space, at);
    assert_eq!(entry.frame(), Some(frame), "the page is where it was pinned");
    assert!(matches!(entry, Entry::Present { dirty: true, .. }), "{entry:?}");
    assert!(entry.is_writable(), "{entry:?}");
}

/// Maps a file of two pages, shared.
fn shared_file(world: &World<X86_64>, space: &AddressSpace<Sim>) -> (VirtAddr, SimFile) {
    let store = SimFile::pattern(2 * PAGE, 9);
    let file = File::open(&world.manager, Arc::new(store.clone()));
    let access = FileAccess::READ | FileAccess::WRITE;
    let source = Source::File { file: &file, offset: 0, access };
    let (placement, sharing) = (Placement::Fixed(BASE + 16 * PAGE), Sharing::Shared);
    let request = MapRequest { source, placement, sharing, ..MapRequest::anonymous(2 * PAGE) };
    (space.mm().mmap(&request).unwrap(), store)
}

/// Maps shared anonymous memory.
fn shared_memory(space: &AddressSpace<Sim>) -> VirtAddr {
    let (placement, sharing) = (Placement::Fixed(BASE + 32 * PAGE), Sharing::Shared);
    space.mm().mmap(&MapRequest { placement, sharing, ..MapRequest::anonymous(2 * PAGE) }).unwrap()
}

/// A present page needs no fault and no flush.
#[test]
fn a_pin_of_resident_pages_changes_nothing() {
    let (world, space) = calm();
    let (file, _) = shared_file(&world, &space);
    let memory = shared_memory(&space);
    for at in [BASE, BASE + PAGE, file, memory] {
        world.store(space.mm(), 0, at, &[1]).unwrap();
    }
    let before = (world.manager.counters(), space.usage(), world.sim.stats().flushes);
    for access in [Access::Read, Access::Write] {
        for range in [BASE..BASE + 2 * PAGE, file..file + PAGE, memory..memory + PAGE] {
            let pages = ((range.end - range.start) / PAGE) as usize;
            let pin = space.mm().pin(range, access).unwrap();
            assert_eq!(pin.frames().len(), pages);
        }
    }
    let mut byte = [0];
    assert_eq!(space.mm().copy_from_user(BASE, &mut byte), 0);
    assert_eq!((byte, space.mm().copy_to_user(BASE, &[2])), ([1], 0));
    space.mm().mlock(BASE, 2 * PAGE).unwrap();
    space.mm().madvise(BASE, 2 * PAGE, Advice::PopulateWrite).unwrap();
    let after = (world.manager.counters(), space.usage(), world.sim.stats().flushes);
    assert_eq!((before.0, before.2), (after.0, after.2));
    assert_eq!((before.1.minor, before.1.major), (after.1.minor, after.1.major));
    world.check();
}

/// On every kind of machine, and whatever the page was before.
#[test]
fn a_pin_for_writing_leaves_the_entry_ready() {
    for (zero_frame, dirty_bits) in [(true, true), (true, false), (false, false)] {
        let machine = Computer { frames: 64, cpus: 3, zero_frame, dirty_bits, ..Computer::calm() };
        let (world, space) = on(machine);
        let (file, _) = shared_file(&world, &space);
        let memory = shared_memory(&space);
        // Read as zeros; swapped; shared with a child; read from the file; read of shared memory.
        world.load_byte(space.mm(), 0, BASE + PAGE).unwrap();
        world.store(space.mm(), 0, BASE + 2 * PAGE, &[2]).unwrap();
        world.manager.reclaim(100);
        world.store(space.mm(), 0, BASE + 3 * PAGE, &[3]).unwrap();
        let child = space.fork().unwrap();
        world.load_byte(space.mm(), 0, file).unwrap();
        world.load_byte(space.mm(), 0, memory).unwrap();
        let pages = (0..5).map(|page| BASE + page * PAGE);
        for at in pages.chain([file, file + PAGE, memory, memory + PAGE]) {
            let pin = space.mm().pin(at..at + PAGE, Access::Write).unwrap();
            assert_ready(&space, at, pin.frames()[0]);
            assert_coherent(&world, &space, at, pin.frames()[0]);
            world.check();
        }
        drop((child, space));
        world.manager.reclaim(1000);
        world.check_empty();
    }
}

#[test]
fn b20_a_pinned_page_is_ready_whatever_is_done_to_make_room() {
    let (world, space) = calm();
    let (file, store) = shared_file(&world, &space);
    let memory = shared_memory(&space);
    let pages = [BASE, file, memory];
    let pins = pages.map(|at| space.mm().pin(at..at + PAGE, Access::Write).unwrap());
    let still = || {
        for (at, pin) in pages.iter().zip(&pins) {
            assert_ready(&space, *at, pin.frames()[0]);
        }
        world.check();
    };
    // The pages read ahead with the file's page may leave.
    world.manager.reclaim(10);
    for _ in 0..4 {
        assert_eq!(world.manager.reclaim(10), 0);
        still();
    }
    for at in pages {
        for advice in [Advice::Cold, Advice::PageOut, Advice::Free, Advice::WillNeed] {
            // Only private anonymous memory can be free.
            let done = space.mm().madvise(at, PAGE, advice);
            assert!(done.is_ok() || advice == Advice::Free && at != BASE, "{advice:?} {done:?}");
            still();
        }
    }
    // Twice: what the device stores after the first goes out with the second.
    for round in [0x31, 0x32] {
        device_stores(&world, pins[1].frames()[0], round);
        space.mm().msync(file, PAGE, SyncMode::Sync).unwrap();
        assert_eq!(store.contents()[0], round);
        still();
    }
    let child = space.fork().unwrap();
    still();
    drop(child);
    space.mm().mlock(BASE, PAGE).unwrap();
    space.mm().munlock(BASE, PAGE).unwrap();
    still();
}

/// A store by the device after the round trip makes no fault that would give the right back.
#[test]
fn a_pinned_page_is_ready_again_when_mprotect_allows_stores_again() {
    for dirty_bits in [true, false] {
        let machine = Computer { frames: 64, cpus: 3, dirty_bits, ..Computer::calm() };
        let (world, space) = on(machine);
        let pin = space.mm().pin(BASE..BASE + PAGE, Access::Write).unwrap();
        for protection in [READ, Protection::empty()] {
            space.mm().mprotect(BASE, PAGE, protection).unwrap();
            assert!(!entry(&space, BASE).is_writable());
            space.mm().mprotect(BASE, PAGE, RW).unwrap();
            assert_ready(&space, BASE, pin.frames()[0]);
            world.check();
        }
        // Swapped out afterwards, the content is what the device stored last.
        device_stores(&world, pin.frames()[0], 0x77);
        drop(pin);
        assert_eq!(world.manager.reclaim(10), 1);
        assert_eq!(world.load_byte(space.mm(), 0, BASE), Ok(0x77));
    }
}

/// The content goes, as it must; the device and the program still see the same page.
#[test]
fn c16_dontneed_empties_a_pinned_page_and_leaves_it_in_place() {
    let (world, space) = calm();
    let memory = shared_memory(&space);
    for (at, left) in [(BASE, 0), (memory, 5)] {
        world.store(space.mm(), 0, at, &[5]).unwrap();
        world.store(space.mm(), 0, at + PAGE, &[6]).unwrap();
        let pin = space.mm().pin(at..at + PAGE, Access::Write).unwrap();
        space.mm().madvise(at, 2 * PAGE, Advice::DontNeed).unwrap();
        assert_ready(&space, at, pin.frames()[0]);
        assert_eq!(world.load_byte(space.mm(), 0, at), Ok(left));
        assert_eq!(world.load_byte(space.mm(), 0, at + PAGE), Ok(if left == 0 { 0 } else { 6 }));
        assert_coherent(&world, &space, at, pin.frames()[0]);
        world.check();
    }
}

/// What can be pinned of a range is, up to the first page that cannot.
#[test]
fn a_pin_of_a_range_with_a_bad_page_says_how_far_it_came() {
    let (world, space) = calm();
    space.mm().munmap(BASE + 3 * PAGE, PAGE).unwrap();
    let (pin, refused) = space.mm().pin_prefix(BASE + 7..BASE + 5 * PAGE, Access::Write);
    assert_eq!((pin.frames().len(), refused), (3, Some(UserError::BadAddress)));
    let whole = space.mm().pin(BASE..BASE + 5 * PAGE, Access::Write);
    assert_eq!(whole.err(), Some(UserError::BadAddress));
    for range in [BASE..BASE, BASE + 1..BASE] {
        assert!(space.mm().pin(range, Access::Read).unwrap().frames().is_empty());
    }
    let beyond = VirtAddr(u64::MAX - PAGE)..VirtAddr(u64::MAX);
    assert_eq!(space.mm().pin(beyond, Access::Read).err(), Some(UserError::BadAddress));
    drop(pin);
    drop(space);
    world.check_empty();
}

/// While it is pinned, a page stays present, whichever thread makes room.
#[test]
fn b20_pins_against_reclaim_advice_and_syncs() {
    for seed in 0..200 {
        let dirty_bits = seed % 2 == 0;
        let machine = Computer { seed, frames: 64, cpus: 3, dirty_bits, ..Computer::default() };
        let (world, space) = on(machine);
        let (file, store) = shared_file(&world, &space);
        let memory = shared_memory(&space);
        let pages = [BASE, file, memory];
        let device: Task<'_> = Box::new(|| {
            for round in 1..4 {
                for at in pages {
                    let pin = space.mm().pin(at..at + PAGE, Access::Write).unwrap();
                    for _ in 0..3 {
                        assert_ready(&space, at, pin.frames()[0]);
                    }
                    device_stores(&world, pin.frames()[0], round);
                    assert_ready(&space, at, pin.frames()[0]);
                }
            }
        });
        let room: Task<'_> = Box::new(|| {
            for _ in 0..3 {
                world.manager.reclaim(4);
                for at in pages {
                    space.mm().madvise(at, PAGE, Advice::PageOut).unwrap();
                }
                drop(space.fork().unwrap());
            }
        });
        let sync: Task<'_> = Box::new(|| {
            for _ in 0..4 {
                space.mm().msync(file, PAGE, SyncMode::Sync).unwrap();
                world.store(space.mm(), 2, file + 1, &[9]).unwrap();
                world.load_byte(space.mm(), 2, BASE).unwrap();
            }
        });
        world.sim.explore(seed, vec![device, room, sync]);
        for at in pages {
            assert_eq!(world.load_byte(space.mm(), 0, at), Ok(3), "seed {seed}");
        }
        space.mm().msync(file, PAGE, SyncMode::Sync).unwrap();
        assert_eq!(store.contents()[..2], [3, 9], "seed {seed}");
        world.check();
        drop(space);
        world.manager.reclaim(1000);
        world.check_empty();
    }
}

/// A page that is clean and only read needs no page lock to be pinned: reclaim must see the pin.
#[test]
fn b20_pins_of_clean_pages_against_reclaim() {
    for seed in 0..300 {
        let (world, space) = on(Computer { seed, frames: 64, cpus: 3, ..Computer::default() });
        let (file, _) = shared_file(&world, &space);
        let device: Task<'_> = Box::new(|| {
            for _ in 0..12 {
                let pin = space.mm().pin(file..file + PAGE, Access::Read).unwrap();
                for _ in 0..2 {
                    assert_eq!(entry(&space, file).frame(), Some(pin.frames()[0]));
                }
            }
        });
        let room: Task<'_> = Box::new(|| {
            for _ in 0..8 {
                space.mm().madvise(file, PAGE, Advice::PageOut).unwrap();
            }
        });
        world.sim.explore(seed, vec![device, room]);
        world.check();
    }
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
