//! Futexes: waiting on a word of a program's memory.
//!
//! Waiters are known by the address space and the address, so that a futex works between the
//! threads of a process and between a `vfork` and its child, and not between processes that share
//! an object.

use crate::errno::Errno;
use crate::lock::Mutex;
use crate::process;
use crate::scheduler::{self, Patience};
use crate::{clock, signal, user};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

struct Waiter {
    space: u64,
    address: u64,
    bits: u32,
    /// 0 while it waits.
    woken: AtomicU32,
}

static WAITERS: Mutex<Vec<Arc<Waiter>>> = Mutex::new(Vec::new());

/// Waits while the word holds a value, until a time (`FUTEX_WAIT_BITSET`).
pub fn wait(address: u64, value: u32, deadline: u64, bits: u32) -> Result<(), Errno> {
    let space = process::space().id();
    let waiter = Arc::new(Waiter { space, address, bits, woken: AtomicU32::new(0) });
    WAITERS.lock().push(waiter.clone());
    // Looked at after the waiter can be found: who changes the word and wakes comes too late for
    // neither.
    let result = loop {
        if waiter.woken.load(Ordering::Acquire) != 0 {
            break Ok(());
        }
        match user::read(address).map(u32::from_le_bytes) {
            Err(_) => break Err(Errno::EFAULT),
            Ok(now) if now != value => break Err(Errno::EAGAIN),
            Ok(_) => {}
        }
        if clock::nanoseconds() >= deadline {
            break Err(Errno::ETIMEDOUT);
        }
        if signal::is_pending() {
            break Err(Errno::EINTR);
        }
        scheduler::wait_until(&waiter.woken, 0, deadline, Patience::Signals);
    };
    WAITERS.lock().retain(|other| !Arc::ptr_eq(other, &waiter));
    // A wake that came meanwhile must not be lost.
    if waiter.woken.load(Ordering::Acquire) != 0 { Ok(()) } else { result }
}

/// Wakes up to `count` waiters and returns how many (`FUTEX_WAKE_BITSET`).
pub fn wake(address: u64, count: u32, bits: u32) -> u32 {
    let space = process::space().id();
    let mut woken = 0;
    let mut waiters = WAITERS.lock();
    waiters.retain(|waiter| {
        let is_meant =
            waiter.space == space && waiter.address == address && waiter.bits & bits != 0;
        if !is_meant || woken == count {
            return true;
        }
        woken += 1;
        waiter.woken.store(1, Ordering::Release);
        scheduler::wake(&waiter.woken);
        false
    });
    woken
}
