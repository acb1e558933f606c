//! The parts of a swap file that a process holds, of its own or a shared file.

use super::descriptor::Kept;
use crate::apart;
use crate::host::PAGE;
use crate::reserve::ReserveError;
use alloc::sync::Arc;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use pagefault_machine::PAGE_SIZE;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// The pages of an extent: 256 KiB.
pub const PAGES: u32 = u64::BITS;

/// Extents of [`PAGES`] pages of one file, numbered from 0, for all processes that use the file.
pub trait Extents: Send + Sync {
    /// The file.
    fn file(&self) -> BorrowedFd<'_>;
    /// Takes an unheld extent.
    fn take(&self) -> Option<u32>;
    /// Releases an extent; the last holder gives its blocks back to the file system.
    fn give(&self, extent: u32);
    /// Whether this process is the only holder of an extent that it holds.
    fn is_sole(&self, extent: u32) -> bool;
}

/// Gives the blocks of an extent back, if the file system can; the file has this many pages. Its
/// first page stays: it may hold a signature.
pub fn punch(file: BorrowedFd<'_>, extent: u32, pages: u32) {
    let first = extent.saturating_mul(PAGES);
    let end = first.saturating_add(PAGES).min(pages);
    let first = first.max(1);
    if first < end {
        let [start, len] = [first, end - first].map(|pages| u64::from(pages) * PAGE_SIZE);
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // A file system without holes keeps the blocks for the extent's next holder.
        let _ = rustix::fs::fallocate(file, hole, start, len);
    }
}

/// The extents of a file that this process opened. Forked children use it too: the counts of
/// holders are in shared memory.
pub(super) struct OwnExtents {
    file: Kept,
    pages: u32,
    /// For each extent, the number of holders.
    holders: Holders,
    /// Where the search for a free extent begins.
    hint: AtomicU32,
}

/// In an extent's word: its blocks are being given back.
const ENDING: u32 = 1 << 31;

impl OwnExtents {
    pub(super) fn new(file: Kept, pages: u32) -> Result<Self, ReserveError> {
        let holders = Holders::new(pages.div_ceil(PAGES) as usize)?;
        Ok(Self { file, pages, holders, hint: AtomicU32::new(0) })
    }

    /// Adds a holder to an extent that this process holds.
    pub(super) fn join(&self, extent: u32) {
        self.holders.all()[extent as usize].fetch_add(1, Relaxed);
    }
}

impl Extents for Arc<OwnExtents> {
    fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn take(&self) -> Option<u32> {
        let words = self.holders.all();
        let (count, from) = (words.len() as u32, self.hint.load(Relaxed));
        let mut all = (0..count).map(|step| (from + step) % count);
        let is_free =
            |extent: &u32| words[*extent as usize].compare_exchange(0, 1, AcqRel, Relaxed).is_ok();
        let found = all.find(is_free)?;
        self.hint.store(found + 1, Relaxed);
        Some(found)
    }

    fn give(&self, extent: u32) {
        let word = &self.holders.all()[extent as usize];
        let less = |holders: u32| Some(if holders == 1 { ENDING } else { holders - 1 });
        if word.fetch_update(AcqRel, Relaxed, less) == Ok(1) {
            punch(self.file(), extent, self.pages);
            word.store(0, Release);
            self.hint.fetch_min(extent, Relaxed);
        }
    }

    fn is_sole(&self, extent: u32) -> bool {
        self.holders.all()[extent as usize].load(Acquire) == 1
    }
}

/// Words shared with forked processes.
struct Holders {
    start: NonNull<AtomicU32>,
    count: usize,
}

// SAFETY: atomics, mapped as long as this value lives.
unsafe impl Send for Holders {}
// SAFETY: as above.
unsafe impl Sync for Holders {}

impl Holders {
    fn new(count: usize) -> Result<Self, ReserveError> {
        let bytes = (count * size_of::<AtomicU32>()).max(1).next_multiple_of(PAGE);
        let map = |address: Option<u64>| {
            let fixed = address.map_or(MapFlags::empty(), |_| MapFlags::FIXED_NOREPLACE);
            let at = ptr::without_provenance_mut(address.unwrap_or(0) as usize);
            let flags = MapFlags::SHARED | MapFlags::NORESERVE | fixed;
            // SAFETY: a fresh mapping that replaces nothing disturbs nothing.
            unsafe {
                rustix::mm::mmap_anonymous(at, bytes, ProtFlags::READ | ProtFlags::WRITE, flags)
            }
        };
        let refused = |errno| ReserveError { bytes, errno };
        let start = apart::map(bytes as u64, map).map_err(refused)?;
        Ok(Self { start: NonNull::new(start.cast()).ok_or(refused(Errno::NOMEM))?, count })
    }

    fn all(&self) -> &[AtomicU32] {
        // SAFETY: the mapping has so many words, which began as zero, and lives as long as `self`.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        let bytes = (self.count * size_of::<AtomicU32>()).max(1).next_multiple_of(PAGE);
        // SAFETY: mapped by `new`, and no reference outlives its owner.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::vec;

    #[test]
    fn a_hole_spares_the_signature_and_what_is_not_the_files() {
        let file = File::from(memfd_create("swap", MemfdFlags::CLOEXEC).expect("a file"));
        let all = 2 * PAGES as usize * PAGE;
        let written = || {
            let mut bytes = vec![0; all];
            file.read_exact_at(&mut bytes, 0).expect("it is read");
            let pages = (0..).zip(bytes.chunks(PAGE));
            let kept = pages.filter(|(_, page)| page.iter().all(|byte| *byte == 1));
            kept.map(|(page, _): (u32, _)| page).collect::<vec::Vec<_>>()
        };
        let fill = || file.write_all_at(&vec![1; all], 0).expect("it is written");
        fill();
        punch(file.as_fd(), 0, 2 * PAGES);
        assert_eq!(written()[..2], [0, PAGES]);
        fill();
        // The file has ten pages of the second extent, and the rest is somebody else's.
        punch(file.as_fd(), 1, PAGES + 10);
        assert_eq!(written()[PAGES as usize..], (PAGES + 10..2 * PAGES).collect::<vec::Vec<_>>());
    }
}
