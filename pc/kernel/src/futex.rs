//! Futexes: waiting on a word of a program's memory.
//!
//! A word is known by the object it lies in, where processes share one, and else by the address
//! space and the address.

use crate::errno::Errno;
use crate::lock::Mutex;
use crate::process;
use crate::scheduler::{self, Patience};
use crate::{clock, cpu, signal, user};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use pagefault::machine::{PAGE_SIZE, VirtAddr};

/// Who may wait on a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Threads of one process (`FUTEX_PRIVATE_FLAG`).
    Private,
    /// Any process with the memory.
    Shared,
}

/// What identifies a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// An address of an address space.
    Private {
        /// The space's number.
        space: u64,
        /// The address.
        address: u64,
    },
    /// A byte of a shared object.
    Shared {
        /// The object's number.
        object: u64,
        /// The offset in bytes.
        offset: u64,
    },
}

impl Word {
    /// The word at an address of the running process.
    pub fn at(address: u64, scope: Scope) -> Self {
        let space = process::space();
        let own = Self::Private { space: space.id(), address };
        if scope == Scope::Private {
            return own;
        }
        let at = VirtAddr(address);
        let regions = space.maps(at.page()..at.page() + PAGE_SIZE);
        match regions.first() {
            Some(region) if region.shared && region.range.contains(&at) => {
                let Some(object) = region.object else { return own };
                let offset = region.index * PAGE_SIZE + (at - region.range.start);
                Self::Shared { object, offset }
            }
            _ => own,
        }
    }
}

struct Waiter {
    word: Word,
    bits: u32,
    /// 0 while it waits.
    woken: Arc<AtomicU32>,
}

impl Waiter {
    fn wake(&self) {
        self.woken.store(1, Ordering::Release);
        scheduler::wake(&self.woken);
    }
}

static WAITERS: Mutex<Vec<Waiter>> = Mutex::new(Vec::new());

/// Waits while the word at an address holds a value, until a time (`FUTEX_WAIT_BITSET`).
pub fn wait(address: u64, word: Word, value: u32, deadline: u64, bits: u32) -> Result<(), Errno> {
    let woken = Arc::new(AtomicU32::new(0));
    WAITERS.lock().push(Waiter { word, bits, woken: woken.clone() });
    // Looked at after the waiter can be found: who changes the word and wakes comes too late for
    // neither.
    let result = match user::read(address).map(u32::from_le_bytes) {
        Err(_) => Err(Errno::EFAULT),
        Ok(now) if now != value => Err(Errno::EAGAIN),
        Ok(_) => sleep(&woken, deadline),
    };
    WAITERS.lock().retain(|other| !Arc::ptr_eq(&other.woken, &woken));
    // A wake that came meanwhile must not be lost.
    if woken.load(Ordering::Acquire) != 0 { Ok(()) } else { result }
}

fn sleep(woken: &AtomicU32, deadline: u64) -> Result<(), Errno> {
    while woken.load(Ordering::Acquire) == 0 {
        if clock::nanoseconds() >= deadline {
            return Err(Errno::ETIMEDOUT);
        }
        if signal::is_pending() {
            return Err(Errno::EINTR);
        }
        scheduler::wait_until(woken, 0, deadline, Patience::Signals);
    }
    Ok(())
}

/// Wakes up to `count` waiters and returns how many (`FUTEX_WAKE_BITSET`).
pub fn wake(word: Word, count: u32, bits: u32) -> u32 {
    requeue(word, count, bits, word, 0).0
}

/// Wakes up to `count` waiters, and lets up to `moved` others wait on another word; returns how
/// many of either.
pub fn requeue(word: Word, count: u32, bits: u32, to: Word, moved: u32) -> (u32, u32) {
    let (mut woken, mut requeued) = (0, 0);
    WAITERS.lock().retain_mut(|waiter| {
        if waiter.word != word || waiter.bits & bits == 0 {
            return true;
        }
        if woken < count {
            woken += 1;
            waiter.wake();
            return false;
        }
        if requeued < moved {
            requeued += 1;
            waiter.word = to;
        }
        true
    });
    (woken, requeued)
}

/// Changes the word at an address as `FUTEX_WAKE_OP` asks; returns whether the second word's
/// waiters to wake.
pub fn operate(address: u64, operation: u32) -> Result<bool, Errno> {
    let signed = |bits: u32| (bits << 20) as i32 >> 20;
    let (argument, compared) = (signed(operation >> 12 & 0xfff), signed(operation & 0xfff));
    let argument =
        if operation & 1 << 31 != 0 { 1i32.wrapping_shl(argument as u32) } else { argument } as u32;
    let old = loop {
        let old = user::read(address).map(u32::from_le_bytes)?;
        let new = match operation >> 28 & 7 {
            0 => argument,
            1 => old.wrapping_add(argument),
            2 => old | argument,
            3 => old & !argument,
            4 => old ^ argument,
            _ => return Err(Errno::ENOSYS),
        };
        if user::compare_exchange(address, old, new)? == old {
            break old as i32;
        }
    };
    Ok(match operation >> 24 & 0xf {
        0 => old == compared,
        1 => old != compared,
        2 => old < compared,
        3 => old <= compared,
        4 => old > compared,
        5 => old >= compared,
        _ => return Err(Errno::ENOSYS),
    })
}

/// A word's bit that says that its owner has ended, the one that someone waits, and the owner.
const OWNER_DIED: u32 = 0x4000_0000;
const WAITING: u32 = 0x8000_0000;
const OWNER: u32 = 0x3fff_ffff;

/// The most locks of a thread that ends that are looked at.
const ROBUST_LIMIT: u32 = 2048;

/// Gives up the locks that the running thread holds, as its list of them says (`set_robust_list`).
/// What the program has made of the list is its own affair: the first word that cannot be read ends
/// it.
pub fn abandon(head: u64) {
    if head == 0 {
        return;
    }
    let words = || {
        let first = user::read_u64(head)?;
        let offset = user::read_u64(head.wrapping_add(8))?;
        Ok((first, offset, user::read_u64(head.wrapping_add(16))?))
    };
    let list: Result<(u64, u64, u64), user::BadAddress> = words();
    let Ok((mut entry, offset, pending)) = list else { return };
    for _ in 0..ROBUST_LIMIT {
        // The lowest bit marks a lock of another kind.
        let at = entry & !1;
        if at == head || at == 0 {
            break;
        }
        let next = user::read_u64(at);
        if at != pending & !1 && abandon_one(at.wrapping_add(offset)).is_err() {
            return;
        }
        let Ok(next) = next else { return };
        entry = next;
    }
    if pending & !1 != 0 {
        let _ = abandon_one((pending & !1).wrapping_add(offset));
    }
}

fn abandon_one(address: u64) -> Result<(), user::BadAddress> {
    loop {
        let old = user::read(address).map(u32::from_le_bytes)?;
        if old & OWNER != cpu::task_id() {
            return Ok(());
        }
        let new = old & WAITING | OWNER_DIED;
        if user::compare_exchange(address, old, new)? == old {
            if old & WAITING != 0 {
                wake(Word::at(address, Scope::Shared), 1, u32::MAX);
                wake(Word::at(address, Scope::Private), 1, u32::MAX);
            }
            return Ok(());
        }
    }
}
