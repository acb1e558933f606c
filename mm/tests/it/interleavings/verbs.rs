//! Faults against the verbs that change regions.

use crate::common::{PAGE, RW, at};
use crate::interleavings::scene::{DENIED, SEGV, counters, counting, for_seeds, for_seeds_in};
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::SeqCst;
use pagefault::entry::Verdict;
use pagefault::error::{LockError, RemapError};
use pagefault::machine::Protection;
use pagefault::{Advice, MapOptions, MapRequest, Move, Placement, RemapRequest, Sharing, Source};
use pagefault_sim::Task;

#[test]
fn faults_against_munmap() {
    for_seeds("munmap", |scene, seed| {
        scene.anonymous(0, 8);
        let last = counters();
        let unmap: Task<'_> = Box::new(|| scene.mm().munmap(at(2), 4 * PAGE).unwrap());
        scene.explore(seed, vec![counting(scene, 0, 0..8, 3, &last, SEGV), unmap]);
        for page in [0, 1, 6, 7] {
            assert_eq!(scene.load(1, at(page)), Ok(3));
        }
        for page in 2..6 {
            assert_eq!(scene.load(1, at(page)).map(drop), SEGV);
        }
    });
}

#[test]
fn faults_against_mprotect() {
    for_seeds("mprotect", |scene, seed| {
        scene.anonymous(0, 8);
        let last = counters();
        let protect: Task<'_> = Box::new(|| {
            scene.mm().mprotect(at(2), 4 * PAGE, Protection::READ).unwrap();
            let seen: Vec<_> = (2..6).map(|page| scene.load(1, at(page)).unwrap()).collect();
            // From here on nothing changes.
            for (page, seen) in (2..6).zip(seen) {
                assert_eq!(scene.load(1, at(page)), Ok(seen));
            }
        });
        scene.explore(seed, vec![counting(scene, 0, 0..8, 3, &last, DENIED), protect]);
        for page in 0..8 {
            assert_eq!(scene.load(1, at(page)), Ok(last[page as usize].load(SeqCst)));
        }
    });
}

#[test]
fn faults_against_fork() {
    for_seeds("fork", |scene, seed| {
        scene.anonymous(0, 6);
        let last = counters();
        let fork: Task<'_> = Box::new(|| {
            let child = scene.space.fork().unwrap();
            let look = |page| scene.world.load_byte(child.mm(), 1, at(page)).unwrap();
            let seen: Vec<_> = (0..6).map(look).collect();
            for (page, seen) in (0..6).zip(seen) {
                assert_eq!(look(page), seen, "the parent's store shows in the child");
                scene.world.store(child.mm(), 1, at(page), &[200]).unwrap();
            }
        });
        scene.explore(seed, vec![counting(scene, 0, 0..6, 4, &last, SEGV), fork]);
        for page in 0..6 {
            assert_eq!(scene.load(2, at(page)), Ok(4));
        }
    });
}

#[test]
fn the_kernels_stores_against_fork() {
    for_seeds("copy_to_user and fork", |scene, seed| {
        scene.anonymous(0, 2);
        scene.store(0, at(0), 1).unwrap();
        let write: Task<'_> = Box::new(|| {
            for round in 2..6 {
                assert_eq!(scene.mm().copy_to_user(at(0), &[round]), 0);
            }
        });
        let fork: Task<'_> = Box::new(|| {
            let child = scene.space.fork().unwrap();
            let seen = scene.world.load_byte(child.mm(), 1, at(0));
            for _ in 0..3 {
                assert_eq!(scene.world.load_byte(child.mm(), 1, at(0)), seen);
            }
        });
        scene.explore(seed, vec![write, fork]);
        assert_eq!(scene.load(2, at(0)), Ok(5));
    });
}

#[test]
fn faults_against_dontneed() {
    for_seeds("MADV_DONTNEED", |scene, seed| {
        scene.anonymous(0, 6);
        let last = counters();
        let advise: Task<'_> = Box::new(|| {
            for _ in 0..3 {
                scene.mm().madvise(at(0), 6 * PAGE, Advice::DontNeed).unwrap();
            }
        });
        scene.explore(seed, vec![counting(scene, 0, 0..6, 3, &last, SEGV), advise]);
        for page in 0..6 {
            assert!(matches!(scene.load(1, at(page)), Ok(0 | 3)));
            scene.store(1, at(page), 7).unwrap();
        }
    });
}

fn four_pages(movement: Move) -> RemapRequest {
    RemapRequest { address: at(0), old_length: 4 * PAGE, new_length: 4 * PAGE, movement }
}

/// The target is mapped and used before the move, and again as soon as it shows the moved pages.
#[test]
fn faults_at_both_ends_of_a_move() {
    for_seeds("mremap", |scene, seed| {
        scene.filled(4, 40);
        scene.anonymous(8, 4);
        let request = four_pages(Move::To(at(8)));
        let remap: Task<'_> = Box::new(|| {
            scene.mm().mremap(&request).unwrap();
            // The pages have moved: mremap promises this to its caller.
            for page in 0..4 {
                assert_eq!(scene.load(1, at(8 + page)), Ok(40 + page as u8));
            }
        });
        let touch = |cpu: u32, first: u64| -> Task<'_> {
            Box::new(move || {
                for page in (0..6).flat_map(|_| first..first + 4) {
                    match scene.store(cpu, at(page) + 100, 1) {
                        Ok(()) => {}
                        refused => assert_eq!(refused, SEGV),
                    }
                }
            })
        };
        scene.explore(seed, vec![remap, touch(0, 8), touch(2, 0)]);
        for page in 0..4 {
            assert_eq!(scene.load(1, at(page)).map(drop), SEGV);
        }
    });
}

/// A mapping that stays is there for everyone all the time; what is stored to it before its page has
/// left moves along, and what is stored afterwards stays.
#[test]
fn faults_at_both_ends_of_a_move_that_leaves_the_mapping() {
    for_seeds("leaving", |scene, seed| {
        scene.filled(4, 40);
        let request = four_pages(Move::Leaving(Placement::Fixed(at(8))));
        let remap: Task<'_> = Box::new(|| {
            scene.mm().mremap(&request).unwrap();
            for page in 0..4 {
                assert_eq!(scene.load(1, at(8 + page)), Ok(40 + page as u8));
            }
        });
        let touch: Task<'_> = Box::new(|| {
            for page in (0..6).flat_map(|_| 0..4) {
                scene.store(2, at(page) + 100, 1).unwrap();
                assert!(matches!(scene.load(2, at(page) + 200), Ok(0)));
            }
        });
        let reclaim: Task<'_> = Box::new(|| _ = scene.world.manager.reclaim(3));
        scene.explore(seed, vec![remap, touch, reclaim]);
        for page in 0..4 {
            assert_eq!(scene.load(0, at(page)), Ok(0));
            assert_eq!(scene.load(0, at(8 + page)), Ok(40 + page as u8));
        }
    });
}

#[test]
fn two_locks_of_memory_that_only_one_may_lock() {
    for_seeds("mlock", |scene, seed| {
        scene.anonymous(0, 8);
        scene.mm().limits().locked.store(4 * PAGE, SeqCst);
        let lock = |first: u64| -> Task<'_> {
            Box::new(move || match scene.mm().mlock(at(first), 3 * PAGE) {
                Ok(()) | Err(LockError::OverLimit) => {}
                Err(other) => panic!("{other}"),
            })
        };
        scene.explore(seed, vec![lock(0), lock(4)]);
        assert_eq!(scene.mm().usage().locked, 3);
    });
}

/// While a region moves to where it needs page tables, faults give it more of them, and there may be
/// no frame for one: then the region is where it was, with all its pages.
#[test]
fn a_move_without_memory_for_its_tables() {
    const BLOCK: u64 = 512;
    for_seeds_in("mremap without memory", 40, |scene, seed| {
        scene.world.manager.swap_off(scene.area).unwrap();
        scene.anonymous(0, 12 * BLOCK);
        (0..4).for_each(|block| scene.store(0, at(block * BLOCK), 9).unwrap());
        let target = at(64 * BLOCK);
        let moved = AtomicBool::new(false);
        let remap: Task<'_> = Box::new(|| {
            let (old_length, new_length) = (12 * BLOCK * PAGE, 12 * BLOCK * PAGE);
            let movement = Move::To(target);
            let request = RemapRequest { address: at(0), old_length, new_length, movement };
            match scene.mm().mremap(&request) {
                Ok(address) => moved.store(address == target, SeqCst),
                Err(error) => assert_eq!(error, RemapError::OutOfMemory),
            }
        });
        let touch = |cpu: u32, blocks: [u64; 4]| -> Task<'_> {
            Box::new(move || {
                for block in blocks {
                    match scene.store(cpu, at(block * BLOCK), 9) {
                        Ok(()) | Err(Verdict::OutOfMemory) => {}
                        refused => assert_eq!(refused, SEGV),
                    }
                }
            })
        };
        scene.explore(seed, vec![remap, touch(1, [4, 5, 6, 7]), touch(2, [11, 10, 9, 8])]);
        scene.world.check();
        let start = if moved.load(SeqCst) { target } else { at(0) };
        for block in 0..4 {
            assert_eq!(scene.load(0, start + block * BLOCK * PAGE), Ok(9));
        }
    });
}

#[test]
fn faults_against_remap_file_pages() {
    for_seeds("remap_file_pages", |scene, seed| {
        scene.map(0, 6, Sharing::Shared, Source::Anonymous);
        for page in 0..6 {
            scene.store(0, at(page), 80 + page as u8).unwrap();
        }
        let remap: Task<'_> = Box::new(|| {
            scene.mm().remap_file_pages(at(0), 2 * PAGE, 4).unwrap();
            assert_eq!((scene.load(0, at(0)), scene.load(0, at(1))), (Ok(84), Ok(85)));
        });
        let user: Task<'_> = Box::new(|| {
            for _ in 0..3 {
                assert!(matches!(scene.load(1, at(0)), Ok(80 | 84)));
                scene.store(1, at(1) + 1, 1).unwrap();
            }
        });
        let reclaim: Task<'_> = Box::new(|| {
            for _ in 0..3 {
                scene.world.manager.reclaim(5);
            }
        });
        scene.explore(seed, vec![remap, user, reclaim]);
        assert_eq!((scene.load(0, at(0)), scene.load(0, at(1))), (Ok(84), Ok(85)));
    });
}

#[test]
fn two_growths_of_one_stack() {
    for_seeds("stack", |scene, seed| {
        let request = MapRequest {
            placement: Placement::Fixed(at(600)),
            options: MapOptions::GROWSDOWN,
            protection: RW,
            ..MapRequest::anonymous(PAGE)
        };
        scene.mm().mmap(&request).unwrap();
        let grow = |cpu: u32| -> Task<'_> {
            Box::new(move || {
                for page in (580 + u64::from(cpu)..600).rev() {
                    scene.store(cpu, at(page) + u64::from(cpu), 3).unwrap();
                }
            })
        };
        scene.explore(seed, vec![grow(0), grow(1), grow(2)]);
        assert_eq!(scene.mm().usage().total, 21);
        for page in 582..600 {
            assert!((0..3).all(|byte| scene.load(0, at(page) + byte) == Ok(3)));
        }
    });
}
