//! Alpha's rules: each right by itself (spec A17), and no bits that the processor keeps.

use crate::common::{PAGE, map, set};
use pagefault_machine::{Entry, ErrorCode, Frame, Machine, Mode, Protection, Space};
use pagefault_sim::{Alpha, Computer, Config};

/// An entry that software has marked as used: before that, not even a load goes through it.
fn used<S: Space>(space: &S, frame: Frame, protection: Protection) {
    let entry = Entry::Present { frame, protection, accessed: true, dirty: false };
    set(space, PAGE, entry);
}

#[test]
fn each_access_needs_its_own_right() {
    let sim = Computer::<Alpha>::new(Config::calm());
    let space = sim.space().unwrap();
    let cpu = sim.cpu(0);
    // Nothing is cached yet, and the entry is not used yet.
    let frame = map(&sim, &space, PAGE, Protection::EXECUTE);
    used(&space, frame, Protection::EXECUTE);
    assert!(cpu.fetch(&space, PAGE, Mode::User).is_ok());
    let fault = cpu.load(&space, PAGE, Mode::User).unwrap_err();
    assert_eq!(fault.code, ErrorCode::PROTECTION | ErrorCode::USER);
    used(&space, frame, Protection::READ);
    sim.flush(&space, &[crate::common::stale(PAGE, frame)]);
    assert!(cpu.load(&space, PAGE, Mode::User).is_ok());
    let fault = cpu.fetch(&space, PAGE, Mode::User).unwrap_err();
    assert_eq!(fault.code, ErrorCode::PROTECTION | ErrorCode::USER | ErrorCode::FETCH);
}

#[test]
fn the_processor_keeps_neither_bit() {
    let sim = Computer::<Alpha>::new(Config::calm());
    let capabilities = sim.capabilities();
    assert!(!capabilities.accessed && !capabilities.dirty);
}
