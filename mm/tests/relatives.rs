//! Pages that many address spaces share, on the simulated computer.

mod common;

use common::{PAGE, World, at, stored, world_with};
use pagefault::swap::area::Priority;
use pagefault::{Advice, Config};
use pagefault_sim::X86_64;

/// More than those whose translations a batch gathers at once.
const CHILDREN: usize = 7;

#[test]
fn f19_a_page_that_many_processes_share_can_leave() {
    let world: World<X86_64> = world_with(256, Config::default());
    world.add_disk(256, Priority::Descending);
    let space = world.process();
    stored(&world, &space, 4);
    let children: Vec<_> = (0..CHILDREN).map(|_| space.fork().unwrap()).collect();
    for child in &children {
        assert_eq!(world.load_byte(child.mm(), 0, at(2)).unwrap(), 3);
    }
    // Once with nothing to write, and once more to where it is written already.
    for _ in 0..2 {
        space.mm().madvise(at(0), 4 * PAGE, Advice::PageOut).unwrap();
        let frames = world.manager.reclaim(64);
        assert!(frames <= 4, "{frames} frames");
        for child in &children {
            assert_eq!(world.load_byte(child.mm(), 0, at(2)).unwrap(), 3);
        }
    }
    world.check();
}
