//! The functions that take the place of libc's.

mod allocation;
mod descriptor;
mod mapping;
mod process;
mod string;
mod thread;

use core::ffi::{CStr, c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{Acquire, Release};

/// Finds libc's own functions where ours call them. Called once, before the program starts.
pub fn resolve() {
    descriptor::CLOSE.resolve();
    process::FORK.resolve();
    thread::CREATE.resolve();
    thread::find_count();
}

pub use process::register_handlers;

/// A function of libc's whose place one of ours takes.
struct Next {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(null_mut()) }
    }

    fn resolve(&self) {
        // SAFETY: the name is a string of C's.
        let address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.address.store(address, Release);
    }

    /// The function's address, where it has been found.
    fn address(&self) -> Option<*mut c_void> {
        Some(self.address.load(Acquire)).filter(|address| !address.is_null())
    }
}

/// Sets the calling thread's `errno`.
fn set_errno(errno: c_int) {
    // SAFETY: libc gives the address of the calling thread's errno.
    unsafe { *libc::__errno_location() = errno };
}
