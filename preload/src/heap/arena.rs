//! The arenas: small and medium blocks.

use super::window::{Lock, Window};
use crate::sys::Mmap;
use crate::{managed, thread};
use core::ops::Range;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicUsize};
use dlmalloc::Dlmalloc;

/// The most arenas that there are.
const MOST: usize = 8;

/// How much address space an arena is tried to be given, the most first.
const SPANS: [usize; 6] = [64 << 30, 16 << 30, 4 << 30, 1 << 30, 256 << 20, 64 << 20];

type Arena = Lock<Dlmalloc<Window>>;

static ARENAS: [Arena; MOST] =
    [const { Lock::new(Dlmalloc::new_with_allocator(Window::new(|_| true, released))) }; MOST];

/// Where the first arena begins; 0 while there is none.
static START: AtomicUsize = AtomicUsize::new(0);
/// How many bytes of addresses each has.
static SPAN: AtomicUsize = AtomicUsize::new(0);
/// How many there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// There are not enough free addresses for one arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve;

/// Reserves the arenas' addresses, twice as many arenas as `processors`, and opens the heap.
pub fn reserve(processors: usize) -> Result<(), Reserve> {
    let most = (processors * 2).clamp(1, MOST);
    for span in SPANS {
        for count in [most, 1] {
            let request = Mmap::private(span * count);
            // SAFETY: a new mapping at an address of the host's choice replaces nothing.
            if let Ok(start) = unsafe { managed::map(&request) } {
                open(start, span, count);
                return Ok(());
            }
        }
    }
    Err(Reserve)
}

fn open(start: usize, span: usize, count: usize) {
    for (index, arena) in ARENAS[..count].iter().enumerate() {
        let first = start + index * span;
        arena.lock().allocator().open(first..first + span);
    }
    SPAN.store(span, Relaxed);
    COUNT.store(count, Relaxed);
    START.store(start, Release);
}

/// Whether the arenas may be used.
pub fn is_open() -> bool {
    START.load(Acquire) != 0
}

/// Whether a pointer is to memory of an arena.
pub fn holds(block: *const u8) -> bool {
    let start = START.load(Acquire);
    start != 0 && block.addr().wrapping_sub(start) < SPAN.load(Relaxed) * COUNT.load(Relaxed)
}

/// The arena that a block is of; the block's address must be held.
fn of(block: *const u8) -> &'static Arena {
    &ARENAS[(block.addr() - START.load(Relaxed)) / SPAN.load(Relaxed)]
}

/// The calling thread's arena.
fn own() -> &'static Arena {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (count, words) = (COUNT.load(Relaxed), thread::words());
    if words.arena.get() == 0 {
        words.arena.set(NEXT.fetch_add(1, Relaxed) % count as u32 + 1);
    }
    &ARENAS[words.arena.get() as usize - 1]
}

/// Allocates a block; null where no arena has room.
pub fn allocate(size: usize, align: usize) -> *mut u8 {
    // SAFETY: the alignment is a power of two.
    let block = unsafe { own().lock().c_memalign(align, size) };
    if !block.is_null() {
        return block;
    }
    let all = ARENAS[..COUNT.load(Relaxed)].iter();
    // SAFETY: as above.
    all.map(|arena| unsafe { arena.lock().c_memalign(align, size) })
        .find(|block| !block.is_null())
        .unwrap_or(core::ptr::null_mut())
}

/// Changes the size of a block within its arena; null where there is no room.
///
/// # Safety
/// `block` is a live block of an arena.
pub unsafe fn reallocate(block: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: passed on to the caller.
    unsafe { of(block).lock().c_realloc(block, size) }
}

/// Frees a block.
///
/// # Safety
/// `block` is a live block of an arena.
pub unsafe fn free(block: *mut u8) {
    // SAFETY: passed on to the caller.
    unsafe { of(block).lock().c_free(block) }
}

/// Gives the unused ends of the arenas back.
pub fn trim() -> bool {
    let all = ARENAS[..COUNT.load(Relaxed)].iter();
    // SAFETY: trimming asks nothing of its caller.
    all.fold(false, |any, arena| unsafe { arena.lock().trim(0) } | any)
}

/// All arenas' locks.
pub fn locks() -> impl Iterator<Item = &'static Arena> {
    ARENAS.iter()
}

/// Gives a part of an arena that is no longer used back to the manager.
fn released(range: Range<usize>) -> bool {
    // SAFETY: dlmalloc has given up the range, which lies in the arenas' mapping.
    unsafe { managed::advise(range.start, range.len(), libc::MADV_DONTNEED) }.is_ok()
}
