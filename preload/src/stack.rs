//! Stacks for work in the manager that must not happen on a managed one.
//!
//! A program may run on stacks that it has allocated itself, as coroutines do. The manager cannot:
//! it would fault on its own stack while it holds the locks that the answer needs.

use crate::heap::window::Lock;
use crate::sys;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Enough for the deepest call of the manager's, several times over.
const SIZE: usize = 256 << 10;

/// Stacks that nobody uses now.
static FREE: Lock<Vec<usize>> = Lock::new(Vec::new());

/// The lock of the free stacks, for a fork.
pub fn lock() -> &'static Lock<Vec<usize>> {
    &FREE
}

/// What a few calls need below the present frame, and what lies just above it.
const BELOW: usize = 24 << 10;
const ABOVE: usize = 4 << 10;

/// The whole pages that the calling thread uses of its stack, or soon may.
pub fn in_use() -> Range<usize> {
    let here = psm::stack_pointer().addr();
    (here - BELOW) & !4095..(here + ABOVE) & !4095
}

/// Brings a part of a stack in, as for stores, and returns it without what lies below the stack's
/// end.
pub fn make_resident(range: Range<usize>) -> Range<usize> {
    let mut start = range.end;
    while start > range.start {
        let page = start - 4096;
        // SAFETY: bringing pages in changes no content.
        if unsafe { sys::madvise(page, 4096, libc::MADV_POPULATE_WRITE) }.is_err() {
            break;
        }
        start = page;
    }
    start..range.end
}

/// Whether stores to a part of a stack go through without a fault.
pub fn is_resident(range: &Range<usize>) -> bool {
    const PRESENT: u64 = 1 << 63;
    const WRITE_PROTECTED: u64 = 1 << 57;
    // Where the host does not tell, the pages brought in just now are taken to be there.
    let Ok(pagemap) = File::open("/proc/self/pagemap") else { return true };
    range.clone().step_by(4096).all(|page| {
        let mut entry = [0; 8];
        let read = pagemap.read_exact_at(&mut entry, page as u64 / 4096 * 8);
        let entry = u64::from_ne_bytes(entry);
        read.is_err() || entry & (PRESENT | WRITE_PROTECTED) == PRESENT
    })
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
    let request = sys::Mmap::private(SIZE).with(libc::MAP_STACK);
    // SAFETY: a new mapping at an address of the host's choice replaces nothing.
    unsafe { sys::mmap(&request) }.ok()
}
