//! Compressed RAM: Linux's zram as a store.

use super::Mutex;
use super::arena::{Arena, Place};
use super::failure::{Cause, Failure, LastFailure};
use super::offload::{Nobody, Offload, Waiting};
use super::pool::{OwnPool, Pool};
use super::scratch::Scratches;
use crate::host;
use crate::lock;
use crate::reserve::{ReserveError, Table, Zeroed};
use alloc::boxed::Box;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, Part, SwapDevice};

const PAGE: usize = PAGE_SIZE as usize;

/// How many locks the slots are spread over.
const SHARDS: usize = 64;

/// Pages kept in memory, compressed with LZ4, within a hard cap.
///
/// The cap is on real memory: the arena's spans and the touched part of the table of slots, even if
/// objects do not fill them. It excludes up to 100 KiB of room for compression. A page that repeats
/// one word costs only its line in the table; a page that does not compress is stored as it is. At
/// the cap a write fails with [`IoError::Full`] and leaves the slot empty. Memory of freed slots
/// goes back to the host.
///
/// # Locking
/// Several threads and fault handlers may call it at once. A process fork must happen while no call
/// runs; parent and child then each have a copy of their own. Over a shared pool, they read the
/// same objects until either frees them.
pub struct CompressedRam {
    arena: Arena,
    records: Table<Record>,
    /// One bit for each page of `records` that was touched and charged.
    touched: Table<AtomicU64>,
    shards: [Mutex<()>; SHARDS],
    scratches: Scratches,
    /// The helper that compresses, and the pages that wait for it.
    offload: Box<dyn Offload>,
    waiting: Mutex<Waiting>,
    /// There was no room for a page, and nothing was freed since: until then, compressing another
    /// page cannot help.
    full: AtomicBool,
    failure: LastFailure,
    counters: Counters,
}

/// The contents of compressed RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompressedStats {
    /// Pages held, of every kind.
    pub pages: u64,
    /// Of these, pages that repeat one word and cost no memory.
    pub same_filled: u64,
    /// Of these, pages stored uncompressed because they do not compress.
    pub incompressible: u64,
    /// The bytes to which the pages were compressed.
    pub stored_bytes: u64,
    /// The real memory in use for them in bytes, including size classes and tables, over all
    /// processes that share the pool.
    pub memory_bytes: u64,
}

impl CompressedStats {
    /// How many bytes of pages one byte of compressed data holds; 1 if nothing is stored.
    pub fn ratio(&self) -> f64 {
        if self.stored_bytes == 0 {
            return 1.0;
        }
        ((self.pages - self.same_filled) * PAGE_SIZE) as f64 / self.stored_bytes as f64
    }
}

/// The pages compressed during one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compressed {
    /// How many pages.
    pub pages: u64,
    /// Their compressed bytes.
    pub bytes: u64,
    /// How many of the pages the helper compressed.
    pub elsewhere: u64,
}

impl Compressed {
    fn add(&mut self, content: Content) {
        self.pages += 1;
        if let Content::Stored { len, .. } = content {
            self.bytes += len as u64;
        }
    }
}

#[derive(Default)]
struct Counters {
    pages: AtomicU64,
    same_filled: AtomicU64,
    incompressible: AtomicU64,
    stored_bytes: AtomicU64,
}

/// The content of a slot, in the two words of a [`Record`]; guarded by the slot's shard.
#[derive(Clone, Copy)]
enum Content {
    Empty,
    /// The page repeats this word.
    Filled(u64),
    /// The page is an object of `len` bytes; uncompressed if `len` is a page.
    Stored {
        place: Place,
        len: usize,
    },
    /// The page waits at this place for the helper.
    Waits(usize),
}

struct Record {
    kind: AtomicU64,
    value: AtomicU64,
}

// SAFETY: atomics of integers only; all zero is Content::Empty.
unsafe impl Zeroed for Record {}

const EMPTY: u64 = 0;
const FILLED: u64 = 1;
/// The kind of a stored object; its length is above it.
const STORED: u64 = 2;
const WAITS: u64 = 3;

impl Record {
    fn load(&self) -> Content {
        let (kind, value) = (self.kind.load(Relaxed), self.value.load(Relaxed));
        match kind & 3 {
            EMPTY => Content::Empty,
            FILLED => Content::Filled(value),
            WAITS => Content::Waits(value as usize),
            _ => Content::Stored { place: Place::from_word(value), len: (kind >> 2) as usize },
        }
    }

    fn store(&self, content: Content) {
        let (kind, value) = match content {
            Content::Empty => (EMPTY, 0),
            Content::Filled(word) => (FILLED, word),
            Content::Stored { place, len } => (STORED | (len as u64) << 2, place.to_word()),
            Content::Waits(place) => (WAITS, place as u64),
        };
        self.kind.store(kind, Relaxed);
        self.value.store(value, Relaxed);
    }
}

const RECORDS_PER_PAGE: usize = PAGE / size_of::<Record>();

impl CompressedRam {
    /// Makes an empty store of `slots` slots that uses at most `cap_bytes` of real memory.
    pub fn new(slots: u32, cap_bytes: u64) -> Result<Self, ReserveError> {
        Self::over(slots, Box::new(OwnPool::new(cap_bytes)?))
    }

    /// Makes an empty store of `slots` slots whose pages go to a pool, which other processes may
    /// share.
    pub fn over(slots: u32, pool: Box<dyn Pool>) -> Result<Self, ReserveError> {
        let pages = (slots as usize).div_ceil(RECORDS_PER_PAGE);
        Ok(Self {
            arena: Arena::over(pool)?,
            records: Table::new(slots as usize)?,
            touched: Table::new(pages.div_ceil(64))?,
            shards: [const { Mutex::new(()) }; SHARDS],
            scratches: Scratches::new()?,
            offload: Box::new(Nobody),
            waiting: Waiting::new(),
            full: AtomicBool::new(false),
            failure: LastFailure::default(),
            counters: Counters::default(),
        })
    }

    /// The same store with a helper that compresses as many pages as it can.
    #[must_use]
    pub fn with_offload(mut self, offload: Box<dyn Offload>) -> Self {
        self.offload = offload;
        self
    }

    /// The cap on real memory in bytes.
    pub fn cap_bytes(&self) -> u64 {
        self.arena.pool().limit()
    }

    /// Prepares for a process fork over a shared pool, while no other call runs. Afterwards, and
    /// before the fork, the caller tells the pool which spans the child holds.
    ///
    /// Pages that wait for the helper get their results, or are compressed here. If the pool has no
    /// room for a page, it keeps waiting, and the child needs a copy of it
    /// ([`CompressedRam::waiting`]). Returns the pages compressed.
    pub fn before_fork(&self) -> Compressed {
        let mut waiting = self.waiting.lock();
        let mut compressed = self.take_results(&mut waiting);
        for (place, slot) in waiting.all() {
            // SAFETY: the place is taken, so that its page stays as it is.
            let stored = self.store(unsafe { &*self.offload.page(place) });
            let Ok(content) = stored else { continue };
            self.settle(&mut waiting, slot, place, content);
            compressed.add(content);
        }
        drop(waiting);
        self.arena.before_fork();
        compressed
    }

    /// The last read that failed.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.get()
    }

    /// The contents; consistent only while no other thread uses the store.
    pub fn stats(&self) -> CompressedStats {
        CompressedStats {
            pages: self.counters.pages.load(Relaxed),
            same_filled: self.counters.same_filled.load(Relaxed),
            incompressible: self.counters.incompressible.load(Relaxed),
            stored_bytes: self.counters.stored_bytes.load(Relaxed),
            memory_bytes: self.arena.pool().used(),
        }
    }

    /// Like [`SwapDevice::write`], but returns the pages compressed meanwhile: this page, or pages
    /// that had waited.
    pub fn write_measured(&self, slot: u32, page: &PageBytes) -> Result<Compressed, IoError> {
        let record = self.records.get(slot as usize).ok_or(IoError::Device)?;
        self.charge_record(slot)?;
        // First drop the old page, so that its room can serve the new one.
        self.exchange(slot, record, Content::Empty);
        let places = self.offload.places();
        let mut compressed = self.collect(places);
        let content = match same_filled(page) {
            Some(word) => Content::Filled(word),
            None if self.is_full() => return Err(IoError::Full),
            None if self.leave_waiting(slot, record, page, places) => return Ok(compressed),
            None => self.store(page)?,
        };
        self.exchange(slot, record, content);
        compressed.add(content);
        Ok(compressed)
    }

    /// Leaves a page for the helper, if one of this many places is free.
    fn leave_waiting(&self, slot: u32, record: &Record, page: &PageBytes, places: usize) -> bool {
        if places == 0 {
            return false;
        }
        let Some(place) = self.waiting.lock().take(slot, places) else { return false };
        // SAFETY: the place was taken just now, so that nobody else uses its page.
        unsafe { self.offload.page(place).copy_from_nonoverlapping(page, 1) };
        // Written before there can be a result, which must find the record.
        self.exchange(slot, record, Content::Waits(place));
        self.offload.hand_over(place);
        true
    }

    /// Takes finished results into the arena, if there may be some at one of this many places.
    fn collect(&self, places: usize) -> Compressed {
        if places == 0 {
            return Compressed::default();
        }
        // If the lock is taken, another thread is collecting results.
        let Some(mut waiting) = self.waiting.try_lock() else { return Compressed::default() };
        if !waiting.is_worth_a_look(places) {
            return Compressed::default();
        }
        let compressed = self.take_results(&mut waiting);
        waiting.note_look(compressed.pages);
        compressed
    }

    /// Takes finished results into the arena, as far as it has room.
    fn take_results(&self, waiting: &mut Waiting) -> Compressed {
        let mut compressed = Compressed::default();
        for (place, slot) in waiting.all() {
            let Some(len) = self.offload.finished(place) else { continue };
            let from = if len < PAGE {
                self.offload.result(place)
            } else {
                self.offload.page(place).cast()
            };
            // SAFETY: the result is there, or the page, of which each is a page long. Neither changes as
            // long as the place is taken, which the lock sees to.
            let bytes = unsafe { core::slice::from_raw_parts(from, len.min(PAGE)) };
            // Without room the page stays in its place.
            let Ok(content) = self.put(bytes) else { break };
            self.settle(waiting, slot, place, content);
            compressed.add(content);
            compressed.elsewhere += 1;
        }
        compressed
    }

    /// Gives the page that waits at a place its result, and frees the place for another.
    fn settle(&self, waiting: &mut Waiting, slot: u32, place: usize, content: Content) {
        self.replace_waiting(slot, place, content);
        waiting.give(place);
        self.offload.take_back(place);
    }

    /// Stores the result for the slot whose page waited at a place; drops it if the page was given
    /// up meanwhile.
    fn replace_waiting(&self, slot: u32, place: usize, content: Content) {
        let record = &self.records[slot as usize];
        let waited = {
            let _shard = self.shards[slot as usize % SHARDS].lock();
            let waited = matches!(record.load(), Content::Waits(at) if at == place);
            if waited {
                record.store(content);
            }
            waited
        };
        if waited {
            self.count(content, lock::add);
            self.count(Content::Waits(place), |counter, n| lock::add(counter, n.wrapping_neg()));
        } else if let Content::Stored { place, .. } = content {
            self.arena.free(place);
        }
    }

    /// Gives up the page of a slot that waits at a place.
    fn give_up(&self, slot: u32, place: usize) {
        let mut waiting = self.waiting.lock();
        // Its result may have been taken a moment ago, and the place may belong to another page.
        if waiting.has(place, slot) {
            waiting.give(place);
            self.offload.take_back(place);
        }
    }

    /// The places at which pages wait.
    pub fn waiting(&self) -> impl Iterator<Item = usize> + use<> {
        self.waiting.lock().all().map(|(place, _)| place)
    }

    /// Stores a page that does not repeat one word.
    fn store(&self, page: &PageBytes) -> Result<Content, IoError> {
        self.scratches.with(|scratch| match scratch.compress(page) {
            Some(bytes) => self.put(bytes),
            None => self.put(page),
        })
    }

    /// Keeps bytes as an object.
    fn put(&self, bytes: &[u8]) -> Result<Content, IoError> {
        let place = self.arena.allocate(bytes.len()).ok_or_else(|| {
            self.full.store(true, Relaxed);
            IoError::Full
        })?;
        // SAFETY: the place was allocated just now for this many bytes and is known to nobody else;
        // the source is a buffer of ours or of the caller's, outside of the arena.
        unsafe {
            self.arena.address(place).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Ok(Content::Stored { place, len: bytes.len() })
    }

    /// Whether it is certain without compression that a page has no room.
    fn is_full(&self) -> bool {
        self.full.load(Relaxed) && !self.arena.pool().may_have_room()
    }

    /// Charges the part of the slot table that contains `slot`, once.
    fn charge_record(&self, slot: u32) -> Result<(), IoError> {
        let page = slot as usize / RECORDS_PER_PAGE;
        let (word, bit) = (&self.touched[page / 64], 1 << (page % 64));
        if word.load(Relaxed) & bit != 0 {
            return Ok(());
        }
        if !self.arena.pool().charge_page() {
            return Err(IoError::Full);
        }
        if word.fetch_or(bit, Relaxed) & bit != 0 {
            self.arena.pool().uncharge_page();
        }
        Ok(())
    }

    fn exchange(&self, slot: u32, record: &Record, new: Content) {
        let old = {
            let _shard = self.shards[slot as usize % SHARDS].lock();
            let old = record.load();
            record.store(new);
            old
        };
        self.count(new, lock::add);
        self.count(old, |counter, n| lock::add(counter, n.wrapping_neg()));
        // Readers reach an object only through the record, under the shard's lock.
        match old {
            Content::Stored { place, .. } => {
                self.arena.free(place);
                // A write that fails meanwhile may miss this; the next freed page corrects it.
                self.full.store(false, Relaxed);
            }
            Content::Waits(place) => self.give_up(slot, place),
            Content::Empty | Content::Filled(_) => {}
        }
    }

    fn count(&self, content: Content, change: impl Fn(&AtomicU64, u64)) {
        let counters = &self.counters;
        match content {
            Content::Empty => return,
            Content::Waits(_) => {}
            Content::Filled(_) => change(&counters.same_filled, 1),
            Content::Stored { len, .. } => {
                change(&counters.stored_bytes, len as u64);
                change(&counters.incompressible, u64::from(len == PAGE));
            }
        }
        change(&counters.pages, 1);
    }
}

impl SwapDevice for CompressedRam {
    fn slots(&self) -> u32 {
        self.records.len() as u32
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        let record = self.records.get(slot as usize).ok_or(IoError::Device)?;
        let _shard = self.shards[slot as usize % SHARDS].lock();
        match record.load() {
            // Nothing was written there, so there is no right answer.
            Content::Empty => {
                self.failure.note(slot, Cause::Empty);
                Err(IoError::Device)
            }
            Content::Filled(word) => {
                page.as_chunks_mut().0.fill(word.to_ne_bytes());
                Ok(())
            }
            Content::Stored { place, len } => {
                // SAFETY: the record names the object, and whoever frees it takes the record away
                // first, under the lock held here. An object's bytes never change.
                let bytes = unsafe { core::slice::from_raw_parts(self.arena.address(place), len) };
                expand(bytes, page)
                    .inspect_err(|_| self.failure.note(slot, Cause::Undecodable(len as u32)))
            }
            Content::Waits(place) => {
                // SAFETY: the page stays at its place as long as the record says so, under the lock held
                // here.
                unsafe { self.offload.page(place).copy_to_nonoverlapping(page, 1) };
                Ok(())
            }
        }
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        self.write_measured(slot, page).map(drop)
    }

    fn prefetch(&self, slot: u32, part: Part) {
        let Some(record) = self.records.get(slot as usize) else { return };
        match part {
            Part::State => host::prefetch(record),
            Part::Content => {
                let Some(_shard) = self.shards[slot as usize % SHARDS].try_lock() else { return };
                match record.load() {
                    Content::Empty | Content::Filled(_) => {}
                    Content::Waits(place) => host::prefetch_page(self.offload.page(place).cast()),
                    Content::Stored { place, .. } => {
                        self.arena.prefetch(place);
                        // SAFETY: as in `read`.
                        host::prefetch_page(unsafe { self.arena.address(place) });
                    }
                }
            }
        }
    }

    fn discard(&self, slot: u32) {
        let Some(record) = self.records.get(slot as usize) else { return };
        let page = slot as usize / RECORDS_PER_PAGE;
        // A record that was never written is already empty: do not touch its memory.
        if self.touched[page / 64].load(Relaxed) & 1 << (page % 64) != 0 {
            self.exchange(slot, record, Content::Empty);
        }
    }
}

/// Restores a page from its stored bytes.
fn expand(bytes: &[u8], page: &mut PageBytes) -> Result<(), IoError> {
    if bytes.len() == PAGE {
        page.copy_from_slice(bytes);
        return Ok(());
    }
    let (from, len) = (bytes.as_ptr().cast(), bytes.len() as i32);
    // SAFETY: reads `len` bytes of the one slice, and writes at most a page to the other, whatever the bytes
    // are.
    let restored =
        unsafe { lz4_sys::LZ4_decompress_safe(from, page.as_mut_ptr().cast(), len, PAGE as i32) };
    if restored == PAGE as i32 { Ok(()) } else { Err(IoError::Device) }
}

/// The word that a page repeats, if it consists of one word.
fn same_filled(page: &PageBytes) -> Option<u64> {
    let (words, _) = page.as_chunks::<8>();
    // Most other pages differ at their ends, which saves the loop.
    if words[0] != words[words.len() - 1] || words[0] != words[words.len() / 2] {
        return None;
    }
    words.iter().all(|word| *word == words[0]).then(|| u64::from_ne_bytes(words[0]))
}
