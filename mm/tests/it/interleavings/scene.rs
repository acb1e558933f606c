//! One interleaving's computer with one process, and what the tests do with it.

use crate::common::{Label, PAGE, World, at, long};
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::SeqCst;
use pagefault::entry::{SegvCode, Signal, Verdict};
use pagefault::machine::VirtAddr;
use pagefault::swap::area::Priority;
use pagefault::{
    AddressSpace, Config, File, FileAccess, MapRequest, Mm, NonlinearPolicy, Overcommit, Placement,
    Sharing, Source,
};
use pagefault_sim::{Config as Machine, Hazards, Sim, SimDisk, SimFile, Switching, Task, X86_64};
use std::sync::Arc;

/// One interleaving's computer with one process.
pub struct Scene {
    pub world: World<X86_64>,
    pub disk: SimDisk,
    pub area: u8,
    pub space: AddressSpace<Sim>,
}

/// Seeds that found something in long runs. 1009: a store was lost that came, through a translation
/// not flushed yet, while its page was copied.
const ONCE_FAILED: [u64; 2] = [246, 1009];

/// Runs `f` for many seeds.
pub fn for_seeds(name: &str, f: impl Fn(&Scene, u64)) {
    for_seeds_in(name, 96, f);
}

pub fn for_seeds_in(name: &str, frames: u32, f: impl Fn(&Scene, u64)) {
    for_seeds_on(name, Machine { frames, ..Machine::default() }, f);
}

pub fn for_seeds_on(name: &str, machine: Machine, f: impl Fn(&Scene, u64)) {
    let first = std::env::var("PAGEFAULT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds: Vec<u64> = match first {
        Some(seed) => vec![seed],
        None if long() => (0..5000).collect(),
        None => (0..120).chain(ONCE_FAILED).collect(),
    };
    for seed in seeds {
        let label = Label { what: format!("{name}, seed {seed}"), step: 0 };
        let hazards = Hazards { evictions: 40, prefetches: 40 };
        let machine = Machine { seed, cpus: 3, hazards, ..machine };
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
    pub fn mm(&self) -> &Arc<Mm<Sim>> {
        self.space.mm()
    }

    pub fn map(&self, first: u64, pages: u64, sharing: Sharing, source: Source<'_, Sim>) {
        let request = MapRequest {
            sharing,
            source,
            placement: Placement::Fixed(at(first)),
            ..MapRequest::anonymous(pages * PAGE)
        };
        self.mm().mmap(&request).unwrap();
    }

    pub fn anonymous(&self, first: u64, pages: u64) {
        self.map(first, pages, Sharing::Private, Source::Anonymous);
    }

    /// Maps anonymous pages from the first on, and stores `base` plus its number to each.
    pub fn filled(&self, pages: u64, base: u8) {
        self.anonymous(0, pages);
        for page in 0..pages {
            self.store(0, at(page), base + page as u8).unwrap();
        }
    }

    pub fn open(&self, pages: u64) -> (File<Sim>, SimFile) {
        let store = SimFile::pattern(pages * PAGE, 9);
        store.set_latency(2);
        (File::open(&self.world.manager, Arc::new(store.clone())), store)
    }

    pub fn store(&self, cpu: u32, at: VirtAddr, byte: u8) -> Result<(), Verdict> {
        self.world.store(self.mm(), cpu, at, &[byte])
    }

    pub fn load(&self, cpu: u32, at: VirtAddr) -> Result<u8, Verdict> {
        self.world.load_byte(self.mm(), cpu, at)
    }

    /// In one interleaving of three, tasks run until they wait; in one of six, they seldom switch.
    pub fn explore(&self, seed: u64, tasks: Vec<Task<'_>>) {
        let switching = match seed % 6 {
            2 | 5 => Switching::WhereTasksWait,
            0 => Switching::Seldom,
            _ => Switching::Anywhere,
        };
        self.world.sim.explore_with(switching, seed, tasks);
    }

    pub fn allocated(&self) -> u32 {
        // Pages read ahead came besides the requested ones.
        let ahead = self.world.manager.counters().file_read_ahead;
        self.world.sim.usage().allocated - ahead as u32
    }

    /// Two tasks each store their byte into one page; then both bytes are there, and so many more
    /// frames are used than before.
    pub fn store_twice(&self, seed: u64, page: u64, more_frames: u32) {
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
        // A task that meets the page while the other has it locked copies it. The old page may then
        // stay in the swap cache until reclaim finds it.
        let more = self.allocated() - before;
        assert!((more_frames..=more_frames + 1).contains(&more), "{more} frames more");
    }

    pub fn mapped(&self) -> u64 {
        let usage = self.mm().usage();
        usage.anonymous + usage.file
    }
}

pub fn file_source(file: &File<Sim>) -> Source<'_, Sim> {
    Source::File { file, offset: 0, access: FileAccess::READ | FileAccess::WRITE }
}

pub const SEGV: Result<(), Verdict> = Err(Verdict::Signal(Signal::Segv(SegvCode::MapErr)));
pub const DENIED: Result<(), Verdict> = Err(Verdict::Signal(Signal::Segv(SegvCode::AccErr)));
pub const BUS: Result<(), Verdict> = Err(Verdict::Signal(Signal::Bus));

/// A task that stores 1, 2, 3… into each of some pages in turn and remembers what went well.
pub fn counting<'a>(
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

pub fn counters() -> [AtomicU8; 16] {
    core::array::from_fn(|_| AtomicU8::new(0))
}
