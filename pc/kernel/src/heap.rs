//! The kernel's heap. Small pieces come from memory in the vmalloc area, which the heap keeps; large ones
//! are frames side by side in the direct map, which go back to programs when they are freed.

use crate::buddy::ORDERS;
use crate::direct;
use crate::frames::Frames;
use crate::layout::{DIRECT_MAP, VMALLOC};
use crate::lock::Spin;
use crate::vmalloc;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;
use pagefault::machine::Frame;
use talc::DefaultBinning;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;
use talc::sync::TalcLock;

/// How many frames stay for allocations that cannot wait.
const SPARED: u32 = 16;

/// The heap grows by at least this many pages.
const GROWTH: u64 = 16;

/// A piece of this many bytes or more is made of frames of its own.
const LARGE: usize = 16 << 10;

#[global_allocator]
static HEAP: Heap =
    Heap { small: TalcLock::new(Growing { from: None }), frames: spin::Once::new() };

struct Heap {
    small: TalcLock<Spin, Growing, DefaultBinning>,
    frames: spin::Once<&'static Frames>,
}

/// The order of the frames that a piece takes, if it is a large one.
const fn order(layout: Layout) -> Option<usize> {
    if layout.size() < LARGE || layout.align() > 4096 {
        return None;
    }
    let order = layout.size().div_ceil(4096).next_power_of_two().trailing_zeros() as usize;
    if order < ORDERS { Some(order) } else { None }
}

impl Heap {
    /// A large piece, or nothing where no such frames lie side by side.
    fn large(&self, layout: Layout) -> *mut u8 {
        let (Some(order), Some(frames)) = (order(layout), self.frames.get()) else {
            return null_mut();
        };
        if frames.free_frames() < (1 << order) + SPARED {
            return null_mut();
        }
        frames.allocate(order).map_or(null_mut(), |first| direct::content(first).cast())
    }
}

/// Whether a piece is of the direct map.
fn is_large(piece: *mut u8) -> bool {
    (DIRECT_MAP..VMALLOC.start).contains(&(piece.addr() as u64))
}

// SAFETY: a piece is what `talc` gave, or frames that nobody else has, which the direct map shows at an
// address that is aligned to a page; where it is tells which, and its layout how many frames.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let large = self.large(layout);
        if !large.is_null() {
            return large;
        }
        // SAFETY: the caller's own promise.
        unsafe { self.small.alloc(layout) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match (is_large(piece), order(layout), self.frames.get()) {
            (true, Some(order), Some(frames)) => {
                let first = (piece.addr() as u64 - DIRECT_MAP) >> 12;
                frames.free(Frame(first as u32), order);
            }
            // SAFETY: the caller's own promise; `talc` gave the piece.
            _ => unsafe { self.small.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size is one for this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if !is_large(piece) && order(wanted).is_none() {
            // SAFETY: the caller's own promise; `talc` gave the piece.
            return unsafe { self.small.realloc(piece, layout, size) };
        }
        if is_large(piece) && order(layout) == order(wanted) {
            return piece;
        }
        // SAFETY: the new size is not zero, says the caller.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both pieces have that many bytes, and the old one is the caller's to give up.
            unsafe {
                new.copy_from_nonoverlapping(piece, layout.size().min(size));
                self.dealloc(piece, layout);
            }
        }
        new
    }
}

/// Where the memory for small pieces comes from.
#[derive(Debug)]
struct Growing {
    from: Option<Memory>,
}

#[derive(Clone, Copy)]
struct Memory {
    frames: &'static Frames,
    reference: Frame,
}

impl core::fmt::Debug for Memory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Memory")
    }
}

/// Lets the heap take memory; allocations before that fail.
pub fn start(frames: &'static Frames, reference: Frame) {
    HEAP.small.lock().source.from = Some(Memory { frames, reference });
    HEAP.frames.call_once(|| frames);
}

/// With this many free frames the heap has room for any call.
pub const PLENTY: u32 = 256;

/// Whether the heap can give that many bytes in one piece.
pub fn has_room(bytes: usize) -> bool {
    let Ok(layout) = Layout::from_size_align(bytes, 16) else { return false };
    let frames = HEAP.frames.get().map_or(0, |frames| frames.free_frames());
    if frames >= PLENTY && bytes <= PLENTY as usize * 2048 {
        return true;
    }
    // SAFETY: the layout is not empty, and what it gave is given back at once.
    unsafe {
        // Seen by nobody, the compiler would leave the pair out, and the answer would be yes.
        let piece = core::hint::black_box(alloc::alloc::alloc(layout));
        if !piece.is_null() {
            alloc::alloc::dealloc(piece, layout);
        }
        !piece.is_null()
    }
}

// SAFETY: `acquire` uses the heap only through `talc`, and neither the frames nor the vmalloc area
// allocate from a heap.
unsafe impl Source for Growing {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let Memory { frames, reference } = talc.source.from.ok_or(())?;
        // Room for the allocator's own words and for the alignment.
        let bytes = (layout.size() + layout.align()) as u64 + 4096;
        let pages = bytes.div_ceil(4096).max(GROWTH);
        if u64::from(frames.free_frames()) < pages + u64::from(SPARED) {
            return Err(());
        }
        let start = vmalloc::allocate(frames, reference, pages).map_err(|_| ())?;
        // SAFETY: the memory was just mapped for this use alone and is never unmapped.
        unsafe { talc.claim(start, (pages * 4096) as usize) }.map(|_| ()).ok_or(())
    }
}
