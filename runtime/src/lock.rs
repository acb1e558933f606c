//! The runtime's locks.

use crate::{file_size, heap, thread};
use pagefault_linux::lock::FutexMutex;
use pagefault_linux::store::descriptor;

/// A mutual-exclusion lock.
pub type Mutex<T> = lock_api::Mutex<FutexMutex, T>;

/// Takes the short locks that a child of a fork needs, so that none of them is held by a thread that the child
/// does not have. They are in the order in which threads nest them.
pub fn hold_for_fork() {
    file_size::hold();
    descriptor::hold_limit();
    thread::hold();
    heap::hold();
}

/// Ends [`hold_for_fork`], on either side of the fork.
pub fn let_go_after_fork() {
    heap::let_go();
    thread::let_go();
    // SAFETY: held since `hold_for_fork`, by this thread or by the one that it is a copy of.
    unsafe { descriptor::let_limit_go() };
    file_size::let_go();
}
