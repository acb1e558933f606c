//! Threads that meet in every order that a few thousand seeds find: the same page faulted twice
//! (spec B21), and faults against everything that takes pages away. What a task stored is there in
//! the end, every invariant holds, and nothing is left over.

mod common;

use common::{BASE, Label, PAGE, World, long};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use pagefault::entry::{SegvCode, Signal, Verdict};
use pagefault::machine::{Protection, VirtAddr};
use pagefault::swap::area::Priority;
use pagefault::{
    AddressSpace, Advice, Config, File, FileAccess, MapOptions, MapRequest, Mm, Move,
    NonlinearPolicy, Overcommit, Placement, RemapRequest, Sharing, Source,
};
use pagefault_sim::{Config as Machine, Hazards, Sim, SimDisk, SimFile, Task, X86_64};
use std::sync::{Arc, Mutex};

const RW: Protection = Protection::READ.union(Protection::WRITE);

/// One interleaving's computer with one process.
struct Scene {
    world: World<X86_64>,
    disk: SimDisk,
    area: u8,
    space: AddressSpace<Sim>,
}

/// Runs `f` for many seeds.
fn for_seeds(name: &str, f: impl Fn(&Scene, u64)) {
    for_seeds_in(name, 96, f);
}

fn for_seeds_in(name: &str, frames: u32, f: impl Fn(&Scene, u64)) {
    let first = std::env::var("PAGEFAULT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = match first {
        Some(seed) => seed..seed + 1,
        None => 0..if long() { 5000 } else { 120 },
    };
    for seed in seeds {
        let label = Label { what: format!("{name}, seed {seed}"), step: 0 };
        let hazards = Hazards { evictions: 40, prefetches: 40 };
        let machine = Machine { seed, frames, cpus: 3, hazards, ..Machine::default() };
        let config = Config {
            overcommit: Overcommit::Always,
            nonlinear: NonlinearPolicy::Entries,
            ..Config::default()
        };
        let world = World::new(machine, config);
        let (area, disk) = world.add_disk(256, Priority::Descending);
        disk.set_latency(seed % 4);
        let space = world.process();
        let scene = Scene { world, disk, area, space };
        f(&scene, seed);
        let Scene { world, space, .. } = scene;
        world.check();
        drop(space);
        // Pages whose last user went while reclaim had them are reclaim's to find.
        world.manager.reclaim(1000);
        world.check_empty();
        drop(label);
    }
}

impl Scene {
    fn mm(&self) -> &Arc<Mm<Sim>> {
        self.space.mm()
    }

    fn map(&self, first: u64, pages: u64, sharing: Sharing, source: Source<'_, Sim>) {
        let request = MapRequest {
            sharing,
            source,
            placement: Placement::Fixed(at(first)),
            ..MapRequest::anonymous(pages * PAGE)
        };
        self.mm().mmap(&request).unwrap();
    }

    fn anonymous(&self, first: u64, pages: u64) {
        self.map(first, pages, Sharing::Private, Source::Anonymous);
    }

    fn open(&self, pages: u64) -> (File<Sim>, SimFile) {
        let store = SimFile::pattern(pages * PAGE, 9);
        store.set_latency(2);
        (File::open(&self.world.manager, Arc::new(store.clone())), store)
    }

    fn store(&self, cpu: u32, at: VirtAddr, byte: u8) -> Result<(), Verdict> {
        self.world.store(self.mm(), cpu, at, &[byte])
    }

    fn load(&self, cpu: u32, at: VirtAddr) -> Result<u8, Verdict> {
        self.world.load_byte(self.mm(), cpu, at)
    }

    fn explore(&self, seed: u64, tasks: Vec<Task<'_>>) {
        self.world.sim.explore(seed, tasks);
    }

    fn allocated(&self) -> u32 {
        self.world.sim.usage().allocated
    }

    /// Two tasks each store their byte into one page; then both bytes are there, and so many more
    /// frames are used than before.
    fn store_twice(&self, seed: u64, page: u64, more_frames: u32) {
        let before = self.allocated();
        let task = |cpu: u32| -> Task<'_> {
            Box::new(move || {
                let byte = at(page) + u64::from(cpu);
                self.store(cpu, byte, cpu as u8 + 1).unwrap();
                assert_eq!(self.load(cpu, byte), Ok(cpu as u8 + 1));
            })
        };
        self.explore(seed, vec![task(0), task(1)]);
        self.world.check();
        assert_eq!(self.load(2, at(page)), Ok(1));
        assert_eq!(self.load(2, at(page) + 1), Ok(2));
        assert_eq!(self.mapped(), 1, "pages mapped");
        // Who meets the page while the other has it locked copies it; the old one may then stay in
        // the swap cache until reclaim finds it.
        let more = self.allocated() - before;
        assert!((more_frames..=more_frames + 1).contains(&more), "{more} frames more");
    }

    fn mapped(&self) -> u64 {
        let usage = self.mm().usage();
        usage.anonymous + usage.file
    }
}

fn at(page: u64) -> VirtAddr {
    BASE + page * PAGE
}

fn file_source(file: &File<Sim>) -> Source<'_, Sim> {
    Source::File { file, offset: 0, access: FileAccess::READ | FileAccess::WRITE }
}

const SEGV: Result<(), Verdict> = Err(Verdict::Signal(Signal::Segv(SegvCode::MapErr)));
const DENIED: Result<(), Verdict> = Err(Verdict::Signal(Signal::Segv(SegvCode::AccErr)));
const BUS: Result<(), Verdict> = Err(Verdict::Signal(Signal::Bus));

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
        assert_eq!(store.stats().reads, 1, "the page was read once");
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
        // Whoever looked before the first had mapped the page may read it in vain.
        assert!((1..=2).contains(&read), "the page was read {read} times");
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

/// A task that stores 1, 2, 3… into each of some pages in turn and remembers what went well.
fn counting<'a>(
    scene: &'a Scene,
    cpu: u32,
    pages: core::ops::Range<u64>,
    rounds: u8,
    last: &'a [AtomicU8],
    refused: Result<(), Verdict>,
) -> Task<'a> {
    Box::new(move || {
        for round in 1..=rounds {
            for page in pages.clone() {
                let done = scene.store(cpu, at(page) + u64::from(cpu), round);
                match done {
                    Ok(()) => last[page as usize].store(round, SeqCst),
                    other => assert_eq!(other, refused),
                }
            }
        }
    })
}

fn counters() -> [AtomicU8; 16] {
    core::array::from_fn(|_| AtomicU8::new(0))
}

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

/// The target is mapped and used before the move, and again as soon as it shows the moved pages.
#[test]
fn faults_at_both_ends_of_a_move() {
    for_seeds("mremap", |scene, seed| {
        scene.anonymous(0, 4);
        scene.anonymous(8, 4);
        for page in 0..4 {
            scene.store(0, at(page), 40 + page as u8).unwrap();
        }
        let request = RemapRequest {
            address: at(0),
            old_length: 4 * PAGE,
            new_length: 4 * PAGE,
            movement: Move::To(at(8)),
        };
        let remap: Task<'_> = Box::new(|| {
            scene.mm().mremap(&request).unwrap();
            // The pages have moved: this is what mremap promises to whoever waits for it.
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
        scene.anonymous(0, 4);
        for page in 0..4 {
            scene.store(0, at(page), 40 + page as u8).unwrap();
        }
        let request = RemapRequest {
            address: at(0),
            old_length: 4 * PAGE,
            new_length: 4 * PAGE,
            movement: Move::Leaving(Placement::Fixed(at(8))),
        };
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
fn faults_and_a_fork_against_swapoff() {
    for_seeds("swapoff", |scene, seed| {
        scene.anonymous(0, 6);
        for page in 0..6 {
            scene.store(0, at(page), 60 + page as u8).unwrap();
        }
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
