//! The swap stores run inside a fault handler of a program whose heap they serve: they must not
//! allocate. Alone in its file because its allocator counts.

use pagefault_linux::store::{CompressedRam, SwapFile};
use pagefault_machine::SwapDevice;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    /// Of this thread: the one that waits for the test's end may allocate meanwhile.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

#[test]
fn reading_writing_and_discarding_allocate_nothing() {
    let ram = CompressedRam::new(1000, 8 << 20).unwrap();
    let file = SwapFile::temporary(&std::env::temp_dir(), Some(1000 * 4096)).unwrap();
    let mut page = [0; 4096];
    let before = ALLOCATIONS.get();
    for slot in 1..1000_u32 {
        page[slot as usize..][..4].copy_from_slice(&slot.to_ne_bytes());
        let before = page;
        for device in [&ram as &dyn SwapDevice, &file] {
            device.write(slot, &page).unwrap();
            device.read(slot, &mut page).unwrap();
            assert!(page == before);
            device.discard(slot / 2);
        }
    }
    assert_eq!(ALLOCATIONS.get(), before);
}
