//! What a child gets, and what the kernel's own accesses leave (spec E, H), on the simulated computer.

use super::world;
use crate::common::{PAGE, at, stored};
use pagefault::Advice;
use pagefault::entry::{SegvCode, Signal, Verdict};
use pagefault::machine::VirtAddr;

#[test]
fn e2_e3_a_child_gets_no_region_that_is_left_out_and_no_lock() {
    let world = world(64);
    let space = world.process();
    stored(&world, &space, 4);
    space.mm().madvise(at(1), PAGE, Advice::DontFork).unwrap();
    space.mm().mlock(at(2), PAGE).unwrap();
    let child = space.fork().unwrap();
    let absent = Verdict::Signal(Signal::Segv(SegvCode::MapErr));
    let look = |page| world.load_byte(child.mm(), 0, at(page));
    assert_eq!([look(0), look(1), look(2)], [Ok(1), Err(absent), Ok(3)]);
    assert_eq!([space.usage().locked, child.usage().locked], [1, 0]);
    world.check();
}

#[test]
fn h2_h4_no_byte_is_copied_outside_the_program_and_the_rest_reads_as_zero() {
    let world = world(64);
    let space = world.process();
    stored(&world, &space, 1);
    let mm = space.mm();
    let mut bytes = [9; 12];
    assert_eq!(mm.copy_from_user(at(1) - 4, &mut bytes), 8);
    assert_eq!(bytes, [0; 12], "four bytes of the page, and eight that are not there");
    let kernel = VirtAddr(0xffff_c200_0000_0000);
    for (start, length) in [(kernel, 1), (VirtAddr(u64::MAX - 3), 8)] {
        assert!(!mm.access_ok(start, length));
    }
    bytes = [9; 12];
    assert_eq!(mm.copy_from_user(kernel, &mut bytes), 12);
    assert_eq!(bytes, [0; 12]);
}
