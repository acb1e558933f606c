//! madvise against threads that change the regions under it.

use crate::common::{PAGE, RW, at};
use crate::interleavings::scene::{DENIED, Scene, for_seeds};
use pagefault::machine::Protection;
use pagefault::{Advice, MapRequest, Placement, RegionReport};
use pagefault_sim::Task;

fn maps(scene: &Scene) -> Vec<RegionReport> {
    scene.mm().maps(at(0)..at(64))
}

/// Advice that changes flags keeps what another thread has changed meanwhile: rights, and locks.
#[test]
fn c16_advice_on_order_against_mprotect_and_mlock() {
    for_seeds("advice and mprotect", |scene, seed| {
        scene.filled(6, 10);
        let advise: Task<'_> = Box::new(|| {
            for advice in [Advice::Random, Advice::DontFork, Advice::Sequential, Advice::DoFork] {
                scene.mm().madvise(at(0), 6 * PAGE, advice).unwrap();
            }
        });
        let protect: Task<'_> = Box::new(|| {
            scene.mm().mprotect(at(1), 2 * PAGE, Protection::READ).unwrap();
            assert_eq!(scene.store(1, at(1), 99), DENIED);
        });
        let lock: Task<'_> = Box::new(|| scene.mm().mlock(at(4), PAGE).unwrap());
        scene.explore(seed, vec![advise, protect, lock]);
        assert_eq!(scene.store(0, at(1), 99), DENIED, "the right to store came back");
        assert_eq!(scene.load(0, at(1)), Ok(11));
        let usage = scene.mm().usage();
        assert_eq!((usage.locked, usage.total), (1, 6), "a lock was lost");
        assert!(maps(scene).iter().any(|region| region.locked), "a lock was lost");
        scene.mm().munlock(at(0), 6 * PAGE).unwrap();
        scene.mm().mprotect(at(0), 6 * PAGE, RW).unwrap();
        assert_eq!(maps(scene).len(), 1, "some part of the range was not advised");
    });
}

/// A region that is cut while the advice is given is advised to its end.
#[test]
fn c16_advice_reaches_the_end_of_a_region_that_is_cut() {
    for_seeds("advice and a cut", |scene, seed| {
        scene.filled(6, 10);
        let advise: Task<'_> = Box::new(|| {
            scene.mm().madvise(at(0), 6 * PAGE, Advice::DontFork).unwrap();
        });
        let cut: Task<'_> = Box::new(|| {
            scene.mm().mprotect(at(1), PAGE, Protection::READ).unwrap();
            scene.mm().mprotect(at(3), PAGE, Protection::READ).unwrap();
        });
        scene.explore(seed, vec![advise, cut]);
        let child = scene.space.fork().unwrap();
        assert_eq!(child.mm().maps(at(0)..at(64)), [], "a part of the range was not advised");
    });
}

/// Populating goes by what the region allows when a page is brought in.
#[test]
fn c17_locking_against_a_region_that_becomes_read_only() {
    for_seeds("mlock and mprotect", |scene, seed| {
        let request =
            MapRequest { placement: Placement::Fixed(at(0)), ..MapRequest::anonymous(6 * PAGE) };
        scene.mm().mmap(&request).unwrap();
        let lock: Task<'_> = Box::new(|| scene.mm().mlock(at(0), 6 * PAGE).unwrap());
        let protect: Task<'_> = Box::new(|| {
            scene.mm().mprotect(at(0), 6 * PAGE, Protection::READ).unwrap();
        });
        scene.explore(seed, vec![lock, protect]);
        assert_eq!(scene.mm().usage().locked, 6);
    });
}
