use super::*;
use std::cell::UnsafeCell;
use std::thread;

struct Shared<L>(L, UnsafeCell<u64>);

// SAFETY: the tests touch the cell only under the lock that they are testing.
unsafe impl<L: Sync> Sync for Shared<L> {}

#[test]
fn mutex_excludes() {
    let shared = Shared(FutexMutex::INIT, UnsafeCell::new(0));
    let shared = &shared;
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(move || {
                for i in 0..20_000 {
                    shared.0.lock();
                    // SAFETY: the mutex is held.
                    unsafe { *shared.1.get() += 1 };
                    if i % 64 == 0 {
                        thread::yield_now();
                    }
                    // SAFETY: locked above.
                    unsafe { shared.0.unlock() };
                }
            });
        }
        s.spawn(move || {
            for _ in 0..2_000 {
                shared.0.wait_until_free();
            }
        });
    });
    assert!(!shared.0.is_locked());
    assert_eq!(shared.1.value(), 80_000);
}

#[test]
fn writers_exclude_readers_and_are_not_starved() {
    let shared = Shared(FutexRwLock::INIT, UnsafeCell::new(0));
    let shared = &shared;
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(move || {
                loop {
                    shared.0.lock_shared();
                    // SAFETY: held shared; writers write under the exclusive lock.
                    let (a, b) = unsafe {
                        let a = shared.1.get().read_volatile();
                        thread::yield_now();
                        (a, shared.1.get().read_volatile())
                    };
                    // SAFETY: locked above.
                    unsafe { shared.0.unlock_shared() };
                    assert_eq!(a, b);
                    if a == 4_000 {
                        break;
                    }
                }
            });
        }
        for _ in 0..2 {
            s.spawn(move || {
                for _ in 0..2_000 {
                    shared.0.lock_exclusive();
                    // SAFETY: held exclusively.
                    unsafe { *shared.1.get() += 1 };
                    // SAFETY: locked above.
                    unsafe { shared.0.unlock_exclusive() };
                }
            });
        }
    });
    assert!(!shared.0.is_locked());
    assert_eq!(shared.1.value(), 4_000);
}

trait Copied {
    fn value(&self) -> u64;
}

impl Copied for UnsafeCell<u64> {
    fn value(&self) -> u64 {
        // SAFETY: called once all other threads have been joined.
        unsafe { *self.get() }
    }
}

#[test]
fn try_lock_reports_the_state() {
    let lock = FutexRwLock::INIT;
    assert!(lock.try_lock_shared());
    assert!(lock.try_lock_shared());
    assert!(!lock.try_lock_exclusive());
    // SAFETY: two shared locks were taken above.
    unsafe {
        lock.unlock_shared();
        lock.unlock_shared();
    }
    assert!(lock.try_lock_exclusive());
    assert!(!lock.try_lock_shared() && lock.is_locked_exclusive());
    // SAFETY: taken above.
    unsafe { lock.unlock_exclusive() };
}
