//! Faults against truncation, write-back and the end of a file.

use crate::common::{PAGE, at};
use crate::interleavings::scene::{BUS, SEGV, counters, counting, file_source, for_seeds};
use pagefault::{File, FileAccess, Move, RemapRequest, Sharing, Source};
use pagefault_sim::Task;
use std::sync::Mutex;

#[test]
fn faults_against_truncate() {
    for_seeds("truncate", |scene, seed| {
        let (file, store) = scene.open(6);
        scene.map(0, 6, Sharing::Shared, file_source(&file));
        scene.map(8, 6, Sharing::Private, file_source(&file));
        let (last, private) = (counters(), counters());
        let truncate: Task<'_> = Box::new(|| file.truncate(2 * PAGE).unwrap());
        let tasks = vec![
            counting(scene, 0, 0..6, 2, &last, BUS),
            counting(scene, 1, 8..14, 2, &private, BUS),
            truncate,
        ];
        scene.explore(seed, tasks);
        for page in [2, 5, 10, 13] {
            assert_eq!(scene.load(1, at(page)).map(drop), BUS);
        }
        file.truncate(6 * PAGE).unwrap();
        for page in [2, 5, 10, 13] {
            assert_eq!(scene.load(1, at(page)), Ok(0));
        }
        file.sync().unwrap();
        assert_eq!(store.contents()[0], 2);
        assert!(store.contents()[2 * PAGE as usize..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn faults_on_swapped_shared_memory_against_truncate() {
    for_seeds("truncate of shared memory", |scene, seed| {
        let file = File::shared(&scene.world.manager, 4 * PAGE);
        scene.map(0, 4, Sharing::Shared, file_source(&file));
        for page in 0..4 {
            scene.store(0, at(page), 50).unwrap();
        }
        scene.world.manager.reclaim(100);
        let read = |cpu: u32| -> Task<'_> {
            Box::new(move || {
                for page in 0..4 {
                    match scene.load(cpu, at(page)) {
                        Ok(byte) => assert!(byte == 50, "{byte}"),
                        refused => assert_eq!(refused.map(drop), BUS),
                    }
                }
            })
        };
        let truncate: Task<'_> = Box::new(|| file.truncate(PAGE).unwrap());
        scene.explore(seed, vec![read(0), truncate, read(1)]);
        scene.world.check();
        file.truncate(4 * PAGE).unwrap();
        assert_eq!(scene.load(0, at(0)), Ok(50));
        for page in 1..4 {
            assert_eq!(scene.load(1, at(page)), Ok(0), "page {page} after growing again");
        }
    });
}

/// No page past the new end escapes while its mapping moves, a private copy neither (spec D10).
#[test]
fn d10_a_move_against_truncate() {
    for_seeds("truncate and mremap", |scene, seed| {
        let (file, _) = scene.open(2);
        let source = |access| Source::File { file: &file, offset: PAGE, access };
        let access = FileAccess::READ | FileAccess::WRITE;
        scene.map(16, 1, Sharing::Private, source(access));
        scene.store(0, at(16), 9).unwrap();
        scene.map(32, 1, Sharing::Shared, source(access));
        scene.store(0, at(32), 9).unwrap();
        let truncate: Task<'_> = Box::new(|| file.truncate(PAGE).unwrap());
        let remap = |from: u64| -> Task<'_> {
            Box::new(move || {
                for (from, to) in [(from, from + 8), (from + 8, from)].repeat(4) {
                    let (address, movement) = (at(from), Move::To(at(to)));
                    let (old_length, new_length) = (PAGE, PAGE);
                    let request = RemapRequest { address, old_length, new_length, movement };
                    scene.mm().mremap(&request).unwrap();
                }
            })
        };
        scene.explore(seed, vec![truncate, remap(16), remap(32)]);
        scene.world.check();
        for page in [16, 32] {
            assert_eq!(scene.load(1, at(page)).map(drop), BUS, "page {page}");
        }
    });
}

/// A child that is forked meanwhile keeps no copy either.
#[test]
fn d10_a_fork_against_truncate() {
    for_seeds("truncate and fork", |scene, seed| {
        let (file, _) = scene.open(6);
        scene.map(0, 6, Sharing::Private, file_source(&file));
        for page in 0..6 {
            scene.store(0, at(page), 9).unwrap();
        }
        let truncate: Task<'_> = Box::new(|| file.truncate(2 * PAGE).unwrap());
        let children = Mutex::new(Vec::new());
        let fork: Task<'_> = Box::new(|| {
            let child = scene.space.fork().unwrap();
            let grandchild = child.fork().unwrap();
            children.lock().unwrap().extend([child, grandchild]);
        });
        scene.explore(seed, vec![truncate, fork]);
        for child in children.into_inner().unwrap() {
            for page in 2..6 {
                let seen = scene.world.load_byte(child.mm(), 1, at(page));
                assert_eq!(seen.map(drop), BUS, "page {page}");
            }
            assert_eq!(scene.world.load_byte(child.mm(), 1, at(1)), Ok(9));
        }
    });
}

/// No page comes back into an object that is gone, where it could be neither found nor written.
#[test]
fn f12_the_last_close_of_shared_memory_against_swapoff() {
    for_seeds("close and swapoff", |scene, seed| {
        let file = File::shared(&scene.world.manager, 12 * PAGE);
        for page in 0..12 {
            file.write_all_at(page * PAGE, &[50]).unwrap();
        }
        assert_eq!(scene.world.manager.reclaim(100), 12);
        let before = scene.allocated();
        let close: Task<'_> = Box::new(move || drop(file));
        let off: Task<'_> = Box::new(|| scene.world.manager.swap_off(scene.area).unwrap());
        scene.explore(seed, vec![off, close]);
        assert_eq!(scene.allocated(), before, "a page is left");
    });
}

#[test]
fn the_last_close_of_a_file_against_reclaim() {
    for_seeds("close", |scene, seed| {
        let (file, store) = scene.open(4);
        scene.map(0, 4, Sharing::Shared, file_source(&file));
        for page in 0..4 {
            scene.store(0, at(page), 70).unwrap();
        }
        store.set_latency(12);
        let file = Mutex::new(Some(file));
        let close: Task<'_> = Box::new(|| {
            scene.mm().munmap(at(0), 4 * PAGE).unwrap();
            drop(file.lock().unwrap().take());
        });
        let reclaim: Task<'_> = Box::new(|| {
            for _ in 0..4 {
                scene.world.manager.reclaim(4);
            }
        });
        scene.explore(seed, vec![close, reclaim]);
        let bytes = store.contents();
        assert!((0..4).all(|page| bytes[page * PAGE as usize] == 70), "a dirty page was lost");
    });
}

#[test]
fn write_back_against_stores() {
    for_seeds("sync", |scene, seed| {
        let (file, store) = scene.open(4);
        scene.map(0, 4, Sharing::Shared, file_source(&file));
        let last = counters();
        let sync: Task<'_> = Box::new(|| {
            for _ in 0..4 {
                file.sync().unwrap();
            }
        });
        scene.explore(seed, vec![counting(scene, 0, 0..4, 5, &last, SEGV), sync]);
        file.sync().unwrap();
        let bytes = store.contents();
        assert!((0..4).all(|page| bytes[page * PAGE as usize] == 5), "a store was not written");
    });
}
