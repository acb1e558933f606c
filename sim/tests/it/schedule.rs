//! Interleavings under a seed: they repeat, they differ, and they find what only they can.

use crate::common::{PAGE, RW, map};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use lock_api::{Mutex, RwLock};
use pagefault_machine::{Machine, Mode};
use pagefault_sim::{Config, Sim, SimMutex, SimRwLock, Task, yield_point};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn sim() -> Sim {
    Sim::new(Config { cpus: 2, ..Config::calm() })
}

/// The message that a run ends with.
fn message(run: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast::<&str>().unwrap().to_string(),
    }
}

#[test]
fn a_seed_names_an_interleaving() {
    let run = |seed| {
        let sim = sim();
        let order = Mutex::<SimMutex, _>::new(Vec::new());
        let task = |name: u32| -> Task<'_> {
            let order = &order;
            Box::new(move || (0..20).for_each(|_| order.lock().push(name)))
        };
        let explored = sim.explore(seed, vec![task(0), task(1), task(2)]);
        (explored, order.into_inner())
    };
    assert_eq!(run(3), run(3));
    let orders: std::collections::BTreeSet<_> = (0..20).map(|seed| run(seed).1).collect();
    assert!(orders.len() > 10, "{} orders", orders.len());
}

#[test]
fn a_lost_update_is_found_and_found_again() {
    // Load and store are two accesses, between which the other CPU may come in.
    let run = |seed| {
        let sim = sim();
        let space = sim.space().unwrap();
        map(&sim, &space, PAGE, RW);
        let task = |cpu: u32| -> Task<'_> {
            let (sim, space) = (&sim, &space);
            Box::new(move || {
                let cpu = sim.cpu(cpu);
                let value = cpu.load(space, PAGE, Mode::User).unwrap();
                cpu.store(space, PAGE, Mode::User, value + 1).unwrap();
            })
        };
        sim.explore(seed, vec![task(0), task(1)]);
        sim.cpu(0).load(&space, PAGE, Mode::User).unwrap()
    };
    let results: Vec<u8> = (0..40).map(run).collect();
    assert!(results.contains(&1) && results.contains(&2), "{results:?}");
    assert_eq!(results, (0..40).map(run).collect::<Vec<u8>>());
}

#[test]
fn locks_taken_in_opposite_orders_deadlock_under_some_seed() {
    let run = |seed| {
        let (a, b) = (Mutex::<SimMutex, _>::new(()), Mutex::<SimMutex, _>::new(()));
        let one: Task<'_> = Box::new(|| drop((a.lock(), b.lock())));
        let two: Task<'_> = Box::new(|| drop((b.lock(), a.lock())));
        catch_unwind(AssertUnwindSafe(|| sim().explore(seed, vec![one, two]))).is_err()
    };
    assert!((0..100).any(run));
    assert!(!(0..100).all(run));
}

#[test]
fn a_wake_that_never_comes_is_reported() {
    let word = AtomicU32::new(0);
    let sim = sim();
    let waiter: Task<'_> = Box::new(|| {
        while word.load(SeqCst) == 0 {
            sim.wait(&word, 0);
        }
    });
    let message = message(|| {
        sim.explore(1, vec![waiter]);
    });
    assert!(message.contains("deadlock: task 0 waits for the word"), "{message}");
    assert!(message.contains("seed 1"), "{message}");
}

#[test]
fn waiters_are_woken_under_every_seed() {
    for seed in 0..100 {
        let (word, seen) = (AtomicU32::new(0), AtomicU32::new(0));
        let sim = sim();
        let waiter = || -> Task<'_> {
            Box::new(|| {
                while word.load(SeqCst) == 0 {
                    sim.wait(&word, 0);
                }
                seen.fetch_add(1, SeqCst);
            })
        };
        let waker: Task<'_> = Box::new(|| {
            word.store(1, SeqCst);
            sim.wake(&word);
        });
        sim.explore(seed, vec![waiter(), waiter(), waker]);
        assert_eq!(seen.load(SeqCst), 2);
    }
}

#[test]
fn readers_share_and_writers_do_not() {
    for seed in 0..100 {
        let lock = RwLock::<SimRwLock, _>::new(0);
        let writer = || -> Task<'_> {
            Box::new(|| {
                let mut value = lock.write();
                let old = *value;
                yield_point();
                *value = old + 1;
            })
        };
        let reader: Task<'_> = Box::new(|| {
            let value = lock.read();
            let before = *value;
            yield_point();
            assert_eq!(*value, before);
        });
        sim().explore(seed, vec![writer(), reader, writer()]);
        assert_eq!(*lock.read(), 2);
    }
}

#[test]
fn a_panic_of_a_task_is_the_panic_of_the_run_and_ends_the_others() {
    let lock = Mutex::<SimMutex, _>::new(());
    let sim = sim();
    let bad: Task<'_> = Box::new(|| {
        let _guard = lock.lock();
        panic!("the task's own words");
    });
    let endless: Task<'_> = Box::new(|| {
        loop {
            drop(lock.lock());
        }
    });
    let message = message(|| {
        sim.explore(1, vec![bad, endless]);
    });
    assert_eq!(message, "the task's own words");
    assert!(lock.try_lock().is_some(), "locks of tasks that end are given up");
}

#[test]
fn tasks_have_numbers_of_their_own_and_keep_their_low_bits() {
    let run = || {
        let sim = sim();
        let own = sim.context().0;
        let numbers = Mutex::<SimMutex, _>::new(Vec::new());
        let task = || -> Task<'_> { Box::new(|| numbers.lock().push(sim.context().0)) };
        sim.explore(1, vec![task(), task(), task()]);
        let mut numbers = numbers.into_inner();
        assert!(!numbers.contains(&own));
        numbers.sort_unstable();
        numbers
    };
    let (first, second) = (run(), run());
    let low = |numbers: &[u32]| numbers.iter().map(|n| n % 16).collect::<Vec<_>>();
    assert_eq!(low(&first), [0, 1, 2]);
    assert_eq!(low(&second), [0, 1, 2]);
}

#[test]
fn outside_an_exploration_a_lock_taken_twice_says_so() {
    let mutex = Mutex::<SimMutex, _>::new(());
    let guard = mutex.lock();
    let report = message(|| drop(mutex.lock()));
    assert!(report.contains("deadlock: this thread holds the mutex"), "{report}");
    drop(guard);
    let lock = RwLock::<SimRwLock, _>::new(());
    let reader = lock.read();
    let report = message(|| drop(lock.write()));
    assert!(report.contains("this thread is a reader it waits for"), "{report}");
    drop(reader);
    let writer = lock.write();
    let report = message(|| drop(lock.read()));
    assert!(report.contains("this thread is the writer it waits for"), "{report}");
    drop(writer);
    assert!(lock.try_write().is_some());
}

#[test]
fn devices_that_take_their_time_let_others_run() {
    let disk = pagefault_sim::SimDisk::new(4);
    disk.set_latency(100);
    let clock = AtomicU64::new(0);
    let sim = sim();
    let io: Task<'_> = Box::new(|| {
        pagefault_machine::SwapDevice::write(&disk, 1, &[0; 4096]).unwrap();
        clock.fetch_max(1000, SeqCst);
    });
    let other: Task<'_> = Box::new(|| {
        while clock.load(SeqCst) < 1000 {
            clock.fetch_add(1, SeqCst);
            yield_point();
        }
    });
    let explored = sim.explore(5, vec![other, io]);
    assert!(explored.switches > 1);
}
