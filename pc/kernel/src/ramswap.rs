//! Swap in compressed memory, as zram is on Linux: for a machine without a disk, and to count what
//! bringing a page back costs where no device takes its time.
//!
//! The pages are in the kernel's heap, which grows as they come; one for which there is no memory is
//! refused, and stays where it is.

use crate::sleep::SleepMutex;
use alloc::vec::Vec;
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use pagefault::machine::store::PageBytes;
use pagefault::machine::{IoError, PAGE_SIZE, SwapDevice};

/// A page that gets no smaller than this is kept as it is.
const WORTHWHILE: usize = PAGE_SIZE as usize * 15 / 16;

/// Compressed pages by slot.
pub struct CompressedRam {
    pages: SleepMutex<Pages>,
    slots: u32,
}

struct Pages {
    kept: Vec<Vec<u8>>,
    /// Where a page is compressed before it is known how long it becomes.
    scratch: Vec<u8>,
}

impl CompressedRam {
    /// Room for a number of pages.
    pub fn new(slots: u32) -> Self {
        let scratch = alloc::vec![0; get_maximum_output_size(PAGE_SIZE as usize)];
        Self { pages: SleepMutex::new(Pages { kept: Vec::new(), scratch }), slots }
    }
}

impl SwapDevice for CompressedRam {
    fn slots(&self) -> u32 {
        self.slots
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        let pages = self.pages.lock();
        let kept = pages.kept.get(slot as usize).ok_or(IoError::Device)?;
        if kept.len() == page.len() {
            page.copy_from_slice(kept);
            return Ok(());
        }
        match decompress_into(kept, page) {
            Ok(n) if n == page.len() => Ok(()),
            _ => Err(IoError::Device),
        }
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        let pages = &mut *self.pages.lock();
        let n = compress_into(page, &mut pages.scratch).map_err(|_| IoError::Device)?;
        let bytes = if n < WORTHWHILE { &pages.scratch[..n] } else { &page[..] };
        let mut kept = Vec::new();
        kept.try_reserve_exact(bytes.len()).map_err(|_| IoError::Full)?;
        kept.extend_from_slice(bytes);
        let at = slot as usize;
        if pages.kept.len() <= at {
            let more = at + 1 - pages.kept.len();
            pages.kept.try_reserve(more).map_err(|_| IoError::Full)?;
            pages.kept.resize_with(at + 1, Vec::new);
        }
        pages.kept[at] = kept;
        Ok(())
    }

    fn discard(&self, slot: u32) {
        if let Some(kept) = self.pages.lock().kept.get_mut(slot as usize) {
            *kept = Vec::new();
        }
    }
}
