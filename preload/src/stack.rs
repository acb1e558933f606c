//! Stacks for work in the manager that must not happen on a managed one.
//!
//! A program may run on stacks that it has allocated itself, as coroutines do. The manager cannot:
//! it would fault on its own stack while it holds the locks that the answer needs.

use crate::heap::window::Lock;
use crate::sys;

/// Enough for the deepest call of the manager's, several times over.
const SIZE: usize = 256 << 10;

/// Stacks that nobody uses now.
static FREE: Lock<Vec<usize>> = Lock::new(Vec::new());

/// The lock of the free stacks, for a fork.
pub fn lock() -> &'static Lock<Vec<usize>> {
    &FREE
}

/// About where the calling thread's stack is.
pub fn pointer() -> usize {
    psm::stack_pointer().addr()
}

/// Runs `f` on a stack of the manager's own.
pub fn on_own<R>(f: impl FnOnce() -> R) -> R {
    let Some(base) = take() else {
        // Out of address space, the program's stack is the better one.
        return f();
    };
    // SAFETY: the stack is SIZE bytes that nobody else uses until it is given back, and `f` does
    // not unwind out of it: a panic ends the process in this object.
    let result = unsafe { psm::on_stack(base as *mut u8, SIZE, f) };
    FREE.lock().push(base);
    result
}

fn take() -> Option<usize> {
    if let Some(base) = FREE.lock().pop() {
        return Some(base);
    }
    let request = sys::Mmap {
        address: 0,
        len: SIZE,
        prot: libc::PROT_READ | libc::PROT_WRITE,
        flags: libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK,
        fd: -1,
        offset: 0,
    };
    // SAFETY: a new mapping at an address of the host's choice replaces nothing.
    unsafe { sys::mmap(&request) }.ok()
}
