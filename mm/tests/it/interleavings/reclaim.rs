//! Faults against reclaim, swapoff and the end of a child.

use crate::common::{PAGE, at};
use crate::interleavings::scene::{SEGV, counters, counting, for_seeds, for_seeds_in};
use crate::interleavings::scene::{Scene, file_source};
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU8};
use pagefault::swap::area::Priority;
use pagefault::{AddressSpace, Advice, Sharing, Source};
use pagefault_sim::{Sim, Switching, Task};

#[test]
fn faults_against_reclaim() {
    for_seeds("reclaim", |scene, seed| {
        scene.anonymous(0, 6);
        let last = [counters(), counters()];
        let reclaim: Task<'_> = Box::new(|| {
            for _ in 0..6 {
                scene.world.manager.reclaim(4);
            }
        });
        let tasks = vec![
            counting(scene, 0, 0..6, 4, &last[0], SEGV),
            counting(scene, 1, 0..6, 4, &last[1], SEGV),
            reclaim,
        ];
        scene.explore(seed, tasks);
        for page in 0..6 {
            assert_eq!((scene.load(2, at(page)), scene.load(2, at(page) + 1)), (Ok(4), Ok(4)));
        }
    });
}

#[test]
fn faults_on_shared_memory_against_reclaim() {
    for_seeds("reclaim of shared memory", |scene, seed| {
        scene.map(0, 6, Sharing::Shared, Source::Anonymous);
        let child = scene.space.fork().unwrap();
        let last = counters();
        let other: Task<'_> = Box::new(|| {
            for page in 0..6 {
                scene.world.store(child.mm(), 1, at(page) + 1, &[9]).unwrap();
            }
        });
        let reclaim: Task<'_> = Box::new(|| {
            for _ in 0..6 {
                scene.world.manager.reclaim(4);
            }
        });
        scene.explore(seed, vec![counting(scene, 0, 0..6, 3, &last, SEGV), other, reclaim]);
        for page in 0..6 {
            assert_eq!((scene.load(2, at(page)), scene.load(2, at(page) + 1)), (Ok(3), Ok(9)));
        }
        drop(child);
    });
}

/// A late fault finds the slot that its entry named given out again, and not written yet.
#[test]
fn f5_a_late_fault_against_a_slot_that_is_given_out_again() {
    for_seeds("a slot given out again", |scene, seed| {
        scene.world.manager.swap_off(scene.area).unwrap();
        // One slot, which each eviction gets.
        let (_, disk) = scene.world.add_disk(2, Priority::Descending);
        disk.set_latency(seed % 3);
        scene.anonymous(0, 1);
        let is_over = AtomicBool::new(false);
        let evict: Task<'_> = Box::new(|| {
            for round in 1..=40 {
                scene.store(0, at(0), round).unwrap();
                scene.mm().madvise(at(0), PAGE, Advice::PageOut).unwrap();
                assert_eq!(scene.load(0, at(0)), Ok(round));
                scene.mm().madvise(at(0), PAGE, Advice::PageOut).unwrap();
            }
            is_over.store(true, SeqCst);
        });
        let load: Task<'_> = Box::new(|| {
            let mut least = 0;
            while !is_over.load(SeqCst) {
                let seen = scene.load(1, at(0)).unwrap();
                assert!(seen >= least, "{seen} was loaded after {least}");
                least = seen;
            }
        });
        let store: Task<'_> = Box::new(|| {
            for round in 1..=40 {
                scene.store(2, at(0) + 1, round).unwrap();
                assert_eq!(scene.load(2, at(0) + 1), Ok(round));
            }
        });
        let switching = if seed % 2 == 0 { Switching::Seldom } else { Switching::Anywhere };
        scene.world.sim.explore_with(switching, seed, vec![evict, load, store]);
    });
}

/// A store after the advice keeps the page (spec J9).
#[test]
fn j9_a_store_after_the_advice_against_reclaim() {
    for_seeds("MADV_FREE", |scene, seed| {
        scene.anonymous(0, 4);
        let reclaim: Task<'_> = Box::new(|| {
            for _ in 0..8 {
                scene.world.manager.reclaim(4);
            }
        });
        let user: Task<'_> = Box::new(|| {
            for round in 1..5 {
                scene.store(0, at(1), round).unwrap();
                scene.mm().madvise(at(1), PAGE, Advice::Free).unwrap();
                assert!(matches!(scene.load(0, at(1)), Ok(byte) if byte == 0 || byte == round));
                scene.store(0, at(1) + 1, round).unwrap();
                assert_eq!(scene.load(0, at(1) + 1), Ok(round));
            }
        });
        scene.explore(seed, vec![reclaim, user]);
        assert_eq!(scene.load(1, at(1) + 1), Ok(4));
    });
}

#[test]
fn faults_and_a_fork_against_swapoff() {
    for_seeds("swapoff", |scene, seed| {
        scene.filled(6, 60);
        scene.world.manager.reclaim(100);
        let off: Task<'_> = Box::new(|| {
            scene.world.manager.swap_off(scene.area).unwrap();
            assert_eq!(scene.disk.stats().stored, 0);
        });
        let fork: Task<'_> = Box::new(|| {
            let child = scene.space.fork().unwrap();
            for page in 0..6 {
                let seen = scene.world.load_byte(child.mm(), 1, at(page));
                assert_eq!(seen, Ok(60 + page as u8));
            }
        });
        let user: Task<'_> = Box::new(|| {
            for page in 0..6 {
                assert_eq!(scene.load(2, at(page)), Ok(60 + page as u8));
                scene.store(2, at(page) + 1, 1).unwrap();
            }
        });
        scene.explore(seed, vec![off, fork, user]);
    });
}

/// More memory than there is, with a thread that reclaims ahead of need (spec F24).
#[test]
fn f24_background_reclaim_beside_two_users() {
    for_seeds_in("background", 24, |scene, seed| {
        scene.anonymous(0, 12);
        let last = [counters(), counters()];
        let (stop, running) = (AtomicBool::new(false), AtomicU8::new(2));
        let user = |cpu: u32| -> Task<'_> {
            let (stop, running, last) = (&stop, &running, &last[cpu as usize]);
            let count = counting(scene, cpu, 0..12, 2, last, SEGV);
            Box::new(move || {
                count();
                if running.fetch_sub(1, SeqCst) == 1 {
                    stop.store(true, SeqCst);
                    scene.world.manager.wake_background();
                }
            })
        };
        let background: Task<'_> = Box::new(|| scene.world.manager.background(&stop));
        scene.explore(seed, vec![user(0), user(1), background]);
        for page in 0..12 {
            assert_eq!((scene.load(2, at(page)), scene.load(2, at(page) + 1)), (Ok(2), Ok(2)));
        }
    });
}

#[test]
fn a_childs_exit_against_its_parents_stores_and_reclaim() {
    for_seeds("exit", |scene, seed| {
        scene.anonymous(0, 6);
        for page in 0..6 {
            scene.store(0, at(page), 90).unwrap();
        }
        let child = scene.space.fork().unwrap();
        let last = counters();
        let exit: Task<'_> = Box::new(move || {
            let _ = scene.world.store(child.mm(), 1, at(3), &[1]);
            drop(child);
        });
        let reclaim: Task<'_> = Box::new(|| {
            for _ in 0..3 {
                scene.world.manager.reclaim(6);
            }
        });
        scene.explore(seed, vec![counting(scene, 0, 0..6, 2, &last, SEGV), exit, reclaim]);
        for page in 0..6 {
            assert_eq!(scene.load(2, at(page)), Ok(2));
        }
    });
}

/// One processor stores 1, 2, 3… to a page, another loads it in `reader`, a third evicts: no load
/// finds less than what was stored before it began (spec G1).
fn stores_are_seen_while_the_page_is_evicted(scene: &Scene, seed: u64, reader: &AddressSpace<Sim>) {
    const LAST: u8 = 250;
    let stored = AtomicU8::new(0);
    let store: Task<'_> = Box::new(|| {
        for round in 1..=LAST {
            scene.store(0, at(1), round).unwrap();
            stored.store(round, SeqCst);
            for _ in 0..4 {
                assert_eq!(scene.load(0, at(1)), Ok(round));
            }
        }
    });
    let load: Task<'_> = Box::new(|| {
        while stored.load(SeqCst) < LAST {
            let least = stored.load(SeqCst);
            let seen = scene.world.load_byte(reader.mm(), 1, at(1)).unwrap();
            assert!(seen >= least, "{seen} was loaded after {least} had been stored");
        }
    });
    let evict: Task<'_> = Box::new(|| {
        while stored.load(SeqCst) < LAST {
            scene.mm().madvise(at(1), PAGE, Advice::PageOut).unwrap();
        }
    });
    // The evictor has to stand between two steps while the others do all of theirs.
    scene.world.sim.explore_with(Switching::Seldom, seed, vec![store, load, evict]);
}

#[test]
fn g1_a_store_after_swap_in_is_seen_before_the_evictors_flush() {
    for_seeds("swap-in before the flush", |scene, seed| {
        scene.filled(4, 0);
        scene.store(0, at(1), 0).unwrap();
        stores_are_seen_while_the_page_is_evicted(scene, seed, &scene.space);
    });
}

#[test]
fn g1_a_store_to_shared_memory_is_seen_before_the_evictors_flush() {
    for_seeds("shared memory before the flush", |scene, seed| {
        scene.map(0, 4, Sharing::Shared, Source::Anonymous);
        let child = scene.space.fork().unwrap();
        stores_are_seen_while_the_page_is_evicted(scene, seed, &child);
        drop(child);
    });
}

#[test]
fn g1_a_store_to_a_file_is_seen_before_the_evictors_flush() {
    for_seeds("file before the flush", |scene, seed| {
        let (file, _store) = scene.open(4);
        scene.map(0, 4, Sharing::Shared, file_source(&file));
        scene.store(0, at(1), 0).unwrap();
        let child = scene.space.fork().unwrap();
        stores_are_seen_while_the_page_is_evicted(scene, seed, &child);
        drop(child);
    });
}
