//! Seals and locks of all memory, against the verbs of another thread: a verb that begins after the seal is
//! refused, and no verb looks before and changes afterwards.

use crate::common::{PAGE, at};
use crate::interleavings::scene::{Scene, for_seeds};
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::SeqCst;
use pagefault::error::Errno;
use pagefault::machine::{Access, Protection};
use pagefault::{
    Advice, File, FileAccess, LockAll, MapOptions, MapRequest, Move, Placement, RegionReport,
    RemapRequest, Sharing, Source, VmaFlags,
};
use pagefault_sim::Task;

fn regions(scene: &Scene) -> Vec<RegionReport> {
    scene.mm().maps(at(0)..at(1 << 20))
}

/// A verb, and whether it succeeded against a mapping that was not sealed.
type Verb = fn(&Scene) -> Result<(), Errno>;

/// Runs a verb over the four pages at 0 while another thread seals the second and reads what is there. Once the
/// seal has succeeded, nothing changes any more.
fn against_a_seal(name: &str, protection: Protection, verb: Verb) {
    for_seeds(name, |scene, seed| {
        scene.filled(4, 40);
        scene.mm().mprotect(at(1), PAGE, protection).unwrap();
        race_a_seal(scene, seed, verb);
    });
}

fn race_a_seal(scene: &Scene, seed: u64, verb: Verb) {
    let sealed = AtomicBool::new(false);
    let seal: Task<'_> = Box::new(|| {
        if scene.mm().seal(at(1), PAGE).is_err() {
            return;
        }
        sealed.store(true, SeqCst);
        let look = || {
            let region = regions(scene).into_iter().find(|it| it.range.contains(&at(1)));
            (region.map(|it| (it.protection, it.flags)), scene.load(1, at(1)))
        };
        let seen = look();
        for _ in 0..8 {
            assert_eq!(look(), seen, "a sealed mapping changed");
        }
    });
    let change: Task<'_> = Box::new(|| {
        let is_sealed = sealed.load(SeqCst);
        match verb(scene) {
            Ok(()) => assert!(!is_sealed, "a sealed mapping was changed"),
            Err(error) => assert_eq!(error, Errno::EPERM),
        }
    });
    scene.explore(seed, vec![change, seal]);
    assert_eq!(verb(scene).is_err(), sealed.load(SeqCst));
}

#[test]
fn a_seal_against_munmap() {
    against_a_seal("seal and munmap", Protection::READ, |scene| {
        Ok(scene.mm().munmap(at(0), 4 * PAGE)?)
    });
}

#[test]
fn a_seal_against_mprotect() {
    against_a_seal("seal and mprotect", Protection::READ, |scene| {
        Ok(scene.mm().mprotect(at(1), PAGE, Protection::empty())?)
    });
}

#[test]
fn a_seal_against_a_fixed_mapping() {
    against_a_seal("seal and mmap", Protection::READ, |scene| {
        let request = MapRequest::anonymous(4 * PAGE).at(at(0));
        Ok(scene.mm().mmap(&request).map(drop)?)
    });
}

#[test]
fn a_seal_against_a_move_onto_it() {
    against_a_seal("seal and mremap to it", Protection::READ, |scene| {
        if regions(scene).iter().all(|it| it.range.start != at(20)) {
            scene.anonymous(20, 2);
        }
        let movement = Move::To(at(0));
        let (old_length, new_length) = (2 * PAGE, 2 * PAGE);
        let request = RemapRequest { address: at(20), old_length, new_length, movement };
        Ok(scene.mm().mremap(&request).map(drop)?)
    });
}

#[test]
fn a_seal_against_advice_that_drops() {
    against_a_seal("seal and MADV_DONTNEED", Protection::READ, |scene| {
        Ok(scene.mm().madvise(at(1), PAGE, Advice::DontNeed)?)
    });
}

/// A pinned page stays, and is filled with zeros.
#[test]
fn a_seal_against_advice_that_empties_a_pinned_page() {
    for_seeds("seal and MADV_DONTNEED of a pin", |scene, seed| {
        scene.filled(4, 40);
        scene.mm().mprotect(at(1), PAGE, Protection::READ).unwrap();
        let pin = scene.mm().pin(at(1)..at(2), Access::Read).unwrap();
        race_a_seal(scene, seed, |scene| Ok(scene.mm().madvise(at(1), PAGE, Advice::DontNeed)?));
        drop(pin);
    });
}

/// What is mapped while another thread locks everything, now and in future, is locked whichever comes first, and
/// never more than the limit allows.
#[test]
fn new_mappings_against_mlockall() {
    for_seeds("mlockall and mmap", |scene, seed| {
        scene.filled(2, 40);
        scene.mm().limits().locked.store(5 * PAGE, SeqCst);
        let all = AtomicBool::new(false);
        let lock: Task<'_> = Box::new(|| {
            all.store(scene.mm().mlockall(LockAll::CURRENT | LockAll::FUTURE).is_ok(), SeqCst);
        });
        let map = |first: u64, options: MapOptions| -> Task<'_> {
            Box::new(move || {
                let request = MapRequest::anonymous(2 * PAGE).at(at(first)).with(options);
                match scene.mm().mmap(&request) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(Errno::from(error), Errno::EAGAIN),
                }
            })
        };
        scene.explore(seed, vec![lock, map(8, MapOptions::empty()), map(16, MapOptions::LOCKED)]);
        let usage = scene.mm().usage();
        assert!(usage.locked <= 5, "{} pages locked", usage.locked);
        if all.load(SeqCst) {
            assert_eq!(usage.locked, usage.total, "a mapping is not locked");
        }
        scene.mm().munlockall();
        scene.anonymous(24, 1);
        assert_eq!(scene.mm().usage().locked, 0);
    });
}

/// A segment is detached in one step: what another thread maps in its place stays.
#[test]
fn a_detached_segment_against_a_new_mapping_there() {
    for_seeds("shmdt and mmap", |scene, seed| {
        let file = File::shared(&scene.world.manager, 4 * PAGE);
        let source = Source::File { file: &file, offset: 0, access: FileAccess::all() };
        scene.map(0, 4, Sharing::Shared, source);
        let detach: Task<'_> = Box::new(|| {
            scene.mm().unmap_object(at(0)..at(4), file.id());
        });
        let replace: Task<'_> = Box::new(|| {
            scene.mm().munmap(at(1), 2 * PAGE).unwrap();
            let placement = Placement::FixedNoReplace(at(1));
            scene.mm().mmap(&MapRequest::anonymous(PAGE).placed(placement)).unwrap();
            scene.store(1, at(1), 5).unwrap();
            assert_eq!(scene.load(1, at(1)), Ok(5));
        });
        scene.explore(seed, vec![detach, replace]);
        assert_eq!(scene.load(0, at(1)), Ok(5));
        let [only] = regions(scene).try_into().expect("one region");
        assert_eq!(only.range, at(1)..at(2));
    });
}

/// The end of an address space, and a child's, ignore the seals; the child has them.
#[test]
fn seals_are_inherited_and_end_with_their_space() {
    for_seeds("seal and fork", |scene, seed| {
        scene.filled(2, 40);
        let seal: Task<'_> = Box::new(|| scene.mm().seal(at(0), PAGE).unwrap());
        let fork: Task<'_> = Box::new(|| {
            let child = scene.space.fork().unwrap();
            let sealed = child.mm().maps(at(0)..at(1))[0].flags.contains(VmaFlags::SEALED);
            assert_eq!(child.mm().munmap(at(0), PAGE).is_err(), sealed);
        });
        scene.explore(seed, vec![seal, fork]);
    });
}
