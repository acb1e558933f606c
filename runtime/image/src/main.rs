//! The runtime as an image: what a freestanding program needs besides the library.
#![no_std]
#![no_main]

mod mem;

use core::panic::PanicInfo;
use pagefault_runtime::{heap, process};

#[global_allocator]
static HEAP: heap::Heap = heap::Heap;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if heap::is_exhausted() {
        // Not every allocation of a dependency can fail otherwise.
        process::stop(format_args!(
            "no address space for the runtime's heap; is `ulimit -v` set? ({info})"
        ))
    }
    process::stop(format_args!("a defect of pagefault: {info}"))
}
