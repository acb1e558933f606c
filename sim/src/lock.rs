//! The locks of the simulated computer: they say so when they would never be had.

use crate::schedule::{self, Obstacle};
use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// After this long a lock is taken to be deadlocked: nothing here holds one across I/O.
const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    /// This thread's number, never 0.
    static TOKEN: u32 = next_token();
    /// The addresses of the readers-writer locks that this thread holds for reading.
    static READING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    /// How many locks this thread holds, of either kind.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// A mutual-exclusion lock.
///
/// A thread that locks it twice panics at once, with a message that says so, and under
/// [`Computer::explore`](crate::Computer::explore) every deadlock is found. Otherwise threads wait
/// by yielding, and panic after a minute.
pub struct SimMutex {
    /// The holder's token, 0 for none.
    holder: AtomicU32,
}

// SAFETY: `try_lock` succeeds only by changing `holder` from 0 to a thread's token, which is not 0,
// in one atomic exchange, and only `unlock`, called by the holder, changes it back; so at most one
// thread holds the lock. The exchange acquires what the store in `unlock` releases.
unsafe impl lock_api::RawMutex for SimMutex {
    #[allow(clippy::declare_interior_mutable_const)] // the form the trait asks for
    const INIT: Self = Self { holder: AtomicU32::new(0) };
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        let token = TOKEN.with(|token| *token);
        wait_until(Obstacle::Mutex, self.address(), || {
            let holder = self.holder.load(Ordering::Relaxed);
            assert!(holder != token, "deadlock: this thread holds the mutex that it locks");
            self.attempt()
        });
    }

    fn try_lock(&self) -> bool {
        schedule::point();
        self.attempt()
    }

    unsafe fn unlock(&self) {
        // The lock may be gone as soon as it is free: its address is all that is left to use.
        let address = self.address();
        self.holder.store(0, Ordering::Release);
        released(address);
    }

    fn is_locked(&self) -> bool {
        self.holder.load(Ordering::Relaxed) != 0
    }
}

impl SimMutex {
    fn attempt(&self) -> bool {
        let token = TOKEN.with(|token| *token);
        let free = self.holder.compare_exchange(0, token, Ordering::Acquire, Ordering::Relaxed);
        taken(free.is_ok())
    }

    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}

/// A readers-writer lock, which reports deadlocks as [`SimMutex`] does.
///
/// A writer that waits keeps new readers out, as Linux's semaphores do, so that a reader that
/// enters again while a writer waits is a deadlock.
pub struct SimRwLock {
    /// The number of readers, or [`WRITING`].
    state: AtomicU32,
    /// The writer's token while there is one.
    writer: AtomicU32,
    /// The number of writers that wait.
    waiting: AtomicU32,
}

const WRITING: u32 = u32::MAX;

// SAFETY: `state` counts readers or is `WRITING`. A writer enters only by exchanging 0 for
// `WRITING`, a reader only by adding one to a number below `WRITING - 1`; both are single atomic
// exchanges, so a writer is alone. The exchanges acquire what the unlocking operations release.
unsafe impl lock_api::RawRwLock for SimRwLock {
    #[allow(clippy::declare_interior_mutable_const)] // the form the trait asks for
    const INIT: Self =
        Self { state: AtomicU32::new(0), writer: AtomicU32::new(0), waiting: AtomicU32::new(0) };
    type GuardMarker = lock_api::GuardNoSend;

    fn lock_shared(&self) {
        let token = TOKEN.with(|token| *token);
        wait_until(Obstacle::ReadersWriterLock, self.address(), || {
            let writer = self.writer.load(Ordering::Relaxed);
            assert!(
                writer != token,
                "deadlock: this thread is the writer it waits for as a reader"
            );
            let is_waiting = self.waiting.load(Ordering::Relaxed) != 0;
            assert!(
                !(is_waiting && self.is_reader()),
                "deadlock: this thread is a reader that the writer before it waits for"
            );
            self.attempt_shared()
        });
    }

    fn try_lock_shared(&self) -> bool {
        schedule::point();
        self.attempt_shared()
    }

    unsafe fn unlock_shared(&self) {
        let address = self.address();
        READING.with_borrow_mut(|held| {
            if let Some(index) = held.iter().rposition(|one| *one == address) {
                held.swap_remove(index);
            }
        });
        self.state.fetch_sub(1, Ordering::Release);
        released(address);
    }

    fn lock_exclusive(&self) {
        let token = TOKEN.with(|token| *token);
        let _waiting = Waiting::new(self);
        wait_until(Obstacle::ReadersWriterLock, self.address(), || {
            let writer = self.writer.load(Ordering::Relaxed);
            assert!(writer != token, "deadlock: this thread is the writer it waits for");
            assert!(
                !self.is_reader(),
                "deadlock: this thread is a reader it waits for as a writer"
            );
            self.attempt_exclusive()
        });
    }

    fn try_lock_exclusive(&self) -> bool {
        schedule::point();
        self.attempt_exclusive()
    }

    unsafe fn unlock_exclusive(&self) {
        let address = self.address();
        self.writer.store(0, Ordering::Relaxed);
        self.state.store(0, Ordering::Release);
        released(address);
    }

    fn is_locked(&self) -> bool {
        self.state.load(Ordering::Relaxed) != 0
    }

    fn is_locked_exclusive(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WRITING
    }
}

impl SimRwLock {
    fn is_reader(&self) -> bool {
        READING.with_borrow(|held| held.contains(&self.address()))
    }

    fn attempt_shared(&self) -> bool {
        if self.waiting.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let one_more = |readers: u32| (readers < WRITING - 1).then(|| readers + 1);
        let entered = self.state.try_update(Ordering::Acquire, Ordering::Relaxed, one_more);
        if entered.is_ok() {
            READING.with_borrow_mut(|held| held.push(self.address()));
        }
        taken(entered.is_ok())
    }

    fn attempt_exclusive(&self) -> bool {
        let free = self.state.compare_exchange(0, WRITING, Ordering::Acquire, Ordering::Relaxed);
        if free.is_ok() {
            self.writer.store(TOKEN.with(|token| *token), Ordering::Relaxed);
        }
        taken(free.is_ok())
    }

    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}

/// Announces a writer, until it is dropped.
struct Waiting<'a>(&'a SimRwLock);

impl<'a> Waiting<'a> {
    fn new(lock: &'a SimRwLock) -> Self {
        lock.waiting.fetch_add(1, Ordering::Relaxed);
        Self(lock)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        schedule::release(self.0.address());
    }
}

/// Tries until it succeeds, giving way to others in between.
fn wait_until(what: Obstacle, address: usize, mut attempt: impl FnMut() -> bool) {
    schedule::point();
    if attempt() {
        return;
    }
    let start = Instant::now();
    schedule::found_taken(address);
    while !attempt() {
        if schedule::is_task() {
            schedule::block(what, address);
            continue;
        }
        std::thread::yield_now();
        assert!(
            start.elapsed() < PATIENCE,
            "deadlock: the {what} at {address:#x} was not had in {PATIENCE:?}"
        );
    }
}

/// How many locks the calling thread holds.
pub(crate) fn held() -> u32 {
    HELD.get()
}

/// Counts a lock that was taken.
fn taken(success: bool) -> bool {
    HELD.set(HELD.get() + u32::from(success));
    success
}

/// Tells the others that a lock was given up.
fn released(address: usize) {
    HELD.set(HELD.get() - 1);
    schedule::release(address);
    schedule::point();
}

fn next_token() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
