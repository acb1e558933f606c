//! Futexes: waiting on a word of a program's memory.
//!
//! A word of shared memory is known by its object and its place there, so that processes that map
//! it anywhere wait on the same; every other word by the address space and the address.

use crate::errno::Errno;
use crate::lock::Mutex;
use crate::process;
use crate::scheduler::{self, Patience};
use crate::{clock, signal, user};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use pagefault::machine::{PAGE_SIZE, VirtAddr};

/// Which word is waited on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// A word of an address space, by address.
    Private { space: u64, address: u64 },
    /// A word of an object, by its place in bytes.
    Shared { object: u64, place: u64 },
}

struct Waiter {
    key: Key,
    bits: u32,
    /// 0 while it waits.
    woken: AtomicU32,
}

static WAITERS: Mutex<Vec<Arc<Waiter>>> = Mutex::new(Vec::new());

/// Whose word is meant (`FUTEX_PRIVATE_FLAG`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only this address space's: nobody looks whether it is shared.
    Private,
    /// Perhaps one that other processes map too.
    Any,
}

fn key(address: u64, scope: Scope) -> Key {
    let space = process::space();
    let private = Key::Private { space: space.id(), address };
    if scope == Scope::Private {
        return private;
    }
    let regions = space.maps(VirtAddr(address)..VirtAddr(address.saturating_add(4)));
    match regions.first() {
        Some(region) if region.shared => match region.object {
            Some(object) => {
                let offset = address.wrapping_sub(region.range.start.value());
                Key::Shared { object, place: region.index * PAGE_SIZE + offset }
            }
            None => private,
        },
        _ => private,
    }
}

/// Waits while the word holds a value, until a time (`FUTEX_WAIT_BITSET`).
pub fn wait(address: u64, scope: Scope, value: u32, deadline: u64, bits: u32) -> Result<(), Errno> {
    let key = key(address, scope);
    let waiter = Arc::new(Waiter { key, bits, woken: AtomicU32::new(0) });
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
pub fn wake(address: u64, scope: Scope, count: u32, bits: u32) -> u32 {
    let key = key(address, scope);
    let mut woken = 0;
    let mut waiters = WAITERS.lock();
    waiters.retain(|waiter| {
        let is_meant = waiter.key == key && waiter.bits & bits != 0;
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
