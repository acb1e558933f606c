//! How often processors wait for each other, on a simulated computer on which all are equally fast.
//!
//! `PAGEFAULT_LONG=1 cargo test -p pagefault --test it contention -- --nocapture` prints the table of
//! docs/performance.md.

use crate::common::{PAGE, RW, World, at, long, map};
use pagefault::Config;
use pagefault::swap::area::Priority;
use pagefault_sim::{Explored, Switching, Task, X86_64};

/// Pages of each processor, half of which fit in memory.
const PAGES: u64 = 96;

/// Where the next processor's pages begin: in a page table of their own.
const APART: u64 = 512;

/// Accesses of each processor.
const ACCESSES: u64 = 300;

/// How the processors' parts of the address space are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Regions {
    One,
    Each,
}

/// Each processor stores at random to its part. Returns what they did, and how many faults they had.
fn random_stores(cpus: u32, regions: Regions, bits: bool) -> (Explored, u64) {
    let machine = pagefault_sim::Config {
        frames: 40 + cpus * (PAGES as u32 / 2 + 1),
        cpus,
        accessed_bits: bits,
        dirty_bits: bits,
        zero_frame: bits,
        ..pagefault_sim::Config::calm()
    };
    let world = World::<X86_64>::new(machine, Config { read_ahead: 1, ..Config::default() });
    world.add_disk(1 << 16, Priority::Descending);
    let space = world.process();
    match regions {
        Regions::One => map(&space, 0, u64::from(cpus) * APART, RW),
        Regions::Each => (0..u64::from(cpus)).for_each(|cpu| map(&space, cpu * APART, PAGES, RW)),
    }
    let task = |cpu: u64| -> Task<'_> {
        let (world, mm) = (&world, space.mm());
        Box::new(move || {
            let mut random = cpu;
            for _ in 0..ACCESSES {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let page = cpu * APART + (random >> 33) % PAGES;
                world.store(mm, cpu as u32, at(page) + (random >> 20) % PAGE, &[1]).unwrap();
            }
        })
    };
    let tasks = (0..u64::from(cpus)).map(task).collect();
    let explored = world.sim.explore_with(Switching::Evenly, 0, tasks);
    world.check();
    let counters = world.manager.counters();
    (explored, counters.minor + counters.major)
}

#[test]
fn no_lock_stops_sixteen_processors() {
    let counts: &[u32] = if long() { &[1, 2, 4, 8, 16] } else { &[16] };
    for regions in [Regions::One, Regions::Each] {
        for bits in [true, false] {
            for &cpus in counts {
                let (explored, faults) = random_stores(cpus, regions, bits);
                let of = |count: u64| count * 1000 / faults;
                let (waits, most) = (of(explored.waits), of(explored.most_waits));
                let pauses = of(explored.pauses);
                println!(
                    "regions {regions:?}, bits {bits}, {cpus} CPUs: {faults} faults; of 1,000: {waits} \
                     waits, {most} for one lock, {pauses} pauses"
                );
                // A lock on every fault's path that were held for a tenth of a fault would be waited for at
                // nearly every fault.
                assert!(cpus < 16 || most < 100, "{most} of 1,000 faults wait for the same lock");
            }
        }
    }
}
