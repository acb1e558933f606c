//! Pages that leave from standby, on processors that set neither accessed nor dirty bits, and pages
//! that come back past the swap cache.

use crate::common::{PAGE, at};
use crate::interleavings::scene::{SEGV, Scene, counters, counting, for_seeds, for_seeds_on};
use pagefault::machine::Protection;
use pagefault_sim::{Config as Machine, Task};

fn without_bits(name: &str, f: impl Fn(&Scene, u64)) {
    let machine = Machine {
        frames: 96,
        accessed_bits: false,
        dirty_bits: false,
        zero_frame: false,
        ..Machine::default()
    };
    for_seeds_on(name, machine, f);
}

fn reclaim(scene: &Scene, times: u32) -> Task<'_> {
    Box::new(move || {
        for _ in 0..times {
            scene.world.manager.reclaim(4);
        }
    })
}

#[test]
fn f18_faults_against_eviction_from_standby() {
    without_bits("standby", |scene, seed| {
        scene.filled(6, 10);
        let last = [counters(), counters()];
        let tasks = vec![
            counting(scene, 0, 0..6, 4, &last[0], SEGV),
            counting(scene, 1, 0..6, 4, &last[1], SEGV),
            reclaim(scene, 6),
        ];
        scene.explore(seed, tasks);
        for page in 0..6 {
            assert_eq!((scene.load(2, at(page)), scene.load(2, at(page) + 1)), (Ok(4), Ok(4)));
        }
    });
}

/// A store between the write of a page and its unmapping is not lost, although the entry allows
/// nothing again when reclaim looks.
#[test]
fn f19_a_store_and_no_right_after_it_against_eviction_from_standby() {
    without_bits("standby and mprotect", |scene, seed| {
        scene.filled(4, 10);
        // Some are on standby from now on.
        scene.world.manager.reclaim(1);
        let store: Task<'_> = Box::new(|| {
            for round in 1..=4 {
                for page in 0..4 {
                    scene.store(0, at(page), 20 * round + page as u8).unwrap();
                    let protect = |rights| scene.mm().mprotect(at(page), PAGE, rights).unwrap();
                    protect(Protection::empty());
                    protect(Protection::READ | Protection::WRITE);
                }
            }
        });
        scene.explore(seed, vec![store, reclaim(scene, 8), reclaim(scene, 8)]);
        for page in 0..4 {
            assert_eq!(scene.load(1, at(page)), Ok(80 + page as u8));
        }
    });
}

/// Threads that store to the same pages of swap, and a fork that comes to share their slots.
fn stores_to_swapped_pages_against_a_fork(scene: &Scene, seed: u64) {
    scene.filled(4, 10);
    while scene.world.manager.reclaim(4) > 0 {}
    let store = |cpu: u32| -> Task<'_> {
        Box::new(move || {
            for page in 0..4 {
                scene.store(cpu, at(page) + u64::from(cpu) + 1, 7).unwrap();
            }
        })
    };
    let fork: Task<'_> = Box::new(|| {
        let child = scene.space.fork().unwrap();
        for page in 0..4 {
            let seen = scene.world.load_byte(child.mm(), 2, at(page)).unwrap();
            assert_eq!(seen, 10 + page as u8);
            scene.world.store(child.mm(), 2, at(page), &[99]).unwrap();
        }
        scene.world.manager.reclaim(8);
        drop(child);
    });
    scene.explore(seed, vec![store(0), store(1), fork]);
    for page in 0..4 {
        let bytes = [0, 1, 2].map(|byte| scene.load(0, at(page) + byte).unwrap());
        assert_eq!(bytes, [10 + page as u8, 7, 7]);
    }
}

#[test]
fn b15_stores_to_swapped_pages_against_a_fork() {
    for_seeds("swap-in alone", stores_to_swapped_pages_against_a_fork);
}

#[test]
fn b15_stores_to_swapped_pages_against_a_fork_without_bits() {
    without_bits("swap-in alone, no bits", stores_to_swapped_pages_against_a_fork);
}

/// A slot that is claimed while its area goes.
#[test]
fn f12_swap_in_alone_against_swapoff() {
    for_seeds("swap-in alone against swapoff", |scene, seed| {
        scene.filled(4, 10);
        while scene.world.manager.reclaim(4) > 0 {}
        let store: Task<'_> = Box::new(|| {
            for page in 0..4 {
                scene.store(0, at(page) + 1, 7).unwrap();
            }
        });
        let off: Task<'_> = Box::new(|| scene.world.manager.swap_off(scene.area).unwrap());
        scene.explore(seed, vec![store, off]);
        for page in 0..4 {
            let bytes = [0, 1].map(|byte| scene.load(1, at(page) + byte).unwrap());
            assert_eq!(bytes, [10 + page as u8, 7]);
        }
    });
}
