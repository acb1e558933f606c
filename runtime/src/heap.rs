//! The runtime's own heap, which is never managed.

use crate::lock::Mutex;
use crate::sys;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicUsize};
use dlmalloc::{Allocator, Dlmalloc};
use linux_raw_sys::general as nr;
use lock_api::RawMutex;
use pagefault_linux::room;

/// The heap as Rust's global allocator.
pub struct Heap;

static HEAP: Mutex<Dlmalloc<Host>> = Mutex::new(Dlmalloc::new_with_allocator(Host));

/// The runtime's heap grows by this much.
const STEP: usize = 1 << 20;

/// Whether the host has refused memory to the heap.
static EXHAUSTED: AtomicBool = AtomicBool::new(false);

/// Whether the host has refused memory to the heap: a panic may be due to that.
pub fn is_exhausted() -> bool {
    EXHAUSTED.load(Relaxed)
}

/// The source of the heap's memory.
struct Host;

impl Host {
    /// Pages for what mostly stays. What the room gives never returns to it: a freed range is a hole.
    fn alloc_lasting(&self, size: usize) -> *mut u8 {
        room::take(size, PAGE).map_or_else(|| self.alloc_pages(size), NonNull::as_ptr)
    }

    /// Pages with a mapping of their own.
    fn alloc_pages(&self, size: usize) -> *mut u8 {
        let Ok(start) = sys::map_private(size, nr::PROT_READ | nr::PROT_WRITE) else {
            EXHAUSTED.store(true, Relaxed);
            return core::ptr::null_mut();
        };
        // SAFETY: nothing of the program's is there.
        let _ = unsafe { sys::advise(start, size, nr::MADV_DONTDUMP) };
        start as *mut u8
    }
}

/// The *zone*: what is allocated before the program begins. It mostly stays for ever. So blocks lie there without
/// gaps, are never reused, and are zero from the beginning: a table costs a page only where it is written to.
struct Zone {
    start: AtomicUsize,
    next: AtomicUsize,
    end: AtomicUsize,
}

static ZONE: Zone =
    Zone { start: AtomicUsize::new(0), next: AtomicUsize::new(0), end: AtomicUsize::new(0) };

impl Zone {
    const LEN: usize = 1 << 20;

    /// Opens it, while there is one thread.
    fn open(&self) {
        let start = Host.alloc_lasting(Self::LEN).addr();
        if start != 0 {
            self.start.store(start, Relaxed);
            self.next.store(start, Relaxed);
            self.end.store(start + Self::LEN, Relaxed);
        }
    }

    /// Gives out nothing more.
    fn close(&self) {
        self.next.store(usize::MAX, Relaxed);
    }

    /// Whether the program has not begun.
    fn is_open(&self) -> bool {
        self.next.load(Relaxed) != usize::MAX
    }

    /// A zero block, if it is open and has room.
    fn take(&self, layout: &Layout) -> Option<*mut u8> {
        let end = self.end.load(Relaxed);
        let after = |next: usize| {
            let start = next.checked_next_multiple_of(layout.align())?;
            start.checked_add(layout.size()).filter(|after| *after <= end)
        };
        let before = self.next.fetch_update(Relaxed, Relaxed, after).ok()?;
        Some(before.next_multiple_of(layout.align()) as *mut u8)
    }

    fn contains(&self, pointer: *mut u8) -> bool {
        (self.start.load(Relaxed)..self.end.load(Relaxed)).contains(&pointer.addr())
    }
}

/// Begins the heap, while there is one thread: until [`settle`], blocks come from the zone.
pub(crate) fn begin() {
    ZONE.open();
}

/// Ends the start.
pub(crate) fn settle() {
    ZONE.close();
}

/// Whether the heap has its first piece, which stays.
static HAS_PIECE: AtomicBool = AtomicBool::new(false);

// SAFETY: each piece is nobody else's, zeroed, and stays until it is freed.
unsafe impl Allocator for Host {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let size = size.next_multiple_of(STEP);
        let start = match HAS_PIECE.swap(true, Relaxed) {
            false => self.alloc_lasting(size),
            true => self.alloc_pages(size),
        };
        (start, if start.is_null() { 0 } else { size }, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        core::ptr::null_mut()
    }

    fn free_part(&self, start: *mut u8, old: usize, new: usize) -> bool {
        // SAFETY: the heap has given up the part.
        unsafe { sys::unmap(start as usize + new, old - new) }.is_ok()
    }

    fn free(&self, start: *mut u8, size: usize) -> bool {
        // SAFETY: the heap has given up the piece.
        unsafe { sys::unmap(start as usize, size) }.is_ok()
    }

    fn can_release_part(&self, _: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}

/// Takes the heap's lock for a fork.
pub(crate) fn hold() {
    // SAFETY: unlocked by `let_go`, on either side of the fork.
    unsafe { HEAP.raw() }.lock();
}

/// Ends [`hold`].
pub(crate) fn let_go() {
    // SAFETY: held by this thread, or by the one that it is a copy of.
    unsafe { HEAP.raw().unlock() };
}

/// Blocks of this size and more have pages of their own, so that untouched parts of tables cost no memory.
const LARGE: usize = 128 << 10;
const PAGE: usize = 4096;

fn is_large(layout: &Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= PAGE
}

fn map(size: usize) -> *mut u8 {
    let size = size.next_multiple_of(PAGE);
    if ZONE.is_open() { Host.alloc_lasting(size) } else { Host.alloc_pages(size) }
}

// SAFETY: dlmalloc keeps the contract, and the lock makes it one caller's at a time; pages of a block's own
// are zeroed, and nobody else's.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(&layout) {
            return map(layout.size());
        }
        if let Some(block) = ZONE.take(&layout) {
            return block;
        }
        // SAFETY: passed on to the caller.
        unsafe { HEAP.lock().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(&layout) {
            return map(layout.size());
        }
        if let Some(block) = ZONE.take(&layout) {
            return block;
        }
        // SAFETY: passed on to the caller.
        unsafe { HEAP.lock().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if is_large(&layout) {
            // SAFETY: the block has pages of its own, and the caller gives it up.
            let _ = unsafe { sys::unmap(pointer.addr(), layout.size().next_multiple_of(PAGE)) };
            return;
        }
        if ZONE.contains(pointer) {
            return;
        }
        // SAFETY: passed on to the caller.
        unsafe { HEAP.lock().free(pointer, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(size, layout.align()) else {
            return core::ptr::null_mut();
        };
        if !is_large(&layout) && !is_large(&new) && !ZONE.contains(pointer) {
            // SAFETY: passed on to the caller.
            return unsafe { HEAP.lock().realloc(pointer, layout.size(), layout.align(), size) };
        }
        // SAFETY: the new block is as large as is copied, and the caller gives the old one up.
        unsafe {
            let block = self.alloc(new);
            if !block.is_null() {
                block.copy_from_nonoverlapping(pointer, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
            block
        }
    }
}
