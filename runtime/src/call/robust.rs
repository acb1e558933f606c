//! Robust mutexes of a thread that ends.
//!
//! The host marks them after the thread's end, but would give up at an absent page. So the runtime
//! marks them while it can still bring pages back (Linux: `exit_robust_list`).
//!
//! The mutexes of other threads that end with the process, and of a thread that executes a program,
//! cannot be marked in advance: the threads may still release them, or the call may fail. Instead,
//! the entries of their lists stay resident for the host ([`keep`]).

use crate::memory::{self, Pins};
use crate::sys;
use crate::thread::Thread;
use crate::user;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use pagefault_machine::Access;

/// How many entries of a list are followed: it may be a circle.
const MOST: usize = 2048;
/// In an entry's address: the mutex inherits priorities.
const INHERITS: u64 = 1;

/// `struct robust_list_head`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Head {
    first: u64,
    /// From an entry to its word.
    offset: i64,
    /// The entry that was just being taken or released.
    pending: u64,
}

/// Takes the program's list of the calling thread, which the host then has too.
pub fn register(thread: &Thread, args: [u64; 6]) -> i64 {
    let [at, len, ..] = args;
    // The host reads it by itself, when the thread ends. It refuses any other length.
    if len == size_of::<Head>() as u64 {
        memory::keep_resident(thread, at, len);
    }
    // SAFETY: the program asks for it, of its own memory.
    let raw = unsafe { sys::raw_call(nr::__NR_set_robust_list, args) };
    if raw == 0 {
        thread.robust_list.store(at, Relaxed);
    }
    raw
}

/// A process that was forked has no list.
pub fn begin_process(thread: &Thread) {
    thread.robust_list.store(0, Relaxed);
}

/// Marks the mutexes that the calling thread holds, and wakes one waiter of each.
pub fn end(thread: &Thread) {
    if let Some(at) = list_of(thread) {
        let _ = follow(at, thread.number());
    }
}

/// Makes the host forget the list of a thread that ends alone: whoever joins the thread may free its memory
/// before the host looks.
pub fn forget(thread: &Thread) {
    if list_of(thread).is_some() {
        // SAFETY: the host forgets an address.
        let _ = unsafe { sys::call(nr::__NR_set_robust_list, [0, size_of::<Head>() as u64]) };
        thread.robust_list.store(0, Relaxed);
    }
}

/// Keeps resident what the host follows when the process ends or executes a program: the lists of all of
/// its threads, and their mutexes.
pub fn keep() -> Pins {
    let mut pins = Pins::new();
    // The host brings pages in by itself where it owns them.
    if memory::current().is_none() || memory::is_passive() {
        return pins;
    }
    for thread in Thread::all() {
        if let Some(at) = list_of(thread) {
            let _ = keep_list(at, &mut pins);
        }
    }
    pins
}

/// Where the list of a thread is. The host is not asked: a tracer would see the call.
fn list_of(thread: &Thread) -> Option<u64> {
    Some(thread.robust_list.load(Relaxed)).filter(|at| *at != 0)
}

/// Keeps one list resident, until it ends or cannot be read.
fn keep_list(at: u64, pins: &mut Pins) -> sys::Result<()> {
    let head: Head = user::read(at)?;
    pins.add(at, size_of::<Head>() as u64, Access::Read);
    pins.add(head.word(head.pending), 4, Access::Write);
    head.each_entry(at, |entry| {
        if pins.len() >= Pins::most() {
            return Err(sys::Errno::ENOMEM);
        }
        pins.add(entry & !INHERITS, 8, Access::Read);
        pins.add(head.word(entry), 4, Access::Write);
        Ok(())
    })
}

/// Follows the list of a thread until it ends or cannot be read.
fn follow(at: u64, owner: u32) -> sys::Result<()> {
    let head: Head = user::read(at)?;
    head.each_entry(at, |entry| {
        if entry & !INHERITS == head.pending & !INHERITS {
            return Ok(());
        }
        head.mark(entry, owner)
    })?;
    if head.pending & !INHERITS == 0 {
        return Ok(());
    }
    let pending = head.word(head.pending);
    if head.pending & INHERITS == 0 && user::read::<u32>(pending)? == 0 {
        // It was released, but the waiter was not woken yet.
        wake(pending);
    }
    head.mark(head.pending, owner)
}

impl Head {
    /// The word of an entry.
    const fn word(&self, entry: u64) -> u64 {
        (entry & !INHERITS).wrapping_add_signed(self.offset)
    }

    /// Calls `f` for each entry of the list whose head is at `at`, until it ends or one cannot be read.
    fn each_entry(&self, at: u64, mut f: impl FnMut(u64) -> sys::Result<()>) -> sys::Result<()> {
        let mut entry = self.first;
        for _ in 0..MOST {
            if entry & !INHERITS == at {
                break;
            }
            // Read before the woken waiter may free it.
            let next = user::read(entry & !INHERITS);
            f(entry)?;
            entry = next?;
        }
        Ok(())
    }

    /// Marks the owner of an entry's word as dead, if this thread is the owner.
    fn mark(&self, entry: u64, owner: u32) -> sys::Result<()> {
        let word = self.word(entry);
        if !word.is_multiple_of(4) {
            return Err(sys::Errno::EINVAL);
        }
        let mut seen: u32 = user::read(word)?;
        while seen & nr::FUTEX_TID_MASK == owner {
            let dead = seen & nr::FUTEX_WAITERS | nr::FUTEX_OWNER_DIED;
            let found = user::exchange_if(word, seen, dead)?;
            if found == seen {
                if entry & INHERITS == 0 && seen & nr::FUTEX_WAITERS != 0 {
                    wake(word);
                }
                break;
            }
            seen = found;
        }
        Ok(())
    }
}

/// Wakes one that waits: it keeps the page of the word resident.
fn wake(word: u64) {
    // SAFETY: waking changes no memory.
    let _ = unsafe { sys::call(nr::__NR_futex, [word, nr::FUTEX_WAKE.into(), 1]) };
}
