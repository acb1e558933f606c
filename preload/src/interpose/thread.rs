//! Threads: the manager's own are marked from their first instruction.

use super::Next;
use crate::guard;
use core::ffi::{c_int, c_void};
use core::mem;
use core::ptr::null_mut;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};

/// libc's `pthread_create`.
pub(super) static CREATE: Next = Next::new(c"pthread_create");

type Start = extern "C" fn(*mut c_void) -> *mut c_void;
type Create =
    extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Start, *mut c_void) -> c_int;

/// What a thread of the manager's is to run.
struct Work {
    start: Start,
    argument: *mut c_void,
}

/// `pthread_create(3)`.
///
/// A thread that is started inside of the manager is the manager's: it is inside from the start to
/// its end, before the first thing that Rust or libc may allocate in it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let Some(address) = CREATE.address() else { return libc::EAGAIN };
    // SAFETY: the address is that of libc's function of this name, which has this type.
    let create = unsafe { mem::transmute::<*mut c_void, Create>(address) };
    if !guard::is_inside() {
        return create(thread, attributes, start, argument);
    }
    let work = Box::into_raw(Box::new(Work { start, argument }));
    let result = create(thread, attributes, run_inside, work.cast());
    if result != 0 {
        // SAFETY: no thread was started that would have taken it.
        drop(unsafe { Box::from_raw(work) });
    }
    result
}

extern "C" fn run_inside(work: *mut c_void) -> *mut c_void {
    guard::stay_inside();
    // SAFETY: made by `into_raw` for this thread alone.
    let work = unsafe { Box::from_raw(work.cast::<Work>()) };
    count(|count| count.fetch_sub(1, AcqRel));
    let result = (work.start)(work.argument);
    count(|count| count.fetch_add(1, AcqRel));
    result
}

/// libc's count of threads, if it can be had: when the last of them ends, the process does. Ours
/// are taken out of it, since they wait for faults for ever.
static COUNT: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());

/// Finds libc's count of threads.
pub(super) fn find_count() {
    // SAFETY: the names are strings of C's; a missing symbol is null.
    let count = unsafe {
        let (name, version) = (c"__nptl_nthreads", c"GLIBC_PRIVATE");
        libc::dlvsym(libc::RTLD_DEFAULT, name.as_ptr(), version.as_ptr())
    };
    COUNT.store(count.cast(), Release);
}

fn count(change: impl FnOnce(&AtomicU32) -> u32) {
    // SAFETY: null, or libc's count, which is an unsigned int that it changes atomically itself.
    if let Some(count) = unsafe { COUNT.load(Acquire).as_ref() } {
        change(count);
    }
}
