//! Stale translations: where they stay, what flushes them, and how they are found.

use crate::common::{PAGE, RW, entry, map, page, present, set, stale, unmap};
use pagefault_machine::{Cursor, Entry, Fate, Machine, Mode, Protection, Space, Stale};
use pagefault_sim::{Config, Hazards, OnViolation, Sim, Staleness, Violation};

fn sim(cpus: u32) -> Sim {
    Sim::new(Config { cpus, ..Config::calm() })
}

fn recording(cpus: u32) -> Sim {
    Sim::new(Config { cpus, on_violation: OnViolation::Record, ..Config::calm() })
}

#[test]
fn a_flush_reaches_every_cpu_that_runs_the_space_and_no_other() {
    let sim = sim(3);
    let (space, other) = (sim.space().unwrap(), sim.space().unwrap());
    let frame = map(&sim, &space, PAGE, RW);
    map(&sim, &other, PAGE, RW);
    sim.cpu(2).load(&other, PAGE, Mode::User).unwrap();
    sim.cpu(1).load(&space, PAGE, Mode::User).unwrap();
    sim.cpu(0).load(&space, PAGE, Mode::User).unwrap();
    assert_eq!(space.cpu_mask(), 0b011);
    set(&space, PAGE, Entry::None);
    for cpu in [0, 1] {
        assert_eq!(sim.cpu(cpu).load(&space, PAGE, Mode::User), Ok(0), "stale on CPU {cpu}");
    }
    sim.flush(&space, &[stale(PAGE, frame)]);
    assert_eq!((sim.stats().flushes, sim.stats().flushed_pages), (1, 1));
    // This thread ran on CPU 1 last, so CPU 0 was interrupted.
    assert_eq!(sim.stats().interrupts, 1);
    assert!(sim.cpu(0).load(&space, PAGE, Mode::User).is_err());
    assert!(sim.cpu(1).load(&space, PAGE, Mode::User).is_err());
    assert_eq!(sim.cpu(2).cached(), 1);
}

#[test]
fn a_flush_here_is_refused_while_another_cpu_may_hold_translations() {
    let sim = sim(2);
    let space = sim.space().unwrap();
    let frame = map(&sim, &space, PAGE, RW);
    sim.cpu(1).load(&space, PAGE, Mode::User).unwrap();
    sim.cpu(0).load(&space, PAGE, Mode::User).unwrap();
    set(&space, PAGE, Entry::None);
    assert!(!sim.flush_here(&space, stale(PAGE, frame)));
    for cpu in [1, 0] {
        assert_eq!(sim.cpu(cpu).load(&space, PAGE, Mode::User), Ok(0), "flushed on CPU {cpu}");
    }
    // CPU 1 goes to another space: CPU 0 is alone.
    sim.cpu(1).switch(sim.kernel());
    let _ = sim.cpu(0).load(&space, PAGE, Mode::User);
    assert!(sim.flush_here(&space, stale(PAGE, frame)));
    assert!(sim.cpu(0).load(&space, PAGE, Mode::User).is_err());
    assert_eq!((sim.stats().flushes, sim.stats().interrupts), (1, 0));
}

#[test]
fn a_flush_here_may_be_asked_for_under_the_cursor() {
    let sim = sim(1);
    let space = sim.space().unwrap();
    let frame = map(&sim, &space, PAGE, RW);
    sim.cpu(0).load(&space, PAGE, Mode::User).unwrap();
    let mut cursor = space.lock(PAGE..page(1)).unwrap();
    cursor.replace(PAGE, Entry::None);
    assert!(sim.flush_here(&space, stale(PAGE, frame)));
    drop(cursor);
    assert!(sim.cpu(0).load(&space, PAGE, Mode::User).is_err());
}

#[test]
fn only_the_pages_named_are_flushed() {
    let sim = sim(1);
    let space = sim.space().unwrap();
    let frames = [0, 1].map(|index| map(&sim, &space, page(index), RW));
    for index in [0, 1] {
        sim.cpu(0).load(&space, page(index), Mode::User).unwrap();
        set(&space, page(index), Entry::None);
    }
    sim.flush(&space, &[stale(page(0), frames[0])]);
    let forgotten = Violation::StaleTranslation {
        cpu: 0,
        space: space.id(),
        address: page(1),
        frame: frames[1],
        staleness: Staleness::Absent,
    };
    assert_eq!(sim.check_tlbs(), Err(forgotten));
}

#[test]
fn a_check_finds_each_way_to_be_stale() {
    let sim = recording(1);
    let space = sim.space().unwrap();
    let all = RW | Protection::EXECUTE;
    let frame = map(&sim, &space, PAGE, all);
    let other = sim.allocate().unwrap();
    let staleness_after = |change: Entry| {
        set(&space, PAGE, Entry::Present { frame, protection: all, accessed: true, dirty: true });
        sim.flush(&space, &[stale(PAGE, frame)]);
        sim.cpu(0).store(&space, PAGE, Mode::User, 1).unwrap();
        assert_eq!(sim.check_tlbs(), Ok(()));
        set(&space, PAGE, change);
        match sim.check_tlbs() {
            Err(Violation::StaleTranslation { staleness, .. }) => staleness,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(staleness_after(Entry::None), Staleness::Absent);
    assert_eq!(staleness_after(present(frame, Protection::empty())), Staleness::Absent);
    assert_eq!(staleness_after(present(other, all)), Staleness::Frame(other));
    assert_eq!(staleness_after(present(frame, Protection::READ)), Staleness::Write);
    assert_eq!(staleness_after(present(frame, RW)), Staleness::Execute);
    assert_eq!(staleness_after(present(frame, all)), Staleness::Dirty);
    sim.free(frame);
    assert_eq!(sim.violations(), [Violation::FreedWhileMapped { frame, cpu: 0, address: PAGE }]);
    assert!(sim.check_tlbs().unwrap_err().to_string().contains("free"));
}

#[test]
#[should_panic(expected = "was freed while the TLB of CPU 0 maps 0x400000 to it")]
fn a_frame_freed_before_the_flush_is_reported() {
    let sim = sim(1);
    let space = sim.space().unwrap();
    let frame = map(&sim, &space, PAGE, RW);
    sim.cpu(0).load(&space, PAGE, Mode::User).unwrap();
    set(&space, PAGE, Entry::None);
    sim.free(frame);
}

#[test]
#[should_panic(expected = "which is free")]
fn an_access_to_a_free_frame_is_reported() {
    let sim = sim(1);
    let space = sim.space().unwrap();
    let frame = map(&sim, &space, PAGE, RW);
    sim.free(frame);
    let _ = sim.cpu(0).load(&space, PAGE, Mode::User);
}

#[test]
fn a_lazy_cpu_leaves_the_space_at_the_first_flush() {
    let sim = sim(2);
    let space = sim.space().unwrap();
    let frames = [0, 1].map(|index| map(&sim, &space, page(index), RW));
    let (zero, one) = (sim.cpu(0), sim.cpu(1));
    one.load(&space, page(0), Mode::User).unwrap();
    one.idle();
    zero.load(&space, page(0), Mode::User).unwrap();
    assert_eq!(space.cpu_mask(), 0b11, "the idle CPU keeps the root");
    assert_eq!(one.root(), space.root());
    set(&space, page(0), Entry::None);
    sim.flush(&space, &[stale(page(0), frames[0])]);
    assert_eq!(sim.stats().lazy_leaves, 1);
    assert_eq!(space.cpu_mask(), 0b01);
    assert_eq!(one.root(), sim.kernel().root());
    assert_eq!(one.cached(), 0);
    // No more interrupts for it, and it comes back with a fresh TLB.
    set(&space, page(1), Entry::None);
    sim.flush(&space, &[stale(page(1), frames[1])]);
    assert_eq!(sim.stats().interrupts, 1);
    assert!(one.load(&space, page(1), Mode::User).is_err());
    assert_eq!(space.cpu_mask(), 0b11);
}

#[test]
fn a_lazy_cpu_that_was_not_interrupted_goes_on_with_its_translations() {
    let sim = sim(1);
    let space = sim.space().unwrap();
    map(&sim, &space, PAGE, RW);
    let cpu = sim.cpu(0);
    cpu.load(&space, PAGE, Mode::User).unwrap();
    cpu.idle();
    cpu.load(&space, PAGE, Mode::User).unwrap();
    assert_eq!(sim.stats().tlb_hits, 1);
    assert_eq!(sim.stats().switches, 1);
}

#[test]
fn a_switch_of_spaces_forgets_the_old_ones_translations() {
    let sim = sim(1);
    let (a, b) = (sim.space().unwrap(), sim.space().unwrap());
    map(&sim, &a, PAGE, RW);
    map(&sim, &b, PAGE, RW);
    let cpu = sim.cpu(0);
    cpu.store(&a, PAGE, Mode::User, 1).unwrap();
    cpu.store(&b, PAGE, Mode::User, 2).unwrap();
    assert_eq!(cpu.load(&a, PAGE, Mode::User), Ok(1));
    assert_eq!((a.cpu_mask(), b.cpu_mask()), (1, 0));
}

#[test]
fn a_dropped_space_is_left_by_its_cpus() {
    let sim = sim(2);
    let space = sim.space().unwrap();
    let frame = map(&sim, &space, PAGE, RW);
    sim.cpu(0).load(&space, PAGE, Mode::User).unwrap();
    sim.cpu(1).load(&space, PAGE, Mode::User).unwrap();
    drop(space);
    assert_eq!(sim.cpu(0).cached() + sim.cpu(1).cached(), 0);
    assert_eq!(sim.cpu(1).root(), sim.kernel().root());
    sim.free(frame);
}

#[test]
fn a_full_tlb_makes_room() {
    let sim = Sim::new(Config { tlb_entries: 8, ..Config::calm() });
    let space = sim.space().unwrap();
    for index in 0..40 {
        map(&sim, &space, page(index), RW);
        sim.cpu(0).load(&space, page(index), Mode::User).unwrap();
    }
    assert_eq!(sim.cpu(0).cached(), 8);
    // Frames of dropped translations are not held against anybody.
    (0..40).for_each(|index| unmap(&sim, &space, page(index)));
    assert_eq!(sim.usage().allocated, 0);
}

#[test]
fn hazards_drop_translations_and_set_accessed_bits_unasked() {
    let hazards = Hazards { evictions: 512, prefetches: 512 };
    let sim = Sim::new(Config { hazards, ..Config::calm() });
    let space = sim.space().unwrap();
    let frame = map(&sim, &space, page(0), RW);
    map(&sim, &space, page(1), RW);
    for _ in 0..100 {
        sim.cpu(0).load(&space, page(0), Mode::User).unwrap();
    }
    assert!(sim.stats().tlb_misses > 2, "evictions make an access walk again");
    assert!(sim.stats().prefetches > 0);
    assert!(matches!(entry(&space, page(1)), Entry::Present { accessed: true, dirty: false, .. }));
    // Just before an entry changes the TLB may take it in: no untouched page is safe unflushed.
    let caught = (0..100).any(|_| {
        set(&space, page(0), Entry::None);
        let is_stale = sim.check_tlbs().is_err();
        sim.flush(&space, &[stale(page(0), frame)]);
        set(&space, page(0), present(frame, RW));
        is_stale
    });
    assert!(caught);
}

#[test]
fn the_same_seed_does_the_same() {
    let run = |seed| {
        let sim = Sim::new(Config { seed, cpus: 2, ..Config::default() });
        let space = sim.space().unwrap();
        for round in 0..2000 {
            let (cpu, at) = (sim.cpu(round % 2), page(u64::from(round % 37)));
            if cpu.store(&space, at, Mode::User, 1).is_err() {
                map(&sim, &space, at, RW);
            }
            if round % 5 == 0 {
                unmap(&sim, &space, page(u64::from(round % 11)));
            }
        }
        sim.stats()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn bits_that_the_machine_does_not_keep_stay_as_they_are() {
    let config = Config { accessed_bits: false, dirty_bits: false, ..Config::calm() };
    let sim = Sim::new(Config { on_violation: OnViolation::Record, ..config });
    assert!(!sim.capabilities().accessed && !sim.capabilities().dirty);
    let space = sim.space().unwrap();
    let frame = map(&sim, &space, PAGE, RW);
    assert_eq!(sim.violations(), [Violation::WritableUnnoticed { address: PAGE }]);
    sim.cpu(0).store(&space, PAGE, Mode::User, 1).unwrap();
    assert_eq!(entry(&space, PAGE), present(frame, RW));
    let cleared = Stale { address: PAGE, frame, fate: Fate::Narrowed };
    sim.flush(&space, &[cleared]);
    assert_eq!(sim.check_tlbs(), Ok(()));
}
