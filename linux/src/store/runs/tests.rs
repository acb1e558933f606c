use super::*;
use core::sync::atomic::AtomicBool;
use std::thread::{scope, yield_now};

#[test]
fn a_run_is_punched_out_with_its_last_slot() {
    let runs = Runs::new(200).unwrap();
    let mut punched = Vec::new();
    for slot in [70, 71, 130] {
        runs.enter(slot);
    }
    runs.leave(70, |run| punched.push(run));
    assert!(punched.is_empty());
    runs.leave(130, |run| punched.push(run));
    runs.leave(71, |run| punched.push(run));
    assert_eq!(punched, [128..192, 64..128]);
}

#[test]
fn no_lock_is_held_while_a_hole_is_punched_and_its_slots_wait() {
    let runs = Runs::new(64 * 64).unwrap();
    let (inside, entered) = (AtomicBool::new(false), AtomicBool::new(false));
    let go_on = AtomicBool::new(false);
    runs.enter(5);
    scope(|scope| {
        scope.spawn(|| {
            runs.leave(5, |_| {
                inside.store(true, Release);
                while !go_on.load(Acquire) {
                    yield_now();
                }
            });
        });
        while !inside.load(Acquire) {
            yield_now();
        }
        // Another run under the same lock.
        runs.enter(5 + RUN * SHARDS as u32);
        let waiting = scope.spawn(|| {
            runs.enter(6);
            entered.store(true, Release);
        });
        for _ in 0..100 {
            yield_now();
            assert!(!entered.load(Acquire), "a slot is written that is being punched out");
        }
        go_on.store(true, Release);
        waiting.join().unwrap();
    });
    assert!(entered.load(Acquire));
}
