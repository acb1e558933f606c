//! Our own page table: one word a page, in the manager's own memory.
//!
//! The table has two levels: a directory, and chunks for a gigabyte of addresses each, reserved when
//! the first entry in one is made. Within a chunk everything is a flat array, of which the host
//! allocates the touched parts. The host's page table is a translation look-aside buffer for this
//! table: it holds a part of it, and once flushed never more.
//!
//! # Locks
//! Each leaf of 512 entries has a lock. Changing an entry, or filling the host's page table from
//! one, takes it. Leaf locks come before frame locks.

use crate::frame::{Frames, Location};
use crate::host;
use crate::lock::SoleMutex;
use crate::reserve::{ReserveError, Sparse, Zeroed};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use lock_api::RawMutex;
use pagefault_machine::{Entry, Frame, PAGE_SIZE, Protection, SwapSlot};

/// The entries of a leaf.
pub const LEAF_PAGES: usize = 512;
/// The bytes of addresses that a leaf covers.
pub const SPAN: u64 = LEAF_PAGES as u64 * PAGE_SIZE;
/// The largest page number that a file entry holds.
pub const FILE_INDEX_LIMIT: u64 = (1 << 56) - 1;

const PRESENT: u64 = 1;
const PROTECTION_SHIFT: u32 = 1;
const ACCESSED: u64 = 1 << 4;
const DIRTY: u64 = 1 << 5;
const SWAP: u64 = 1 << 6;
const FILE: u64 = 1 << 7;

fn encode(entry: Entry) -> u64 {
    match entry {
        Entry::None => 0,
        Entry::Present { frame, protection, accessed, dirty } => {
            PRESENT
                | u64::from(protection.bits()) << PROTECTION_SHIFT
                | if accessed { ACCESSED } else { 0 }
                | if dirty { DIRTY } else { 0 }
                | u64::from(frame.0) << 32
        }
        Entry::Swap(slot) => SWAP | u64::from(slot.area) << 8 | u64::from(slot.offset) << 32,
        Entry::File(index) => {
            debug_assert!(index <= FILE_INDEX_LIMIT);
            FILE | index << 8
        }
    }
}

fn decode(word: u64) -> Entry {
    if word & PRESENT != 0 {
        Entry::Present {
            frame: Frame((word >> 32) as u32),
            protection: Protection::from_bits_truncate((word >> PROTECTION_SHIFT) as u8),
            accessed: word & ACCESSED != 0,
            dirty: word & DIRTY != 0,
        }
    } else if word & SWAP != 0 {
        Entry::Swap(SwapSlot { area: (word >> 8) as u8, offset: (word >> 32) as u32 })
    } else if word & FILE != 0 {
        Entry::File(word >> 8)
    } else {
        Entry::None
    }
}

/// The notes on a leaf.
#[repr(C)]
struct Leaf {
    lock: SoleMutex,
    /// The number of entries that are not none, plus [`MADE`].
    state: AtomicU32,
}

/// The leaf counts as existing (Linux: in `nr_ptes`).
const MADE: u32 = 1 << 31;

// SAFETY: atomics, valid when zero: unlocked, not made, empty.
unsafe impl Zeroed for Leaf {}

/// The pages of a chunk: a gigabyte of addresses.
const CHUNK_PAGES: usize = 1 << 18;
const CHUNK_LEAVES: usize = CHUNK_PAGES / LEAF_PAGES;

/// A part of the table.
#[repr(C)]
struct Chunk {
    entries: [AtomicU64; CHUNK_PAGES],
    /// For each page, the frame plus one that was last put into the host's page there, and
    /// [`FLAGS`]. The frame still stands there only if its location says so.
    shown: [AtomicU32; CHUNK_PAGES],
    leaves: [Leaf; CHUNK_LEAVES],
}

// SAFETY: arrays of atomics and leaves, valid when zero.
unsafe impl Zeroed for Chunk {}

impl Chunk {
    fn leaf(&self, page: usize) -> &Leaf {
        &self.leaves[page % CHUNK_PAGES / LEAF_PAGES]
    }

    fn entry(&self, page: usize) -> &AtomicU64 {
        &self.entries[page % CHUNK_PAGES]
    }
}

/// The page table of one space.
pub struct PageTable {
    chunks: Sparse<Chunk>,
    pages: usize,
    made: AtomicUsize,
}

/// The host page may be executed.
const EXECUTABLE: u32 = 1 << 31;
/// The host page is poisoned: no frame stands there, and the kernel's accesses fail.
const POISONED: u32 = 1 << 30;
const FLAGS: u32 = EXECUTABLE | POISONED;

/// A held lock of a leaf.
pub struct LeafGuard<'a> {
    chunk: &'a Chunk,
    leaf: &'a Leaf,
}

impl PageTable {
    /// An empty table for `pages` pages, a multiple of [`LEAF_PAGES`].
    pub fn new(pages: usize) -> Result<Self, ReserveError> {
        let chunks = Sparse::new(pages.div_ceil(CHUNK_PAGES))?;
        Ok(Self { chunks, pages, made: AtomicUsize::new(0) })
    }

    /// The number of pages covered.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Reads an entry; without the leaf's lock, the result may be out of date.
    #[inline]
    pub fn entry(&self, page: usize) -> Entry {
        match self.chunk(page) {
            Some(chunk) => decode(chunk.entry(page).load(Acquire)),
            None => Entry::None,
        }
    }

    /// Begins to load what the table has about a page.
    #[inline]
    pub fn prefetch(&self, page: usize) {
        if let Some(chunk) = self.chunk(page) {
            host::prefetch(chunk.entry(page));
            host::prefetch(&raw const chunk.shown[page % CHUNK_PAGES]);
        }
    }

    /// Locks the leaf of `page`, which exists from then on. Fails if the host refuses addresses for
    /// its chunk.
    pub fn lock(&self, page: usize) -> Result<LeafGuard<'_>, ReserveError> {
        let chunk = self.chunks.get_or_reserve(page / CHUNK_PAGES)?;
        let leaf = chunk.leaf(page);
        leaf.lock.lock();
        if leaf.state.load(Relaxed) & MADE == 0 {
            leaf.state.fetch_or(MADE, Relaxed);
            self.made.fetch_add(1, Relaxed);
        }
        Ok(LeafGuard { chunk, leaf })
    }

    /// Locks the leaf of `page` if it exists.
    pub fn lock_existing(&self, page: usize) -> Option<LeafGuard<'_>> {
        let chunk = self.chunk(page)?;
        let leaf = chunk.leaf(page);
        if leaf.state.load(Acquire) & MADE == 0 {
            return None;
        }
        leaf.lock.lock();
        Some(LeafGuard { chunk, leaf })
    }

    /// The first page from `from` to before `end` whose leaf exists.
    pub fn next_leaf(&self, from: usize, end: usize) -> Option<usize> {
        let mut page = from;
        while page < end {
            page = match self.chunk(page) {
                Some(chunk) if chunk.leaf(page).state.load(Acquire) & MADE != 0 => {
                    return Some(page);
                }
                Some(_) => (page / LEAF_PAGES + 1) * LEAF_PAGES,
                None => (page / CHUNK_PAGES + 1) * CHUNK_PAGES,
            };
        }
        None
    }

    /// The frame whose content is in the host page `host`, which is page `page` of this table.
    pub fn shown(&self, page: usize, host: u64, frames: &Frames) -> Option<Frame> {
        let word = self.shown_word(page)?.load(Acquire) & !FLAGS;
        let frame = Frame(word.checked_sub(1)?);
        matches!(frames.peek(frame), Location::At(at, _) if at == host).then_some(frame)
    }

    /// Whether the host page `host`, which is page `page` of this table, has neither a frame nor
    /// any other note.
    pub fn is_empty(&self, page: usize, host: u64, frames: &Frames) -> bool {
        let flags = self.shown_word(page).map_or(0, |word| word.load(Acquire) & FLAGS);
        flags == 0 && self.shown(page, host, frames).is_none()
    }

    /// Notes that `frame` was put into the host page; under the locks of leaf and frame.
    pub fn set_shown(&self, page: usize, frame: Frame) {
        let Some(word) = self.shown_word(page) else { return };
        let flags = word.load(Relaxed) & FLAGS;
        word.store((frame.0 + 1) | flags, Release);
    }

    /// Whether `frame` was the last frame put into the host page, and was not flushed since.
    pub fn notes(&self, page: usize, frame: Frame) -> bool {
        self.shown_word(page).is_some_and(|word| word.load(Acquire) & !FLAGS == frame.0 + 1)
    }

    /// Notes that `frame` was flushed from the host page. The caller holds the frame, whose location is still
    /// there: so no other frame can have arrived.
    pub fn clear_shown(&self, page: usize, frame: Frame) {
        let Some(word) = self.shown_word(page) else { return };
        let cleared = |now: u32| (now & !FLAGS == frame.0 + 1).then_some(now & FLAGS);
        let _ = word.fetch_update(Release, Relaxed, cleared);
    }

    /// Whether the host page may be executed.
    pub fn is_executable(&self, page: usize) -> bool {
        self.shown_word(page).is_some_and(|word| word.load(Acquire) & EXECUTABLE != 0)
    }

    /// Notes that the host page may be executed.
    pub fn set_executable(&self, page: usize) {
        if let Some(word) = self.shown_word(page) {
            word.fetch_or(EXECUTABLE, Release);
        }
    }

    /// Notes that the host page may not be executed.
    pub fn clear_executable(&self, page: usize) {
        if let Some(word) = self.shown_word(page) {
            word.fetch_and(!EXECUTABLE, Release);
        }
    }

    /// Notes that the host page is poisoned.
    #[cfg(feature = "std")]
    pub fn set_poisoned(&self, page: usize) {
        if let Some(word) = self.shown_word(page) {
            word.fetch_or(POISONED, Release);
        }
    }

    /// Notes that the host page is not poisoned; returns whether it was.
    pub fn clear_poisoned(&self, page: usize) -> bool {
        let Some(word) = self.shown_word(page) else { return false };
        word.load(Relaxed) & POISONED != 0 && word.fetch_and(!POISONED, Release) & POISONED != 0
    }

    /// Gives back the leaves wholly within pages `from` to before `end` that hold no entries.
    pub fn prune(&self, from: usize, end: usize) {
        let (first, last) = (from.div_ceil(LEAF_PAGES), end / LEAF_PAGES);
        let mut index = first;
        while index < last {
            let chunk_end = (index / CHUNK_LEAVES + 1) * CHUNK_LEAVES;
            if let Some(chunk) = self.chunk(index * LEAF_PAGES) {
                for leaf in index..last.min(chunk_end) {
                    self.prune_leaf(chunk, leaf * LEAF_PAGES);
                }
            }
            index = chunk_end;
        }
    }

    /// Gives back the leaf that begins with `page`, if it holds no entries.
    fn prune_leaf(&self, chunk: &Chunk, page: usize) {
        let leaf = chunk.leaf(page);
        if leaf.state.load(Relaxed) != MADE {
            return;
        }
        leaf.lock.lock();
        let guard = LeafGuard { chunk, leaf };
        if leaf.state.compare_exchange(MADE, 0, Relaxed, Relaxed).is_ok() {
            self.made.fetch_sub(1, Relaxed);
            guard.give_back(page);
        }
    }

    /// The number of leaves that exist.
    pub fn leaves(&self) -> usize {
        self.made.load(Relaxed)
    }

    #[inline]
    fn chunk(&self, page: usize) -> Option<&Chunk> {
        self.chunks.get(page / CHUNK_PAGES)
    }

    fn shown_word(&self, page: usize) -> Option<&AtomicU32> {
        Some(&self.chunk(page)?.shown[page % CHUNK_PAGES])
    }
}

impl LeafGuard<'_> {
    /// Reads an entry of this leaf.
    #[inline]
    pub fn entry(&self, page: usize) -> Entry {
        decode(self.chunk.entry(page).load(Acquire))
    }

    /// Exchanges an entry of this leaf.
    pub fn replace(&self, page: usize, entry: Entry) -> Entry {
        let new = encode(entry);
        // Changed only under the leaf's lock, which this guard holds.
        let word = self.chunk.entry(page);
        let old = word.load(Relaxed);
        word.store(new, Release);
        let state = self.leaf.state.load(Relaxed);
        match (old != 0, new != 0) {
            (false, true) => self.leaf.state.store(state + 1, Release),
            (true, false) => self.leaf.state.store(state - 1, Release),
            _ => {}
        }
        decode(old)
    }

    /// The first page from `from` to before `end`, both in this leaf, whose entry is not none.
    pub fn next(&self, from: usize, end: usize) -> Option<usize> {
        let first = from % CHUNK_PAGES;
        let words = &self.chunk.entries[first..first + (end - from)];
        words.iter().position(|word| word.load(Relaxed) != 0).map(|i| from + i)
    }

    /// Gives back the memory of the leaf that begins with `page`: its entries, exactly one page of
    /// the array, are all none.
    fn give_back(&self, page: usize) {
        let start = &raw const *self.chunk.entry(page) as u64;
        // If the host refuses, the zeros merely stay resident.
        // SAFETY: the leaf's lock is held and all its entries are zero, as they will be after.
        let _ = unsafe { host::discard(start..start + host::PAGE as u64) };
    }
}

impl Drop for LeafGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: a guard exists only while its lock is held by its owner.
        unsafe { self.leaf.lock.unlock() };
    }
}

#[cfg(test)]
mod tests;
