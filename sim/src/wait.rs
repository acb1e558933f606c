//! Waiting for a word to change.

use crate::schedule;
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// How long a wait lasts before it returns early.
const NAP: Duration = Duration::from_millis(20);

/// After so many early returns in a row from one word, nobody is taken to be left who wakes.
const NAPS: u32 = 3000;

/// Where the waiters on a word sleep; words share places by their addresses.
static BUCKETS: [Bucket; 64] = [const { Bucket::new() }; 64];

struct Bucket {
    lock: Mutex<()>,
    woken: Condvar,
}

impl Bucket {
    const fn new() -> Self {
        Self { lock: Mutex::new(()), woken: Condvar::new() }
    }

    fn of(word: &AtomicU32) -> &'static Self {
        &BUCKETS[address(word) / size_of::<AtomicU32>() % BUCKETS.len()]
    }
}

thread_local! {
    /// The word that this thread waited for last, and its early returns in a row.
    static IN_VAIN: Cell<(usize, u32)> = const { Cell::new((0, 0)) };
}

/// Waits while `word` holds `value`; may return early.
pub(crate) fn wait(word: &AtomicU32, value: u32) {
    if schedule::is_task() {
        return wait_as_task(word, value);
    }
    let bucket = Bucket::of(word);
    let mut guard = bucket.lock.lock();
    // Looked at with the lock held, which `wake` takes after the word was changed: no wake is lost.
    if word.load(Ordering::SeqCst) != value {
        IN_VAIN.set((0, 0));
        return;
    }
    let timed_out = bucket.woken.wait_for(&mut guard, NAP).timed_out();
    drop(guard);
    let address = address(word);
    let naps = match IN_VAIN.get() {
        (last, naps) if timed_out && last == address => naps + 1,
        _ => 0,
    };
    IN_VAIN.set((address, naps));
    assert!(naps < NAPS, "deadlock: nobody wakes the waiter on the word at {address:#x}");
}

/// Between the look and the wait no other task runs, so no wake is lost here either.
fn wait_as_task(word: &AtomicU32, value: u32) {
    schedule::point();
    // Now and then it returns early, as it may anywhere.
    if word.load(Ordering::SeqCst) == value && !schedule::happens_once_in(16) {
        schedule::block("word", address(word));
    }
}

/// Wakes every waiter on `word`.
pub(crate) fn wake(word: &AtomicU32) {
    schedule::release(address(word));
    schedule::point();
    let bucket = Bucket::of(word);
    drop(bucket.lock.lock());
    bucket.woken.notify_all();
}

fn address(word: &AtomicU32) -> usize {
    core::ptr::from_ref(word).addr()
}
