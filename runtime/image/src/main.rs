//! The runtime as an image: what a freestanding program needs besides the library.
#![no_std]
#![no_main]

mod mem;

use core::panic::PanicInfo;

#[global_allocator]
static HEAP: pagefault_runtime::heap::Heap = pagefault_runtime::heap::Heap;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    pagefault_runtime::process::stop(format_args!("a defect of pagefault: {info}"))
}
