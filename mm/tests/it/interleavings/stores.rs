//! Two tasks that store to one page (spec B21).

use crate::common::{PAGE, at};
use crate::interleavings::scene::{file_source, for_seeds};
use pagefault::Sharing;
use pagefault_sim::{SimFile, Task};

#[test]
fn b21_two_stores_to_a_page_never_touched() {
    for_seeds("anonymous", |scene, seed| {
        scene.anonymous(0, 4);
        scene.store_twice(seed, 1, 1);
    });
}

#[test]
fn b21_two_stores_to_the_frame_of_zeros() {
    for_seeds("zero", |scene, seed| {
        scene.anonymous(0, 4);
        assert_eq!(scene.load(0, at(1)), Ok(0));
        scene.store_twice(seed, 1, 1);
    });
}

#[test]
fn b21_two_stores_to_a_shared_file() {
    for_seeds("file", |scene, seed| {
        let (file, store) = scene.open(4);
        scene.map(0, 4, Sharing::Shared, file_source(&file));
        scene.store_twice(seed, 1, 1);
        file.sync().unwrap();
        assert_eq!(store.contents()[PAGE as usize..][..2], [1, 2]);
        let ahead = scene.world.manager.counters().file_read_ahead;
        assert_eq!(store.stats().reads - ahead, 1, "the page was read once");
    });
}

#[test]
fn b21_two_stores_to_a_private_file() {
    for_seeds("private file", |scene, seed| {
        let (file, store) = scene.open(4);
        scene.map(0, 4, Sharing::Private, file_source(&file));
        scene.store_twice(seed, 1, 2);
        assert_eq!(store.contents()[PAGE as usize], SimFile::pattern_byte(PAGE, 9));
    });
}

#[test]
fn b21_two_stores_to_a_page_in_swap() {
    for_seeds("swap", |scene, seed| {
        scene.anonymous(0, 4);
        scene.store(0, at(1), 77).unwrap();
        assert_eq!(scene.world.manager.reclaim(10), 1);
        scene.store_twice(seed, 1, 1);
        let read = scene.disk.stats().reads;
        // A task that looked before the first one mapped the page may read it in vain: once because the
        // slot was claimed twice, and once because it sees only afterwards that the entry has changed.
        assert!((1..=3).contains(&read), "the page was read {read} times");
    });
}

#[test]
fn b21_two_stores_to_a_page_shared_with_a_child() {
    for_seeds("copy on write", |scene, seed| {
        scene.anonymous(0, 4);
        scene.store(0, at(1) + 9, 77).unwrap();
        let child = scene.space.fork().unwrap();
        scene.store_twice(seed, 1, 1);
        assert_eq!(scene.world.load_byte(child.mm(), 0, at(1) + 9), Ok(77));
        assert_eq!(scene.world.load_byte(child.mm(), 0, at(1)), Ok(0));
        drop(child);
    });
}

#[test]
fn b21_two_stores_to_a_page_that_is_not_shared_any_more() {
    for_seeds("reuse", |scene, seed| {
        scene.anonymous(0, 4);
        scene.store(0, at(1), 77).unwrap();
        drop(scene.space.fork().unwrap());
        // One of the two may find the page locked by the other, and then copies it.
        let before = scene.allocated();
        let task = |cpu: u32| -> Task<'_> {
            Box::new(move || scene.store(cpu, at(1) + u64::from(cpu), 5).unwrap())
        };
        scene.explore(seed, vec![task(0), task(1)]);
        assert_eq!((scene.load(2, at(1)), scene.load(2, at(1) + 1)), (Ok(5), Ok(5)));
        assert_eq!(scene.allocated(), before);
    });
}
