//! Large blocks: managed mappings of their own.

use super::ALIGN;
use super::window::Lock;
use crate::managed;
use crate::sys::Mmap;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;
use std::collections::BTreeMap;

const PAGE: usize = 4096;

/// Where large begins at first.
pub const THRESHOLD_LEAST: usize = 1 << 20;

/// Where large begins at most.
const THRESHOLD_MOST: usize = 32 << 20;

/// Blocks of this size and more are mappings. It rises to the size of any large block that is freed,
/// up to [`THRESHOLD_MOST`]: who frees such blocks wants more of them, and an arena gives them
/// without a new mapping whose every page must fault.
static THRESHOLD: AtomicUsize = AtomicUsize::new(THRESHOLD_LEAST);

/// The mapping of each large block, by the block's address.
static BLOCKS: Lock<BTreeMap<usize, Range<usize>>> = Lock::new(BTreeMap::new());

/// The table's lock, for a fork.
pub fn lock() -> &'static Lock<BTreeMap<usize, Range<usize>>> {
    &BLOCKS
}

/// Blocks of this size and more are large.
pub fn threshold() -> usize {
    THRESHOLD.load(Relaxed)
}

/// Allocates a large block; null where there is no room.
pub fn allocate(size: usize, align: usize) -> *mut u8 {
    let extra = align.saturating_sub(PAGE);
    let Some(len) = size.max(1).checked_add(extra).and_then(pages) else {
        return ptr::null_mut();
    };
    let request = Mmap::private(len);
    // SAFETY: a new mapping at an address of the host's choice replaces nothing.
    let Ok(start) = (unsafe { managed::map(&request) }) else { return ptr::null_mut() };
    let block = start.next_multiple_of(align.max(ALIGN));
    BLOCKS.lock().insert(block, start..start + len);
    block as *mut u8
}

/// Frees a large block; false, and nothing done, where it is none.
pub fn free(block: *mut u8) -> bool {
    let Some(mapping) = BLOCKS.lock().remove(&block.addr()) else { return false };
    if mapping.len() <= THRESHOLD_MOST {
        THRESHOLD.fetch_max(mapping.len(), Relaxed);
    }
    // SAFETY: the mapping was the block's, which is freed, and is in the table no more. Should the
    // host refuse, the addresses stay taken, which harms nobody.
    let _ = unsafe { managed::unmap(mapping.start, mapping.len()) };
    true
}

/// Changes the size of a large block; null, and the block as it was, where it is none or the new
/// size is not large or there is no room.
pub fn reallocate(block: *mut u8, size: usize) -> *mut u8 {
    // A block is its owner's alone to resize, so that the table may change meanwhile.
    let Some(mapping) = BLOCKS.lock().get(&block.addr()).cloned() else { return ptr::null_mut() };
    // An alignment above a page's would be lost by moving.
    if size < THRESHOLD_LEAST || block.addr() != mapping.start {
        return ptr::null_mut();
    }
    let Some(len) = pages(size) else { return ptr::null_mut() };
    if len == mapping.len() {
        return block;
    }
    let flags = libc::MREMAP_MAYMOVE;
    // Nobody may find the old address in the table once the host can give it to another.
    BLOCKS.lock().remove(&mapping.start);
    // SAFETY: the mapping is the block's; whoever resizes a block does not use it meanwhile.
    let moved = unsafe { managed::remap(mapping.clone(), len, flags, 0) };
    let (mapping, result) = match moved {
        Ok(start) => (start..start + len, start as *mut u8),
        Err(_) => (mapping, ptr::null_mut()),
    };
    BLOCKS.lock().insert(mapping.start, mapping);
    result
}

/// How many bytes of a large block may be used; `None` where it is none.
pub fn usable_size(block: *const u8) -> Option<usize> {
    let blocks = BLOCKS.lock();
    blocks.get(&block.addr()).map(|mapping| mapping.end - block.addr())
}

fn pages(size: usize) -> Option<usize> {
    size.checked_next_multiple_of(PAGE)
}
