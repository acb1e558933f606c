//! The locks of the simulated computer: they say so when they would never be had.

use core::cell::RefCell;
use core::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// After this long a lock is taken to be deadlocked: nothing here holds one across I/O.
const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    /// This thread's number, never 0.
    static TOKEN: u32 = next_token();
    /// The addresses of the readers-writer locks that this thread holds for reading.
    static READING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A mutual-exclusion lock.
///
/// A thread that locks it twice panics at once, with a message that says so; in a run under a seed
/// ([`Computer::explore`](crate::Computer::explore)) every deadlock is found. It is held by
/// threads of the host, which wait by yielding.
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
        wait_until("mutex", self.address(), || {
            let holder = self.holder.load(Ordering::Relaxed);
            assert!(holder != token, "deadlock: this thread holds the mutex that it locks");
            self.try_lock()
        });
    }

    fn try_lock(&self) -> bool {
        let token = TOKEN.with(|token| *token);
        self.holder.compare_exchange(0, token, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        self.holder.store(0, Ordering::Release);
    }

    fn is_locked(&self) -> bool {
        self.holder.load(Ordering::Relaxed) != 0
    }
}

impl SimMutex {
    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}

/// A readers-writer lock, which reports deadlocks as [`SimMutex`] does.
pub struct SimRwLock {
    /// The number of readers, or [`WRITING`].
    state: AtomicU32,
    /// The writer's token while there is one.
    writer: AtomicU32,
}

const WRITING: u32 = u32::MAX;

// SAFETY: `state` counts readers or is `WRITING`. A writer enters only by exchanging 0 for
// `WRITING`, a reader only by adding one to a number below `WRITING - 1`; both are single atomic
// exchanges, so a writer is alone. The exchanges acquire what the unlocking operations release.
unsafe impl lock_api::RawRwLock for SimRwLock {
    #[allow(clippy::declare_interior_mutable_const)] // the form the trait asks for
    const INIT: Self = Self { state: AtomicU32::new(0), writer: AtomicU32::new(0) };
    type GuardMarker = lock_api::GuardNoSend;

    fn lock_shared(&self) {
        let token = TOKEN.with(|token| *token);
        wait_until("readers-writer lock", self.address(), || {
            let writer = self.writer.load(Ordering::Relaxed);
            assert!(
                writer != token,
                "deadlock: this thread is the writer it waits for as a reader"
            );
            self.try_lock_shared()
        });
    }

    fn try_lock_shared(&self) -> bool {
        let one_more = |readers: u32| (readers < WRITING - 1).then(|| readers + 1);
        let entered = self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more);
        if entered.is_ok() {
            READING.with_borrow_mut(|held| held.push(self.address()));
        }
        entered.is_ok()
    }

    unsafe fn unlock_shared(&self) {
        let address = self.address();
        READING.with_borrow_mut(|held| {
            if let Some(index) = held.iter().rposition(|one| *one == address) {
                held.swap_remove(index);
            }
        });
        self.state.fetch_sub(1, Ordering::Release);
    }

    fn lock_exclusive(&self) {
        let token = TOKEN.with(|token| *token);
        wait_until("readers-writer lock", self.address(), || {
            let writer = self.writer.load(Ordering::Relaxed);
            assert!(writer != token, "deadlock: this thread is the writer it waits for");
            let reading = READING.with_borrow(|held| held.contains(&self.address()));
            assert!(!reading, "deadlock: this thread is a reader it waits for as a writer");
            self.try_lock_exclusive()
        });
    }

    fn try_lock_exclusive(&self) -> bool {
        let free = self.state.compare_exchange(0, WRITING, Ordering::Acquire, Ordering::Relaxed);
        if free.is_ok() {
            self.writer.store(TOKEN.with(|token| *token), Ordering::Relaxed);
        }
        free.is_ok()
    }

    unsafe fn unlock_exclusive(&self) {
        self.writer.store(0, Ordering::Relaxed);
        self.state.store(0, Ordering::Release);
    }

    fn is_locked(&self) -> bool {
        self.state.load(Ordering::Relaxed) != 0
    }

    fn is_locked_exclusive(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WRITING
    }
}

impl SimRwLock {
    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}

/// Tries until it succeeds, giving way to others in between.
fn wait_until(what: &str, address: usize, mut attempt: impl FnMut() -> bool) {
    if attempt() {
        return;
    }
    let start = Instant::now();
    while !attempt() {
        std::thread::yield_now();
        assert!(
            start.elapsed() < PATIENCE,
            "deadlock: the {what} at {address:#x} was not had in {PATIENCE:?}"
        );
    }
}

fn next_token() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
