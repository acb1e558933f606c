//! The direct map: all memory, one frame after the other, at a fixed distance from its physical
//! address.
//!
//! Through it the kernel reads and writes page tables and the content of frames. It is built at
//! boot, together with the final mapping of the kernel's image, in the root that becomes the
//! reference table (Linux: `init_mm.pgd`).

use crate::layout::{DIRECT_MAP, Image, KERNEL_BASE, VMALLOC, image};
use crate::start_info::BootInfo;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use pagefault::machine::encode::x86_64::{self as encode, Bits};
use pagefault::machine::{Frame, Mode, Page};

/// A table of any level.
pub type Table = [AtomicU64; 512];

const BIG: u64 = 2 << 20;

/// Memory handed out before the frames are known to the allocator: whole pages, never given back.
pub struct Early {
    next: u64,
    end: u64,
}

impl Early {
    /// Starts behind the kernel's image, within the piece of memory that contains it and below
    /// whatever else is in it.
    pub fn new(info: &BootInfo) -> Option<Self> {
        let start = image().data.end - KERNEL_BASE;
        let piece = info.pieces().find(|piece| piece.contains(&start))?;
        let archive = &info.archive;
        let end = if archive.start >= start { piece.end.min(archive.start) } else { piece.end };
        // The boot page table maps no more.
        Some(Self { next: start, end: end.min(1 << 30) })
    }

    /// Takes zeroed memory and returns its physical address.
    ///
    /// # Panics
    /// If there is none: the machine is too small for the kernel.
    pub fn take(&mut self, bytes: u64) -> u64 {
        let at = self.next;
        self.next += bytes.next_multiple_of(4096);
        assert!(self.next <= self.end, "too little memory to boot");
        // SAFETY: the pages are memory behind the kernel's image that nobody was given, and the
        // boot page table maps them here.
        unsafe { core::ptr::write_bytes((KERNEL_BASE + at) as *mut u8, 0, bytes as usize) };
        at
    }

    /// What was taken, the kernel's image included, as physical addresses.
    pub fn used(&self) -> Range<u64> {
        image().text.start - KERNEL_BASE..self.next
    }
}

/// Builds the reference table: the direct map of all memory and the kernel's image, each part with
/// the rights that it needs.
pub fn build(info: &BootInfo, early: &mut Early) -> Frame {
    let root = early.take(4096);
    let mut map = Builder { root, early };
    for piece in info.pieces() {
        let mut at = piece.start & !(BIG - 1);
        while at < piece.end {
            map.enter(DIRECT_MAP + at, at, Bits::WRITE | Bits::NO_EXECUTE, Size::Big);
            at += BIG;
        }
    }
    let Image { text, rodata, data } = image();
    let parts =
        [(text, Bits::empty()), (rodata, Bits::NO_EXECUTE), (data, Bits::WRITE | Bits::NO_EXECUTE)];
    for (range, rights) in parts {
        for address in range.step_by(4096) {
            map.enter(address, address - KERNEL_BASE, rights, Size::Small);
        }
    }
    Frame((root >> 12) as u32)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Small,
    Big,
}

struct Builder<'a> {
    root: u64,
    early: &'a mut Early,
}

impl Builder<'_> {
    fn enter(&mut self, address: u64, physical: u64, rights: Bits, size: Size) {
        let lowest = if size == Size::Big { 2 } else { 1 };
        let mut table = self.root;
        for level in (lowest + 1..=4).rev() {
            let entry = &boot_table(table)[index(address, level)];
            if entry.load(Ordering::Relaxed) == 0 {
                let new = Frame((self.early.take(4096) >> 12) as u32);
                entry.store(encode::table(new, Mode::Kernel), Ordering::Relaxed);
            }
            table = entry.load(Ordering::Relaxed) & encode::ADDRESS;
        }
        let mut bits = Bits::PRESENT | Bits::GLOBAL | Bits::ACCESSED | Bits::DIRTY | rights;
        // In an upper level this bit is the page size.
        bits.set(Bits::PROTECT_NONE, size == Size::Big);
        let raw = physical | bits.bits();
        boot_table(table)[index(address, lowest)].store(raw, Ordering::Relaxed);
    }
}

/// A table that [`Early`] handed out, while the boot page table is loaded.
fn boot_table(physical: u64) -> &'static Table {
    // SAFETY: the address came from `Early::take`, which gives zeroed pages that the boot page
    // table maps here; tables are only ever read and written as atomic words.
    unsafe { &*((KERNEL_BASE + physical) as *const Table) }
}

/// Which entry of a table of `level`, 1 to 4, translates an address.
pub const fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * (level - 1)) & 511) as usize
}

/// A page table's content.
///
/// # Safety
/// The frame holds a page table as long as the result is used.
pub unsafe fn table<'a>(frame: Frame) -> &'a Table {
    // SAFETY: the direct map covers every frame; the words of a page table are only accessed
    // atomically, here and by processors.
    unsafe { &*((DIRECT_MAP + (u64::from(frame.0) << 12)) as *const Table) }
}

/// Where a frame's content is.
pub const fn content(frame: Frame) -> *mut Page {
    (DIRECT_MAP + ((frame.0 as u64) << 12)) as *mut Page
}

/// Whether the direct map that is part of a reference table has all of a range of physical addresses.
pub fn covers(reference: Frame, range: &Range<u64>) -> bool {
    let has = |at: u64| {
        let mut lower = reference;
        (2..=4).rev().all(|level| {
            // SAFETY: tables of the kernel's half are never freed.
            let raw =
                unsafe { table(lower) }[index(DIRECT_MAP + at, level)].load(Ordering::Relaxed);
            lower = encode::frame(raw);
            raw & Bits::PRESENT.bits() != 0
        })
    };
    // The map ends where the vmalloc area begins at the latest.
    range.end <= VMALLOC.start - DIRECT_MAP
        && (range.start / BIG..range.end.div_ceil(BIG)).all(|big| has(big * BIG))
}

/// Bytes of memory by physical address.
///
/// # Safety
/// The range is memory that nobody writes to for the rest of time.
pub unsafe fn bytes(range: Range<u64>) -> &'static [u8] {
    let start = (DIRECT_MAP + range.start) as *const u8;
    // SAFETY: by the caller's contract; the direct map covers all memory.
    unsafe { core::slice::from_raw_parts(start, (range.end - range.start) as usize) }
}
