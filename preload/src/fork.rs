//! What surrounds a process fork.
//!
//! The child is a copy with one thread. So the forking thread takes every lock of ours first, in
//! order, and brings the manager to rest; both sides give the locks back, and the child starts a
//! manager of its own on the copied state.
//!
//! Between the two, managed memory cannot be brought in, and in the child an absent page would even
//! be taken for zeros. Nothing touches any: ours are the first handlers registered, so that they
//! run last before a fork and first after it; what libc touches in between it has from the private
//! heap (see `interpose::allocation`); and a managed stack is made resident before.

use crate::manager::{self, Manager};
use crate::{guard, heap, managed, private, shared, stack, thread};
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::ops::Range;

/// What the forking thread keeps between the handlers, guarded by the locks that it holds.
struct Kept(UnsafeCell<Option<guard::Inside>>);

// SAFETY: used only by the thread that holds all locks.
unsafe impl Sync for Kept {}

static INSIDE: Kept = Kept(UnsafeCell::new(None));

/// Takes every lock.
pub unsafe extern "C" fn before() {
    let Some(manager) = manager::current() else { return };
    let inside = guard::enter();
    match managed::own_stack() {
        None => hold(manager),
        Some(stack) => hold_from(manager, stack),
    }
    // SAFETY: every lock is held by this thread.
    unsafe { *INSIDE.0.get() = Some(inside) };
}

/// Gives every lock back in the parent.
pub unsafe extern "C" fn after_in_parent() {
    let Some(manager) = manager::current() else { return };
    // SAFETY: every lock is held by this thread.
    let inside = unsafe { (*INSIDE.0.get()).take() };
    on_unmanaged_stack(|| let_go_in_parent(manager));
    drop(inside);
}

/// Gives every lock back in the child and starts its manager.
pub unsafe extern "C" fn after_in_child() {
    let Some(manager) = manager::current() else { return };
    // SAFETY: every lock is held by the thread that this one is a copy of.
    let inside = unsafe { (*INSIDE.0.get()).take() };
    on_unmanaged_stack(|| let_go_in_child(manager));
    drop(inside);
}

/// How often a managed stack is made resident again that was evicted before the locks were taken.
const ATTEMPTS: u32 = 100;

/// Takes every lock for a thread that runs on a managed stack, which must be resident from then on.
fn hold_from(manager: &Manager, stack: Range<usize>) {
    for _ in 0..ATTEMPTS {
        let stack = stack::make_resident(stack.clone());
        let held = stack::on_own(|| {
            hold(manager);
            let resident = stack::is_resident(&stack);
            if !resident {
                let_go_in_parent(manager);
            }
            resident
        });
        if held {
            return;
        }
    }
    shared::stop(format_args!("the stack of a forking thread does not stay resident"));
}

fn on_unmanaged_stack(f: impl FnOnce()) {
    if managed::own_stack().is_some() { stack::on_own(f) } else { f() }
}

fn hold(manager: &Manager) {
    streams::hold();
    heap::hold();
    managed::hold();
    manager.before_fork();
    private::lock().hold();
    thread::words().forking.set(1);
}

fn let_go_in_parent(manager: &Manager) {
    let_go_private();
    manager.after_fork_in_parent();
    let_go();
}

fn let_go_in_child(manager: &Manager) {
    let_go_private();
    // There is no other thread yet, so that nobody can come in between.
    let_go();
    let ranges = managed::inherited();
    if let Err(error) = manager.after_fork_in_child(ranges.into_iter()) {
        shared::stop(format_args!("a forked process cannot go on: {error}"));
    }
    if let Some(control) = shared::control() {
        control.counters.forks.add(1);
    }
}

fn let_go_private() {
    thread::words().forking.set(0);
    // SAFETY: held by `hold` in this thread, or in the one that it is a copy of.
    unsafe { private::lock().let_go() };
}

fn let_go() {
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
