//! What surrounds a process fork.
//!
//! The child is a copy with one thread. So the forking thread takes every lock of ours first, in
//! order, and both sides give them back.

use crate::{guard, heap, managed, private, thread};
use core::cell::UnsafeCell;
use core::ffi::c_int;

/// What the forking thread keeps between the handlers, guarded by the locks that it holds.
struct Kept(UnsafeCell<Option<guard::Inside>>);

// SAFETY: used only by the thread that holds all locks.
unsafe impl Sync for Kept {}

static INSIDE: Kept = Kept(UnsafeCell::new(None));

/// Has the handlers called around each fork from now on.
pub fn install() -> Result<(), c_int> {
    // SAFETY: the handlers are functions of this object, which is never unloaded.
    match unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) }
    {
        0 => Ok(()),
        error => Err(error),
    }
}

/// Takes every lock.
pub unsafe extern "C" fn before() {
    let inside = guard::enter();
    streams::hold();
    heap::hold();
    managed::lock().hold();
    private::lock().hold();
    thread::words().forking.set(1);
    // SAFETY: every lock is held by this thread.
    unsafe { *INSIDE.0.get() = Some(inside) };
}

/// Gives every lock back in the parent.
pub unsafe extern "C" fn after_in_parent() {
    release();
}

/// Gives every lock back in the child.
pub unsafe extern "C" fn after_in_child() {
    release();
}

fn release() {
    // SAFETY: every lock is still held by this thread, or by the one that it is a copy of.
    let inside = unsafe { (*INSIDE.0.get()).take() };
    thread::words().forking.set(0);
    // SAFETY: as above.
    unsafe {
        private::lock().let_go();
        managed::lock().let_go();
        heap::let_go();
    }
    streams::let_go();
    drop(inside);
}

/// libc's list of streams.
///
/// In the child, libc gives every stream a new lock before our handler runs. The list is held from
/// before our locks are taken, since libc takes it after them and a thread that holds it may
/// allocate.
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
        // SAFETY: held since `hold`; in the child libc has made it new, which leaves it held by
        // nobody, and giving it back once more is what libc's own handler does.
        unsafe { _IO_list_unlock() };
    }
}
