//! The end of an address space of which others still have the shared part (spec E5).

use crate::common::{PAGE, RW, World, at, map, stored, world_with};
use pagefault::error::MapError;
use pagefault::machine::Access;
use pagefault::{Config, File, MapRequest, Move, RemapRequest};
use pagefault_sim::{Task, X86_64};
use std::sync::{Arc, Mutex};

/// Nothing can be mapped any more, and nothing keeps the address space once the last one lets it go.
#[test]
fn e5_an_ended_address_space_maps_nothing_and_is_freed() {
    let (world, _) = world_with(64, Config::default()).with_disk(64);
    let space = world.process();
    stored(&world, &space, 4);
    let mm = space.mm().clone();
    let weak = Arc::downgrade(&mm);
    drop(space);
    assert_eq!(mm.mmap(&MapRequest::anonymous(PAGE)), Err(MapError::Ended));
    let (address, movement) = (at(0), Move::Anywhere);
    let request = RemapRequest { address, old_length: PAGE, new_length: 2 * PAGE, movement };
    assert!(mm.mremap(&request).is_err());
    assert!(mm.pin(at(0)..at(1), Access::Read).is_err());
    assert_eq!(mm.copy_to_user(at(0), &[1]), 1);
    assert!(world.store(&mm, 0, at(0), &[1]).is_err());
    assert_eq!((mm.usage().total, mm.usage().regions), (0, 0));
    drop(mm);
    assert!(weak.upgrade().is_none(), "a region keeps the address space");
    world.check_empty();
}

/// A thread that maps and stores while the owner goes leaves nothing behind.
#[test]
fn e5_a_thread_that_maps_against_the_end() {
    for seed in 0..150 {
        let machine = pagefault_sim::Config { seed, frames: 64, cpus: 3, ..Default::default() };
        let (world, _) = World::<X86_64>::new(machine, Config::default()).with_disk(64);
        let space = world.process();
        map(&space, 0, 4, RW);
        let mm = space.mm().clone();
        let file = File::shared(&world.manager, 2 * PAGE);
        let owner = Mutex::new(Some(space));
        let end: Task<'_> = Box::new(|| drop(owner.lock().unwrap().take()));
        let maps: Task<'_> = Box::new(|| {
            for round in 0..6 {
                let _ = world.store(&mm, 1, at(round % 4), &[1]);
                let Ok(start) = mm.mmap(&MapRequest::anonymous(2 * PAGE)) else { continue };
                let _ = world.store(&mm, 1, start, &[1]);
            }
        });
        let reclaim: Task<'_> = Box::new(|| {
            file.write_all_at(0, &[1]).unwrap();
            world.manager.reclaim(4);
            file.truncate(0).unwrap();
        });
        world.sim.explore(seed, vec![end, maps, reclaim]);
        let weak = Arc::downgrade(&mm);
        drop((mm, file));
        assert!(weak.upgrade().is_none(), "seed {seed}");
        world.manager.reclaim(100);
        world.check_empty();
    }
}
