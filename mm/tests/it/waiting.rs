//! Threads that need a frame while all pages are in the hands of others wait for them (spec F23).

use crate::common::{BASE, Label, PAGE, World, at, long};
use pagefault::machine::{Access, Backing, IoError, SwapDevice};
use pagefault::swap::area::Priority;
use pagefault::{
    AddressSpace, Config, File, FileAccess, MapRequest, Overcommit, Pin, Placement, Sharing,
    Source, SyncMode,
};
use pagefault_sim::{Config as Machine, Sim, SimDisk, SimFile, Switching, Task, X86_64};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A disk or file of which one access takes long, and says when it begins.
struct Slow<D> {
    device: D,
    begins: Mutex<Option<Sender<()>>>,
    slow: Slowness,
}

#[derive(Clone, Copy, PartialEq)]
enum Slowness {
    Reads,
    Writes,
}

impl<D> Slow<D> {
    fn new(device: D, slow: Slowness) -> (Self, Receiver<()>) {
        let (sender, begins) = channel();
        (Self { device, begins: Mutex::new(Some(sender)), slow }, begins)
    }

    fn begin(&self, kind: Slowness) {
        if kind != self.slow {
            return;
        }
        let first = self.begins.lock().unwrap().take();
        if let Some(first) = first {
            first.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

impl SwapDevice for Slow<SimDisk> {
    fn slots(&self) -> u32 {
        self.device.slots()
    }

    fn read(&self, slot: u32, page: &mut [u8; PAGE as usize]) -> Result<(), IoError> {
        self.begin(Slowness::Reads);
        self.device.read(slot, page)
    }

    fn write(&self, slot: u32, page: &[u8; PAGE as usize]) -> Result<(), IoError> {
        self.begin(Slowness::Writes);
        self.device.write(slot, page)
    }

    fn discard(&self, slot: u32) {
        self.device.discard(slot);
    }
}

impl Backing for Slow<SimFile> {
    fn read(&self, index: u64, page: &mut [u8; PAGE as usize]) -> Result<(), IoError> {
        self.begin(Slowness::Reads);
        self.device.read(index, page)
    }

    fn write(&self, index: u64, page: &[u8]) -> Result<(), IoError> {
        self.begin(Slowness::Writes);
        self.device.write(index, page)
    }

    fn len(&self) -> Result<u64, IoError> {
        self.device.len()
    }
}

fn world(machine: Machine) -> (World<X86_64>, AddressSpace<Sim>) {
    let config = Config { overcommit: Overcommit::Always, ..Config::default() };
    let world = World::<X86_64>::new(machine, config);
    let space = world.process();
    let request =
        MapRequest { placement: Placement::Fixed(BASE), ..MapRequest::anonymous(64 * PAGE) };
    space.mm().mmap(&request).unwrap();
    (world, space)
}

fn small() -> Machine {
    Machine { frames: 24, cpus: 3, ..Machine::calm() }
}

/// Pins pages from the 32nd on until so many frames are free.
fn leave(world: &World<X86_64>, space: &AddressSpace<Sim>, frames: u32) -> Vec<Pin<Sim>> {
    let mut pins = Vec::new();
    while world.free() > frames {
        let page = at(32 + pins.len() as u64);
        pins.push(space.mm().pin(page..page + PAGE, Access::Write).unwrap());
    }
    pins
}

/// Without sleeping, the waiting thread would have made many thousands of passes. On a busy machine,
/// threads that are woken too early make a few hundred.
#[track_caller]
fn assert_slept(world: &World<X86_64>) {
    let passes = world.manager.counters().direct_passes;
    assert!(passes < 1000, "{passes} passes instead of waiting");
}

#[test]
fn f23_pages_being_written_are_waited_for() {
    // One batch takes all of memory.
    let (world, space) = world(small());
    let (disk, begins) = Slow::new(SimDisk::new(256), Slowness::Writes);
    world.manager.swap_on(Box::new(disk), Priority::Descending).unwrap();
    let store = |cpu, page| world.store(space.mm(), cpu, at(page), &[page as u8]);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..32).for_each(|page| assert_eq!(store(0, page), Ok(()))));
        begins.recv().unwrap();
        assert_eq!(world.free(), 0);
        assert_eq!(store(1, 63), Ok(()));
    });
    assert_slept(&world);
    for page in (0..32).chain([63]) {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)), Ok(page as u8));
    }
    world.check();
}

/// The only frame that can be had is being filled, and its page is in no queue yet.
#[test]
fn f23_a_page_being_read_from_swap_is_waited_for() {
    let (world, space) = world(small());
    let (disk, begins) = Slow::new(SimDisk::new(256), Slowness::Reads);
    world.manager.swap_on(Box::new(disk), Priority::Descending).unwrap();
    world.store(space.mm(), 0, at(0), &[9]).unwrap();
    assert_eq!(world.manager.reclaim(1), 1);
    let _pins = leave(&world, &space, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(9)));
        begins.recv().unwrap();
        assert_eq!(world.free(), 0);
        assert_eq!(world.store(space.mm(), 1, at(1), &[1]), Ok(()));
    });
    assert_slept(&world);
    assert_eq!(world.load_byte(space.mm(), 0, at(0)), Ok(9));
}

/// Likewise, read from a file.
#[test]
fn f23_a_page_being_read_from_a_file_is_waited_for() {
    let (world, space) = world(small());
    let (store, begins) = Slow::new(SimFile::pattern(PAGE, 9), Slowness::Reads);
    let file = File::open(&world.manager, Arc::new(store));
    let _pins = leave(&world, &space, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(file.read_at(0, &mut [0]), Ok(1)));
        begins.recv().unwrap();
        assert_eq!(world.store(space.mm(), 1, at(1), &[1]), Ok(()));
    });
    assert_slept(&world);
}

/// The only page that can go is locked, because it is being written.
#[test]
fn f23_a_page_being_written_by_a_sync_is_waited_for() {
    let (world, space) = world(small());
    let (store, begins) = Slow::new(SimFile::pattern(PAGE, 9), Slowness::Writes);
    let file = File::open(&world.manager, Arc::new(store));
    let request = MapRequest {
        source: Source::File {
            file: &file,
            offset: 0,
            access: FileAccess::READ | FileAccess::WRITE,
        },
        sharing: Sharing::Shared,
        placement: Placement::Fixed(at(64)),
        ..MapRequest::anonymous(PAGE)
    };
    space.mm().mmap(&request).unwrap();
    world.store(space.mm(), 0, at(64), &[1]).unwrap();
    let _pins = leave(&world, &space, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| space.mm().msync(at(64), PAGE, SyncMode::Sync).unwrap());
        begins.recv().unwrap();
        assert_eq!(world.store(space.mm(), 1, at(1), &[1]), Ok(()));
    });
    assert_slept(&world);
}

/// A thread that needs room does not wait for one that waits for its page lock: without memory,
/// both faults end as out of memory.
#[test]
fn f23_threads_that_wait_for_each_other_learn_that_there_is_no_memory() {
    let (world, space) = world(small());
    let file = File::open(&world.manager, Arc::new(SimFile::pattern(PAGE, 9)));
    let request = MapRequest {
        source: Source::File { file: &file, offset: 0, access: FileAccess::READ },
        placement: Placement::Fixed(at(64)),
        ..MapRequest::anonymous(PAGE)
    };
    space.mm().mmap(&request).unwrap();
    assert_eq!(file.read_at(0, &mut [0]), Ok(1));
    let pins = leave(&world, &space, 0);
    std::thread::scope(|scope| {
        for cpu in 0..3 {
            // A private copy is made with the file's page locked, which therefore cannot go.
            let (world, space) = (&world, &space);
            scope.spawn(move || assert!(world.store(space.mm(), cpu, at(64), &[1]).is_err()));
        }
    });
    drop(pins);
    world.check();
}

/// A single frame passes from task to task, in all orders that some hundred seeds find: no fault
/// ends as out of memory.
#[test]
fn i25_one_frame_for_three_tasks() {
    for seed in 0..if long() { 5000 } else { 60 } {
        let label = Label { what: format!("one frame, seed {seed}"), step: 0 };
        let (world, space) = world(Machine { seed, frames: 24, cpus: 3, ..Machine::default() });
        let (_, disk) = world.add_disk(128, Priority::Descending);
        disk.set_latency(seed % 8);
        let pins = leave(&world, &space, 1 + seed as u32 % 2);
        let task = |cpu: u32| -> Task<'_> {
            let (world, space) = (&world, &space);
            Box::new(move || {
                for round in 0..6 {
                    for page in [u64::from(cpu), 8 + round] {
                        let stored = world.store(space.mm(), cpu, at(page), &[round as u8]);
                        assert_eq!(stored, Ok(()), "round {round} of CPU {cpu}");
                    }
                }
            })
        };
        world.sim.explore(seed, vec![task(0), task(1), task(2)]);
        for cpu in 0..3 {
            assert_eq!(world.load_byte(space.mm(), 0, at(cpu)), Ok(5));
        }
        drop(pins);
        world.check();
        drop(label);
    }
}

/// Tasks that run until they wait store to a page that comes back from swap, without another frame.
/// The first one must not spin for the others, which still hold the page.
#[test]
fn i25_a_page_for_three_tasks_that_are_not_preempted() {
    for seed in 0..if long() { 5000 } else { 200 } {
        let label = Label { what: format!("not preempted, seed {seed}"), step: 0 };
        let (world, space) = world(Machine { seed, frames: 24, cpus: 3, ..Machine::default() });
        let (_, disk) = world.add_disk(128, Priority::Descending);
        disk.set_latency(1 + seed % 4);
        world.store(space.mm(), 0, at(0), &[9; 4]).unwrap();
        assert_eq!(world.manager.reclaim(1), 1);
        let _pins = leave(&world, &space, 1);
        let task = |cpu: u32| -> Task<'_> {
            let (world, space) = (&world, &space);
            let stored = move || world.store(space.mm(), cpu, at(0) + u64::from(cpu), &[1]);
            Box::new(move || assert_eq!(stored(), Ok(())))
        };
        let tasks = vec![task(0), task(1), task(2)];
        world.sim.explore_with(Switching::WhereTasksWait, seed, tasks);
        for (byte, value) in [1, 1, 1, 9].into_iter().enumerate() {
            assert_eq!(world.load_byte(space.mm(), 0, at(0) + byte as u64), Ok(value));
        }
        drop(label);
    }
}
