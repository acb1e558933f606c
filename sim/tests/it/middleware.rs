//! Machines around a machine.

use crate::common::{PAGE, RW, entry, present, set, stale};
use pagefault_machine::{Entry, Machine, Mode, NoSpace, PAGE_SIZE, Space};
use pagefault_sim::{Call, Config, Faulty, Log, Sim, Traced};
use std::sync::atomic::{AtomicU64, Ordering};

/// What any memory manager does with any machine.
fn use_machine<M: Machine>(machine: &M) -> Result<(), NoSpace> {
    let space = machine.space()?;
    let frame = machine.allocate()?;
    let guard = Free(machine, frame);
    machine.zero(frame);
    let range = PAGE..PAGE + PAGE_SIZE;
    drop(space.lock(range)?);
    set(&space, PAGE, present(frame, RW));
    set(&space, PAGE, Entry::None);
    machine.flush(&space, &[stale(PAGE, frame)]);
    drop(guard);
    Ok(())
}

struct Free<'a, M: Machine>(&'a M, pagefault_machine::Frame);

impl<M: Machine> Drop for Free<'_, M> {
    fn drop(&mut self) {
        self.0.free(self.1);
    }
}

#[test]
fn every_request_for_frames_can_fail() {
    let sim = Sim::new(Config::calm());
    let before = sim.usage();
    let machine = Faulty::new(sim.clone());
    let mut failures = 0;
    loop {
        machine.fail_nth_allocation(failures + 1);
        match use_machine(&machine) {
            Err(NoSpace::OutOfFrames) => failures += 1,
            Err(NoSpace::Refused) => panic!("no space is refused"),
            Ok(()) => break,
        }
        assert!(machine.has_failed());
        assert_eq!(sim.usage(), before);
    }
    // The space, the frame, and the levels; the second lock finds them made.
    assert_eq!(failures, 3);
    assert!(!machine.has_failed());
}

#[test]
fn a_log_keeps_the_last_calls_in_order() {
    let sim = Sim::new(Config::calm());
    let log = Log::new(3);
    let machine = Traced::new(sim, log.clone());
    use_machine(&machine).unwrap();
    let calls = log.calls();
    assert!(matches!(calls[..], [Call::Flush { pages: 1, .. }, Call::Free(_), Call::Drop(_)]));
    assert!(log.total() > 10);
    log.clear();
    let frame = machine.allocate().unwrap();
    assert_eq!(log.calls(), [Call::Allocate(Ok(frame))]);
}

#[test]
fn an_observer_sees_entries_change() {
    let sim = Sim::new(Config::calm());
    let replaced = std::sync::Arc::new(AtomicU64::new(0));
    let count = replaced.clone();
    let machine = Traced::new(sim.clone(), move |call: &Call| {
        if matches!(call, Call::Replace { new: Entry::File(3), old: Entry::None, .. }) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let space = machine.space().unwrap();
    set(&space, PAGE, Entry::File(3));
    assert_eq!(replaced.load(Ordering::Relaxed), 1);
    // The machine inside is as usable as ever.
    assert_eq!(entry(space.inner(), PAGE), Entry::File(3));
    assert!(sim.cpu(0).load(space.inner(), PAGE, Mode::User).is_err());
}

#[test]
fn middleware_stacks() {
    let sim = Sim::new(Config::calm());
    let machine = Traced::new(Faulty::new(sim.clone()), Log::new(10));
    machine.inner().fail_nth_allocation(1);
    assert_eq!(use_machine(&machine), Err(NoSpace::OutOfFrames));
    assert_eq!(use_machine(&machine), Ok(()));
    assert_eq!(sim.usage().allocated, 0);
}
