//! What surrounds a process fork.
//!
//! The child is a copy with one thread. So the forking thread takes every lock of ours first, in
//! order, and brings the manager to rest; both sides give the locks back, and the child starts a
//! manager of its own on the copied state.
//!
//! Between the two, managed memory cannot be brought in, and in the child an absent page would even
//! be taken for zeros. Nothing touches any: ours are the first handlers registered, so that they
//! run last before a fork and first after it; what libc touches in between it has from the private
//! heap (see `interpose::allocation`); and our stack is not managed.

use crate::{guard, heap, managed, manager, private, start, thread};
use core::cell::UnsafeCell;
use core::ffi::c_int;

/// What the forking thread keeps between the handlers, guarded by the locks that it holds.
struct Kept(UnsafeCell<Option<guard::Inside>>);

// SAFETY: used only by the thread that holds all locks.
unsafe impl Sync for Kept {}

static INSIDE: Kept = Kept(UnsafeCell::new(None));

/// Takes every lock.
pub unsafe extern "C" fn before() {
    if manager::current().is_none() {
        return;
    }
    let inside = guard::enter();
    streams::hold();
    heap::hold();
    managed::hold();
    if let Some(manager) = manager::current() {
        manager.before_fork();
    }
    private::lock().hold();
    thread::words().forking.set(1);
    // SAFETY: every lock is held by this thread.
    unsafe { *INSIDE.0.get() = Some(inside) };
}

/// Gives every lock back in the parent.
pub unsafe extern "C" fn after_in_parent() {
    let Some(manager) = manager::current() else { return };
    // SAFETY: `before` ran in this thread.
    let inside = unsafe { release_private() };
    manager.after_fork_in_parent();
    // SAFETY: as above.
    unsafe { release() };
    drop(inside);
}

/// Gives every lock back in the child and starts its manager.
pub unsafe extern "C" fn after_in_child() {
    let Some(manager) = manager::current() else { return };
    // SAFETY: `before` ran in the thread that this one is a copy of.
    let inside = unsafe { release_private() };
    // SAFETY: as above. There is no other thread yet, so that nobody can come in between.
    unsafe { release() };
    let ranges = managed::inherited();
    if let Err(error) = manager.after_fork_in_child(ranges.into_iter()) {
        start::stop(format_args!("a forked process cannot go on: {error}"));
    }
    if let Some(control) = start::control() {
        control.counters.forks.add(1);
    }
    drop(inside);
}

unsafe fn release_private() -> Option<guard::Inside> {
    // SAFETY: every lock is still held by this thread, or by the one that it is a copy of.
    unsafe {
        let inside = (*INSIDE.0.get()).take();
        thread::words().forking.set(0);
        private::lock().let_go();
        inside
    }
}

unsafe fn release() {
    // SAFETY: as above.
    unsafe {
        managed::let_go();
        heap::let_go();
    }
    streams::let_go();
}

/// libc's list of streams.
///
/// Libc takes it for the fork after our locks, and a thread that holds it may allocate; so it is
/// taken before ours.
mod streams {
    unsafe extern "C" {
        fn _IO_list_lock();
        fn _IO_list_unlock();
    }

    pub fn hold() {
        // SAFETY: the lock is recursive, and libc's own fork nests in ours.
        unsafe { _IO_list_lock() };
    }

    pub fn let_go() {
        // SAFETY: held since `hold`. In the child libc has made the lock new, and giving that back
        // leaves it free.
        unsafe { _IO_list_unlock() };
    }
}

/// Has the handlers called around each fork from now on, before any others that are registered
/// later.
pub fn install(register: Register) -> c_int {
    register(Some(before), Some(after_in_parent), Some(after_in_child), core::ptr::null_mut())
}

/// A handler around a fork.
pub type Handler = Option<unsafe extern "C" fn()>;

/// libc's function that registers handlers: for the time before, the parent, the child; and the
/// object that they belong to, null for one that is never unloaded.
pub type Register = extern "C" fn(Handler, Handler, Handler, *mut core::ffi::c_void) -> c_int;
