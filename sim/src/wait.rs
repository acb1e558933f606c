//! Waiting for a word to change.

use crate::schedule::{self, Obstacle};
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// How long a wait lasts before it returns early.
const NAP: Duration = Duration::from_millis(20);

/// After this many early returns in a row from one word, without any use of the computer, no waker
/// is assumed to be left.
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

/// The early returns in a row from one word during which nothing happened at all.
#[derive(Clone, Copy)]
struct InVain {
    word: usize,
    activity: u64,
    naps: u32,
}

thread_local! {
    static IN_VAIN: Cell<InVain> = const { Cell::new(InVain { word: 0, activity: 0, naps: 0 }) };
}

/// Waits while `word` holds `value`; may return early. `activity` changes with all that happens on
/// the computer.
pub(crate) fn wait(word: &AtomicU32, value: u32, activity: impl Fn() -> u64) {
    if schedule::is_task() {
        return wait_as_task(word, value);
    }
    let bucket = Bucket::of(word);
    let mut guard = bucket.lock.lock();
    // Looked at with the lock held, which `wake` takes after the word was changed: no wake is lost.
    if word.load(Ordering::SeqCst) != value {
        return;
    }
    let timed_out = bucket.woken.wait_for(&mut guard, NAP).timed_out();
    drop(guard);
    if timed_out {
        count_nap(address(word), activity());
    }
}

fn count_nap(word: usize, activity: u64) {
    let last = IN_VAIN.get();
    let is_same = last.word == word && last.activity == activity;
    let naps = if is_same { last.naps + 1 } else { 0 };
    IN_VAIN.set(InVain { word, activity, naps });
    assert!(naps < NAPS, "deadlock: nobody wakes the waiter on the word at {word:#x}");
}

/// Between the look and the wait no other task runs, so no wake is lost here either.
fn wait_as_task(word: &AtomicU32, value: u32) {
    schedule::point();
    // Now and then it returns early, as it may anywhere.
    if word.load(Ordering::SeqCst) == value && !schedule::happens_once_in(16) {
        schedule::block(Obstacle::Word, address(word));
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
