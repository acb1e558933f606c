//! Faults against truncation, write-back and the end of a file.

use crate::common::{PAGE, at};
use crate::scene::{BUS, SEGV, counters, counting, file_source, for_seeds};
use pagefault::{File, Sharing};
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
