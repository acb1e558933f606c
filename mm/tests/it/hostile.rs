//! Arguments that no careful caller passes: each is answered, and nothing breaks.

use crate::common::{PAGE, World, at, stored, world_with};
use pagefault::machine::{Access, Frame, SwapSlot, VirtAddr};
use pagefault::oom::{Candidate, Choice, Standing};
use pagefault::{
    Advice, Config, File, MapOptions, MapRequest, Move, RemapRequest, Sharing, SyncMode,
};
use pagefault_sim::{SimFile, X86_64};
use std::sync::Arc;

/// Addresses and numbers at the ends of what a word can hold, and beside them.
const ENDS: [u64; 9] =
    [0, 1, 0xfff, 0x4000_0000, 0x4000_0001, 1 << 40, 1 << 47, u64::MAX - 0xfff, u64::MAX];

fn world() -> World<X86_64> {
    world_with(128, Config::default()).with_disk(256).0
}

#[test]
fn every_range_is_answered() {
    let world = world();
    let space = world.process();
    stored(&world, &space, 8);
    let file = File::open(&world.manager, Arc::new(SimFile::new(vec![1; 3 * PAGE as usize])));
    for start in ENDS {
        for end in ENDS {
            let range = VirtAddr(start)..VirtAddr(end);
            space.pages(range.clone(), |_| {});
            let _ = (space.maps(range.clone()), space.first_mapped(range.clone()));
            let _ = space.pin(range.clone(), Access::Read);
            let _ = space.unmap_object(range, 1);
            file.discard_clean(start..end);
            file.revoke(start..end);
            let _ = space.mincore(VirtAddr(start), end.min(1 << 20), |_, _| {});
            let _ = space.msync(VirtAddr(start), end, SyncMode::Sync);
            let _ = space.mlock(VirtAddr(start), end);
            let _ = space.munlock(VirtAddr(start), end);
            let _ = space.madvise(VirtAddr(start), end, Advice::Cold);
            let _ = space.remap_file_pages(VirtAddr(start), end, u64::MAX);
            let _ = space.look_up(VirtAddr(start));
            space.begin_heap(VirtAddr(start), end);
            let _ = space.brk(VirtAddr(end), MapOptions::empty());
            let movement = Move::To(VirtAddr(end));
            let (address, old_length) = (VirtAddr(start), end);
            let request = RemapRequest { address, old_length, new_length: end, movement };
            let _ = space.mremap(&request);
            let mut bytes = [0; 16];
            let _ = file.read_at(start, &mut bytes);
            let _ = space.read_prefix(VirtAddr(start), &mut bytes);
            let _ = space.read_forced(VirtAddr(start), &mut bytes);
            let _ = space.read_string(VirtAddr(start), &mut bytes);
            let _ = space.clear_user(VirtAddr(start.max(1 << 40)), end as usize);
        }
    }
    world.manager.check().unwrap();
}

#[test]
fn every_number_is_answered() {
    let world = world();
    let space = world.process();
    stored(&world, &space, 4);
    for number in [0, 1, 127, 128, u32::MAX] {
        let _ = world.manager.frame_report(Frame(number));
        let _ = world.manager.is_pinned(Frame(number));
        let slot = SwapSlot { area: number as u8, offset: number };
        let _ = world.manager.swap_areas().references(slot);
        let _ = world.manager.slot_report(number as u8);
        let _ = world.manager.swap_off((number as u8).max(1));
    }
    let _ = world.manager.reclaim(usize::MAX);
    let standing = Standing::Running;
    let [large, small] = [u64::MAX, 0].map(|tables| Candidate {
        mm: space.mm(),
        standing,
        tables,
        adjustment: i16::MAX,
    });
    assert_eq!(world.manager.choose_victim(&[large, small]), Choice::Kill(0));
    world.manager.check().unwrap();
}

/// A configuration out of range is one at its end.
#[test]
fn every_configuration_works() {
    for number in [0, 3, u32::MAX] {
        let world = world_with(
            64,
            Config {
                fault_around: number,
                file_read_ahead: number,
                read_ahead: number,
                populate_ahead: number,
                overcommit: pagefault::Overcommit::Never { ratio: number.max(100) },
                ..Config::default()
            },
        );
        let (world, _) = world.with_disk(256);
        let space = world.process();
        stored(&world, &space, 100);
        let content = vec![7; 40 * PAGE as usize];
        let file = File::open(&world.manager, Arc::new(SimFile::new(content)));
        let request = MapRequest::file(&file, 0, 40 * PAGE);
        let request = MapRequest { sharing: Sharing::Shared, ..request.at(at(200)) };
        space.mmap(&request).unwrap();
        for page in 0..40 {
            assert_eq!(world.load_byte(space.mm(), 0, at(200 + page)), Ok(7));
        }
        for page in 0..100 {
            assert_eq!(world.load_byte(space.mm(), 0, at(page)), Ok(page as u8 + 1));
        }
        world.manager.check().unwrap();
    }
}

/// Frames of one machine mean nothing on another.
#[test]
fn a_file_of_another_manager_is_refused() {
    let [world, other] = [world(), world()];
    let space = world.process();
    let file = File::open(&other.manager, Arc::new(SimFile::new(vec![7; PAGE as usize])));
    let refused = space.mmap(&MapRequest::file(&file, 0, PAGE));
    assert_eq!(refused, Err(pagefault::error::MapError::Foreign));
}
