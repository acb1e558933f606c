//! The vmalloc area: kernel memory that is contiguous in addresses only.
//!
//! New memory is entered in the reference table alone. Other page tables share its lower levels;
//! where one lacks the top-level entry, the first access faults and the memory manager's decision
//! tree copies it (spec A4–A7). Each new area starts in another top-level entry, in turn, so that
//! this happens in every run and not once in a year.

use crate::direct::{index, table};
use crate::frames::Frames;
use crate::layout::{TOP_SPAN, VMALLOC};
use crate::lock::Mutex;
use core::sync::atomic::Ordering;
use pagefault::machine::encode::x86_64::{self as encode, Bits};
use pagefault::machine::{Frame, Mode, OutOfFrames, VirtAddr};

/// The area: how many bytes of each top-level entry's addresses are used, and which is next.
struct Area {
    used: [u64; TOPS],
    next: usize,
}

const TOPS: usize = ((VMALLOC.end - VMALLOC.start) / TOP_SPAN) as usize;

static AREA: Mutex<Area> = Mutex::new(Area { used: [0; TOPS], next: 0 });

/// Takes addresses for `pages` pages and one more, which stays unmapped.
fn reserve(pages: u64) -> u64 {
    let mut area = AREA.lock();
    let top = area.next;
    area.next = (top + 1) % TOPS;
    let at = VMALLOC.start + top as u64 * TOP_SPAN + area.used[top];
    area.used[top] += (pages + 1) * 4096;
    at
}

/// Maps fresh memory of `pages` pages.
///
/// On failure the pages mapped so far stay, in addresses that are not used again.
pub fn allocate(frames: &Frames, reference: Frame, pages: u64) -> Result<*mut u8, OutOfFrames> {
    let start = reserve(pages);
    for page in 0..pages {
        let frame = frames.allocate(0)?;
        let rights = Bits::WRITE | Bits::NO_EXECUTE;
        enter(frames, reference, start + page * 4096, frame, rights)?;
    }
    Ok(start as *mut u8)
}

/// Maps the registers of a device, by physical address, without caching.
pub fn map_device(
    frames: &Frames,
    reference: Frame,
    physical: u64,
    bytes: u64,
) -> Result<*mut u8, OutOfFrames> {
    let first = physical & !4095;
    let pages = (physical + bytes - first).div_ceil(4096);
    let start = reserve(pages);
    let rights = Bits::WRITE | Bits::NO_EXECUTE | Bits::NO_CACHE | Bits::WRITE_THROUGH;
    for page in 0..pages {
        let frame = Frame(((first >> 12) + page) as u32);
        enter(frames, reference, start + page * 4096, frame, rights)?;
    }
    Ok((start + (physical - first)) as *mut u8)
}

/// Enters a page of the kernel into the reference table.
pub fn enter(
    frames: &Frames,
    reference: Frame,
    address: u64,
    frame: Frame,
    rights: Bits,
) -> Result<(), OutOfFrames> {
    let mut at = reference;
    for level in (2..=4).rev() {
        // SAFETY: tables of the kernel's half are never freed.
        let entry = &unsafe { table(at) }[index(address, level)];
        let mut raw = entry.load(Ordering::Acquire);
        if raw == 0 {
            let new = frames.allocate_table()?;
            raw = encode::table(new, Mode::Kernel);
            if let Err(there) = entry.compare_exchange(0, raw, Ordering::AcqRel, Ordering::Acquire)
            {
                frames.free(new, 0);
                raw = there;
            }
        }
        at = encode::frame(raw);
    }
    let bits = Bits::PRESENT | Bits::GLOBAL | Bits::ACCESSED | Bits::DIRTY | rights;
    let raw = u64::from(frame.0) << 12 | bits.bits();
    // SAFETY: as above.
    let leaf = unsafe { table(at) };
    leaf[index(address, 1)].store(raw, Ordering::Release);
    Ok(())
}

/// Takes a page of the kernel out of the reference table; returns its frame, if there was one.
pub fn remove(reference: Frame, address: u64) -> Option<Frame> {
    let mut at = reference;
    for level in (2..=4).rev() {
        // SAFETY: tables of the kernel's half are never freed.
        let raw = unsafe { table(at) }[index(address, level)].load(Ordering::Acquire);
        if raw == 0 {
            return None;
        }
        at = encode::frame(raw);
    }
    // SAFETY: as above.
    let raw = unsafe { table(at) }[index(address, 1)].swap(0, Ordering::AcqRel);
    (raw != 0).then(|| encode::frame(raw))
}

/// Whether the reference table translates an address of the area.
pub fn is_mapped(reference: Frame, address: VirtAddr) -> bool {
    let mut at = reference;
    for level in (1..=4).rev() {
        // SAFETY: tables of the kernel's half are never freed.
        let raw = unsafe { table(at) }[index(address.value(), level)].load(Ordering::Acquire);
        if raw & Bits::PRESENT.bits() == 0 {
            return false;
        }
        at = encode::frame(raw);
    }
    true
}
