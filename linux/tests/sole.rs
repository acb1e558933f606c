//! Locks that a sole thread takes and gives back without atomic operations. One test in a process of its
//! own: what is said of the locks holds for all of them.

use lock_api::{Mutex, RwLock};
use pagefault_linux::lock::{self, SoleMutex, SoleRwLock};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;

static LOCK: Mutex<SoleMutex, u64> = Mutex::new(0);
static GATE: RwLock<SoleRwLock, u64> = RwLock::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);

#[test]
fn a_lock_may_be_taken_alone_and_given_back_among_many_and_the_other_way_round() {
    said(true);
    let (held, shared) = (LOCK.lock(), GATE.read());
    assert!(LOCK.try_lock().is_none());
    assert!(GATE.try_write().is_none() && GATE.try_read().is_some());
    said(false);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| *LOCK.lock() += 1);
        let writer = scope.spawn(|| *GATE.write() += 1);
        // Most runs find them asleep, and giving back wakes them.
        thread::sleep(std::time::Duration::from_millis(20));
        drop((held, shared));
        waiter.join().unwrap();
        writer.join().unwrap();
    });

    let (held, exclusive) = (LOCK.lock(), GATE.write());
    said(true);
    assert_eq!((*held, *exclusive), (1, 1));
    drop((held, exclusive));
    assert!(LOCK.try_lock().is_some() && GATE.try_write().is_some());
    said(false);
    assert!(LOCK.try_lock().is_some() && GATE.try_write().is_some());
    threads_that_are_sole_in_turn();
}

/// Each is sole while it holds the turn, and one of many while it does not: no count is lost.
fn threads_that_are_sole_in_turn() {
    const ROUNDS: u64 = 20_000;
    let turn = std::sync::Mutex::new(());
    let work = || {
        for round in 0..ROUNDS {
            let _turn = turn.lock().unwrap();
            said(round % 2 == 0);
            *LOCK.lock() += 1;
            *GATE.write() += u64::from(*LOCK.lock() > 0);
            lock::add(&COUNT, 1);
            said(false);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    assert_eq!((*LOCK.lock(), *GATE.read()), (2 * ROUNDS + 1, 2 * ROUNDS + 1));
    assert_eq!(COUNT.load(SeqCst), 2 * ROUNDS);
    lock::add(&COUNT, 1_u64.wrapping_neg());
    assert_eq!(COUNT.load(Relaxed), 2 * ROUNDS - 1);
}

fn said(is_sole: bool) {
    // SAFETY: no other thread runs, or all others wait for the turn that this one has.
    unsafe { lock::set_sole(is_sole) };
}
