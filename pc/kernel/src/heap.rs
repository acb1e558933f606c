//! The kernel's heap, which grows in the vmalloc area.

use crate::frames::Frames;
use crate::lock::Spin;
use crate::vmalloc;
use core::alloc::Layout;
use pagefault::machine::Frame;
use talc::DefaultBinning;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;
use talc::sync::TalcLock;

/// The heap grows by at least this many pages.
const GROWTH: u64 = 16;

#[global_allocator]
static HEAP: TalcLock<Spin, Growing, DefaultBinning> = TalcLock::new(Growing { from: None });

/// Where the heap's memory comes from.
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
    HEAP.lock().source.from = Some(Memory { frames, reference });
}

/// From so many free frames on the heap has room for any call.
pub const PLENTY: u32 = 256;

/// Whether the heap can give so many bytes in one piece.
pub fn has_room(bytes: usize) -> bool {
    let Ok(layout) = Layout::from_size_align(bytes, 16) else { return false };
    let frames = HEAP.lock().source.from.map_or(0, |memory| memory.frames.free_frames());
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
        if u64::from(frames.free_frames()) < pages + 16 {
            return Err(());
        }
        let start = vmalloc::allocate(frames, reference, pages).map_err(|_| ())?;
        // SAFETY: the memory was just mapped for this use alone and is never unmapped.
        unsafe { talc.claim(start, (pages * 4096) as usize) }.map(|_| ()).ok_or(())
    }
}
