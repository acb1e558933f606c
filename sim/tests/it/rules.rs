//! Broken rules about frames are reported.

use crate::common::{PAGE, RW, present, set};
use pagefault_machine::{Entry, Frame, Machine, PAGE_SIZE, Protection, Space, SwapSlot, VirtAddr};
use pagefault_sim::{Computer, Config, Ia32, OnViolation, Operation, Sim, Violation};

fn recording() -> Sim {
    Sim::new(Config { on_violation: OnViolation::Record, ..Config::calm() })
}

#[test]
fn double_frees_are_found() {
    let sim = recording();
    let frame = sim.allocate().unwrap();
    let free = sim.free_frames();
    sim.free(frame);
    sim.free(frame);
    assert_eq!(sim.violations(), [Violation::DoubleFree { frame }]);
    assert_eq!(sim.free_frames(), free + 1);
}

#[test]
#[should_panic(expected = "was freed twice")]
fn by_default_a_violation_panics() {
    let sim = Sim::new(Config::calm());
    let frame = sim.allocate().unwrap();
    sim.free(frame);
    sim.free(frame);
}

#[test]
fn the_frame_of_zeros_is_neither_freed_nor_written() {
    let sim = recording();
    let frame = sim.zero_frame().unwrap();
    let space = sim.space().unwrap();
    let source = sim.allocate().unwrap();
    set(&space, PAGE, present(frame, Protection::READ));
    sim.drain(frame, |page| assert!(page.iter().all(|byte| *byte == 0)));
    assert_eq!(sim.violations(), []);
    sim.free(frame);
    sim.fill(frame, |page| page[0] = 1);
    sim.copy(source, frame);
    sim.zero(frame);
    set(&space, PAGE, present(frame, RW));
    let tried = [
        Operation::Free,
        Operation::Fill,
        Operation::CopyTo,
        Operation::Zero,
        Operation::MapWritable,
    ];
    let expected = tried.map(|operation| Violation::Forbidden { frame, operation });
    assert_eq!(sim.violations(), expected);
    sim.drain(frame, |page| assert!(page.iter().all(|byte| *byte == 0)));
}

#[test]
fn free_frames_and_tables_are_not_to_be_used() {
    let sim = recording();
    let space = sim.space().unwrap();
    // The levels are made now, so that they do not take the frame that is free below.
    set(&space, PAGE, Entry::None);
    let frame = sim.allocate().unwrap();
    sim.free(frame);
    sim.zero(frame);
    sim.drain(frame, |_| ());
    set(&space, PAGE, present(frame, Protection::READ));
    let table = sim.kernel().root();
    sim.free(table);
    let beyond = Frame(sim.frames());
    sim.zero(beyond);
    sim.free(beyond);
    assert_eq!(
        sim.violations(),
        [
            Violation::UseAfterFree { frame, operation: Operation::Zero },
            Violation::UseAfterFree { frame, operation: Operation::Drain },
            Violation::UseAfterFree { frame, operation: Operation::Map },
            Violation::Forbidden { frame: table, operation: Operation::Free },
            Violation::NoSuchFrame { frame: beyond },
            Violation::NoSuchFrame { frame: beyond },
        ]
    );
}

#[test]
fn a_freed_frame_is_scrambled_and_a_late_store_to_it_found() {
    let sim = recording();
    let space = sim.space().unwrap();
    let frame = sim.allocate().unwrap();
    sim.fill(frame, |page| page.fill(7));
    set(&space, PAGE, present(frame, RW));
    sim.free(frame);
    // A stale entry lets a CPU store to it.
    let user = pagefault_machine::Mode::User;
    sim.cpu(0).store(&space, PAGE + 16, user, 7).unwrap();
    let mut seen = [0; 8];
    sim.cpu(0).load_bytes(&space, PAGE, user, &mut seen).unwrap();
    assert_ne!(seen, [7; 8], "the old content is gone");
    assert_eq!(sim.allocate(), Ok(frame), "the frame freed last is taken first");
    let violations = sim.violations();
    assert!(violations.contains(&Violation::WrittenWhileFree { frame, offset: 16 }));
    assert!(violations.iter().any(|v| matches!(v, Violation::StrayAccess { .. })));
}

#[test]
fn a_fill_leaves_words_alone_that_it_does_not_change() {
    let sim = Sim::new(Config::calm());
    let space = sim.space().unwrap();
    let frame = crate::common::map(&sim, &space, PAGE, RW);
    sim.fill(frame, |page| {
        page[0] = 1;
        sim.cpu(0).store(&space, PAGE + 64, pagefault_machine::Mode::User, 2).unwrap();
    });
    sim.drain(frame, |page| assert_eq!((page[0], page[64]), (1, 2)));
}

#[test]
#[should_panic(expected = "does not fit")]
fn an_entry_that_the_processor_cannot_hold_is_refused() {
    let sim = Computer::<Ia32>::new(Config::calm());
    let space = sim.space().unwrap();
    set(&space, PAGE, Entry::Swap(SwapSlot { area: 0, offset: 1 << 24 }));
}

#[test]
fn copies_and_fills_reach_the_whole_frame() {
    let sim = Sim::new(Config::calm());
    let (a, b) = (sim.allocate().unwrap(), sim.allocate().unwrap());
    sim.fill(a, |page| page.iter_mut().zip(0u32..).for_each(|(byte, n)| *byte = (n * 7) as u8));
    sim.copy(a, b);
    let same = sim.drain(a, |a| sim.drain(b, |b| a == b));
    assert!(same);
    sim.zero(a);
    sim.drain(a, |page| assert!(page.iter().all(|byte| *byte == 0)));
    sim.drain(b, |page| assert_eq!(page[4095], (4095u32 * 7) as u8));
}

#[test]
fn flushing_under_a_cursor_and_a_third_cursor_are_found() {
    let sim = recording();
    let (a, b) = (sim.space().unwrap(), sim.space().unwrap());
    let first = a.lock(PAGE..PAGE + PAGE_SIZE).unwrap();
    sim.flush(&b, &[crate::common::stale(PAGE, Frame(9))]);
    let second = b.lock(PAGE..PAGE + PAGE_SIZE).unwrap();
    let third = b.lock(VirtAddr(0)..VirtAddr(PAGE_SIZE)).unwrap();
    drop((first, second, third));
    sim.flush(&b, &[crate::common::stale(PAGE, Frame(9))]);
    let (flushed, locked) = (b.id(), b.id());
    let expected = [
        Violation::FlushUnderCursor { space: flushed },
        Violation::TooManyCursors { space: locked },
    ];
    assert_eq!(sim.violations(), expected);
}
