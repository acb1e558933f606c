//! Frames that nothing can leave, as page tables, take nearly all of memory (spec F23, F25): what is left
//! is what programs run from.

use crate::common::{PAGE, World, at, world_with};
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::SeqCst;
use pagefault::entry::Verdict;
use pagefault::machine::{Machine, Mode, VirtAddr};
use pagefault::{AddressSpace, Config, File, MapRequest, Overcommit};
use pagefault_sim::{Sim, SimFile, Switching, Task, X86_64};
use std::sync::Arc;

const FRAMES: u32 = 1024;

/// The pages of the program that its loop runs from. They lie too far apart for one to be read with the other.
const LOOP: [u64; 2] = [3, 200];

/// What one leaf table maps.
const LEAF: u64 = 512 * PAGE;

/// Where the memory begins of which the program reads a byte for each page table.
const SPARSE: VirtAddr = VirtAddr(1 << 38);

/// A program of 256 pages that reads a byte of every 2 MiB of a large mapping: each shows the shared page
/// of zeros, and takes a page table. Swap has room all the while.
fn world() -> (World<X86_64>, AddressSpace<Sim>) {
    let config = Config { overcommit: Overcommit::Always, ..Config::default() };
    let (world, _disk) = world_with(FRAMES, config).with_disk(4 * FRAMES);
    let space = world.process();
    let file = File::open(&world.manager, Arc::new(SimFile::pattern(256 * PAGE, 1)));
    space.mmap(&MapRequest::file(&file, 0, 256 * PAGE).at(at(0))).unwrap();
    let size = u64::from(FRAMES) * LEAF;
    space.mmap(&MapRequest::anonymous(size).at(SPARSE)).unwrap();
    (world, space)
}

/// How the program's processor continues after a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// The program runs on.
    Fault,
    /// Others run first, as where a fault takes longer than the scheduler leaves a thread.
    Others,
}

/// Runs the program until memory runs out, and checks how often it had to wait for its own pages.
fn run(world: &World<X86_64>, space: &AddressSpace<Sim>, after: After) {
    let load = |address| {
        world.access(space.mm(), 0, |cpu| {
            if after == After::Others {
                world.sim.pause();
            }
            cpu.load(space.mm().space(), address, Mode::User)
        })
    };
    let round = |round| {
        for page in LOOP {
            assert_eq!(load(at(page))?, SimFile::pattern_byte(page * PAGE, 1));
        }
        load(SPARSE + round * LEAF)
    };
    let ended = (0..u64::from(FRAMES)).find_map(|number| round(number).err());
    assert_eq!(ended, Some(Verdict::OutOfMemory), "there are as many page tables as frames");
    let major = world.manager.counters().major;
    assert!(major <= 32, "{major} reads for two pages that are in use all the while");
    world.check();
}

#[test]
fn f23_pages_read_ahead_do_not_drive_out_what_the_program_runs_from() {
    let (world, space) = world();
    run(&world, &space, After::Fault);
}

#[test]
fn f24_background_reclaim_leaves_what_a_program_runs_from() {
    let switching = [Switching::WhereTasksWait, Switching::Seldom, Switching::Anywhere];
    let cases = switching.iter().flat_map(|how| (0..8).map(move |seed| (*how, seed)));
    for ((how, seed), after) in cases.flat_map(|case| [(case, After::Fault), (case, After::Others)])
    {
        let (world, space) = world();
        let stop = AtomicBool::new(false);
        let program: Task<'_> = Box::new(|| {
            run(&world, &space, after);
            stop.store(true, SeqCst);
            world.manager.wake_background();
        });
        let background: Task<'_> = Box::new(|| world.manager.background(&stop));
        world.sim.explore_with(how, seed, vec![program, background]);
    }
}
