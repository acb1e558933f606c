//! Numbers for threads, and whether there is more than one.

use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{Acquire, Release};

/// The embedder's function, or null.
static HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sets how threads are numbered; call it once, before the first machine is built.
///
/// Threads that run at the same time should have different small numbers
/// ([`ContextId`](pagefault_machine::ContextId)). `number` is called in fault handlers. By default
/// a thread-local counts the threads. Without the feature `std` all threads have number 0: this is
/// slow for several threads, and forbidden in debug builds, which would take them for one.
pub fn set_context(number: fn() -> u32) {
    HOOK.store(number as *mut (), Release);
}

/// The embedder's function, or null.
static ALONE: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sets how a machine learns that the calling thread is the only one that runs in this memory, so
/// that no other thread stores to it during a fault. By default the thread counts as one of
/// several.
///
/// `alone` is called in fault handlers.
///
/// # Safety
/// Where `alone` returns true, no other thread stores to managed memory before the calling thread
/// leaves its fault handler: its stores could be lost.
pub unsafe fn set_alone(alone: fn() -> bool) {
    ALONE.store(alone as *mut (), Release);
}

/// Whether the calling thread is known to be the only one.
pub(crate) fn is_alone() -> bool {
    let hook = ALONE.load(Acquire);
    // SAFETY: only `set_alone` stores a pointer, made from a function of this type.
    !hook.is_null() && unsafe { core::mem::transmute::<*mut (), fn() -> bool>(hook)() }
}

/// Whether the embedder tells whether a thread is the only one.
pub(crate) fn tells_alone() -> bool {
    !ALONE.load(Acquire).is_null()
}

/// A small number of the calling thread.
pub(crate) fn current() -> u32 {
    let hook = HOOK.load(Acquire);
    if hook.is_null() {
        return counted();
    }
    // SAFETY: only `set_context` stores a pointer, made from a function of this type.
    let number: fn() -> u32 = unsafe { core::mem::transmute(hook) };
    number()
}

#[cfg(feature = "std")]
fn counted() -> u32 {
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::cell::Cell;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    std::thread_local! {
        // Without a destructor, so that a handler may use it at any time of a thread's life.
        static NUMBER: Cell<u32> = const { Cell::new(u32::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == u32::MAX {
            number.set(NEXT.fetch_add(1, Relaxed));
        }
        number.get()
    })
}

#[cfg(not(feature = "std"))]
fn counted() -> u32 {
    0
}
