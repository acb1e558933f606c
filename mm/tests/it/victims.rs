//! The choice of the process to kill when memory runs out (spec F25).

use crate::common::{PAGE, World, at, stored, world_with};
use pagefault::oom::{Candidate, Choice, FIRST, NEVER, Standing};
use pagefault::swap::area::Priority;
use pagefault::{AddressSpace, Advice, Config};
use pagefault_sim::{Sim, X86_64};

/// Three programs with 2, 6 and 4 pages; those of the second are in swap.
fn three() -> (World<X86_64>, [AddressSpace<Sim>; 3]) {
    let world = world_with(256, Config::default());
    world.add_disk(256, Priority::Descending);
    let spaces = [2, 6, 4].map(|pages| {
        let space = world.process();
        stored(&world, &space, pages);
        space
    });
    spaces[1].mm().madvise(at(0), 6 * PAGE, Advice::PageOut).unwrap();
    (world, spaces)
}

fn running(space: &AddressSpace<Sim>) -> Candidate<'_, Sim> {
    Candidate { mm: space.mm(), standing: Standing::Running, tables: 0, adjustment: 0 }
}

#[test]
fn f25_the_largest_goes_and_swap_counts() {
    let (world, spaces) = three();
    assert_eq!(spaces[1].mm().swapped_pages(), 6);
    let candidates = spaces.each_ref().map(running);
    assert_eq!(world.manager.choose_victim(&candidates), Choice::Kill(1));
    let mut candidates = spaces.each_ref().map(running);
    candidates[0].tables = 5;
    assert_eq!(world.manager.choose_victim(&candidates), Choice::Kill(0));
}

#[test]
fn f25_adjustments_choose_and_protect() {
    let (world, spaces) = three();
    let choice = |adjustments: [i16; 3]| {
        let mut candidates = spaces.each_ref().map(running);
        for (candidate, adjustment) in candidates.iter_mut().zip(adjustments) {
            candidate.adjustment = adjustment;
        }
        world.manager.choose_victim(&candidates)
    };
    assert_eq!(choice([0, NEVER, 0]), Choice::Kill(2));
    assert_eq!(choice([NEVER; 3]), Choice::Nobody);
    assert_eq!(choice([FIRST, 0, NEVER]), Choice::Kill(0));
}

#[test]
fn f25_one_that_ends_is_waited_for_and_init_stays_with_all_that_share_its_memory() {
    let (world, spaces) = three();
    let mut candidates = spaces.each_ref().map(running);
    candidates[0].standing = Standing::Ending;
    assert_eq!(world.manager.choose_victim(&candidates), Choice::Wait);
    let init = Candidate { standing: Standing::Needed, ..running(&spaces[1]) };
    let candidates = [running(&spaces[1]), init, running(&spaces[0])];
    assert_eq!(world.manager.choose_victim(&candidates), Choice::Kill(2));
}
