//! Parked pages: the manager's own memory for unmapped content.
//!
//! An unused buffer is *warm* if it has memory, and *bare* if it has none. Pages that leave together should be in
//! neighbouring buffers, and so should pages that come together: one call [moves](crate::moves) them. So warm buffers
//! are taken one after the other from a run. Bare ones are taken like the segments of a log, by a hand that goes round:
//! there are many more than are in use, and pages leave in the order in which they came, so it finds runs.

use crate::deliver::stop;
use crate::host::PAGE;
use crate::lock::SoleMutex;
use crate::reserve::{ReserveError, Sparse, Table, Zeroed};
use crate::sweep::{Ranges, Sweep};
use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use lock_api::RawMutex;
use pagefault_machine::machine::Page;

/// How many buffers there are beyond one a frame: each thread that copies a frame needs one more.
const SPARE: u32 = 1024;
/// How many unused buffers may stay resident.
pub const WARM: u32 = 64;
/// How many of them go back to the host at once when there are more.
const COOLED: usize = 32;
/// With fewer warm buffers than this, short runs of pages on their way out are moved and not copied.
const FEW: usize = 32;
/// Longer ones are moved in any case: the flush costs less than the copies.
const WORTH: usize = 4;
/// The hand goes round at least this many buffers, and this many times those that are resident.
const ROUND: u32 = 1024;
const SPREAD: u32 = 8;
/// How many runs the hand looks at for a longer one.
const LOOKS: usize = 8;

/// The buffers that are reserved together: 8 MiB.
const CHUNK: usize = 2048;

#[repr(C)]
struct Chunk {
    pages: UnsafeCell<[[u8; PAGE]; CHUNK]>,
    /// Whether pages can be moved into it.
    target: AtomicU8,
}

// SAFETY: bytes and atomics, valid when zero.
unsafe impl Zeroed for Chunk {}
// SAFETY: a buffer's bytes are touched only by whoever took it, the rest is atomics.
unsafe impl Sync for Chunk {}

/// Not tried yet whether the host lets pages be moved into a chunk; it does; it does not.
const UNTRIED: u8 = 0;
const OPEN: u8 = 1;
const REFUSED: u8 = 2;

/// All buffers of a machine.
pub struct Buffers {
    chunks: Sparse<Chunk>,
    count: u32,
    /// A bit for each buffer: it is not bare. Changed under the lock.
    filled: Table<AtomicU64>,
    lock: SoleMutex,
    lists: UnsafeCell<Lists>,
    /// Buffers in use or warm: pages of the host's memory.
    resident: AtomicU32,
}

struct Lists {
    /// Unused buffers whose memory is resident.
    warm: Ordered<{ WARM as usize + 1 }>,
    /// The warm one taken last.
    last: u32,
    /// Where the search for bare ones goes on.
    hand: u32,
}

/// A few buffers, the highest first.
struct Ordered<const N: usize> {
    slots: [u32; N],
    len: usize,
    /// How many more times not to look for a run: the last look found none.
    pause: u8,
}

/// How many buffers are taken without a look after one in vain. Random accesses leave no runs, and a look at
/// each took a fifth of a fault's instructions.
const PAUSE: u8 = 31;

impl<const N: usize> Ordered<N> {
    const EMPTY: Self = Self { slots: [0; N], len: 0, pause: 0 };

    const fn is_full(&self) -> bool {
        self.len == N
    }

    /// There must be room.
    fn insert(&mut self, slot: u32) {
        let mut at = self.len;
        while at > 0 && self.slots[at - 1] < slot {
            self.slots[at] = self.slots[at - 1];
            at -= 1;
        }
        self.slots[at] = slot;
        self.len += 1;
    }

    /// Takes the neighbour that follows `last`, or else the first one of the longest run.
    fn take_after(&mut self, last: u32) -> Option<u32> {
        let above = self.slots[..self.len].partition_point(|slot| *slot > last);
        let at = match above.checked_sub(1) {
            Some(at) if self.slots[at] == last + 1 => at,
            _ => self.begin_run()?,
        };
        let slot = self.slots[at];
        self.slots.copy_within(at + 1..self.len, at);
        self.len -= 1;
        Some(slot)
    }

    /// Where to begin: at the lowest of the longest run, or of all if there was no run a moment ago.
    fn begin_run(&mut self) -> Option<usize> {
        if self.pause > 0 && self.len > 0 {
            self.pause -= 1;
            return Some(self.len - 1);
        }
        let run = self.find_run()?;
        self.pause = if run.len() == 1 { PAUSE } else { 0 };
        Some(run.end - 1)
    }

    /// Takes so many that the longest runs stay. There must be more.
    #[cold]
    fn take_scattered<const C: usize>(&mut self) -> [u32; C] {
        let mut taken = [0; C];
        let mut count = 0;
        for len in 1.. {
            let mut start = 0;
            while start < self.len && count < C {
                let end = self.run_end(start);
                let take = if end - start > len { 0 } else { (end - start).min(C - count) };
                taken[count..count + take].copy_from_slice(&self.slots[start..start + take]);
                self.slots.copy_within(start + take..self.len, start);
                self.len -= take;
                count += take;
                start = end - take;
            }
            if count == C {
                break;
            }
        }
        taken
    }

    /// Where the run ends that begins at an index.
    fn run_end(&self, start: usize) -> usize {
        let follows = |at: &usize| are_neighbours(self.slots[*at], self.slots[*at - 1]);
        (start + 1..self.len).take_while(follows).last().map_or(start + 1, |last| last + 1)
    }

    /// Where the lowest of the longest runs is.
    fn find_run(&self) -> Option<Range<usize>> {
        let mut best = 0..0;
        let mut start = 0;
        while start < self.len {
            let end = self.run_end(start);
            if end - start >= best.len() {
                best = start..end;
            }
            start = end;
        }
        (!best.is_empty()).then_some(best)
    }
}

/// Whether the second buffer follows the first one in memory.
pub const fn are_neighbours(one: u32, next: u32) -> bool {
    next == one + 1 && next as usize / CHUNK == one as usize / CHUNK
}

// SAFETY: `lists` is touched only under `lock`; the rest is shared by design.
unsafe impl Sync for Buffers {}
// SAFETY: no part is bound to a thread.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Buffers for `frames` frames.
    pub fn new(frames: u32) -> Result<Self, ReserveError> {
        let count = frames.saturating_add(SPARE);
        Ok(Self {
            chunks: Sparse::new((count as usize).div_ceil(CHUNK))?,
            count,
            filled: Table::new((count as usize).div_ceil(64))?,
            lock: SoleMutex::INIT,
            lists: UnsafeCell::new(Lists { warm: Ordered::EMPTY, last: 0, hand: 0 }),
            resident: AtomicU32::new(0),
        })
    }

    /// Roughly how many pages of host memory the buffers hold.
    pub fn resident(&self) -> u32 {
        self.resident.load(Relaxed)
    }

    /// Takes a buffer with undefined content. If all are taken, more threads are copying than there
    /// are spare buffers: waits for one of them.
    pub fn take(&self) -> u32 {
        loop {
            if let Some(slot) = self.with_lists(|lists| self.pop(lists)) {
                return slot;
            }
            rustix::thread::sched_yield();
        }
    }

    /// Gives a buffer back.
    pub fn give(&self, slot: u32, sweep: &Sweep) {
        let cooled = self.with_lists(|lists| {
            lists.warm.insert(slot);
            lists.warm.is_full().then(|| lists.warm.take_scattered::<COOLED>())
        });
        if let Some(cooled) = cooled {
            self.give_back(cooled, sweep);
        }
    }

    /// Takes at most `most` neighbouring buffers without memory, into which the caller moves pages. `None`: there are
    /// none, or the memory of warm buffers should be used first.
    pub fn take_bare(&self, most: usize) -> Option<Range<u32>> {
        let few = match most {
            1 => 1,
            2..WORTH => FEW,
            _ => usize::MAX,
        };
        self.with_lists(|lists| match lists.warm.len < few {
            true => self.find_bare(lists, most),
            false => None,
        })
    }

    /// Gives back buffers whose pages were moved away, or into which none was moved.
    pub fn give_bare(&self, slots: Range<u32>) {
        self.with_lists(|_| slots.for_each(|slot| self.set_bare(slot)));
    }

    /// Takes the next run of bare buffers.
    fn find_bare(&self, lists: &mut Lists, most: usize) -> Option<Range<u32>> {
        let most = most.min(64) as u32;
        let round = self.resident().saturating_mul(SPREAD).max(ROUND).min(self.count);
        let run = self.search(lists.hand..round, most);
        let run = run.or_else(|| self.search(0..round, most));
        let run = run.or_else(|| self.search(round..self.count, most))?;
        if self.chunks.get_or_reserve(run.start as usize / CHUNK).is_err() {
            stop("pagefault: the host refuses address space for pages on their way out\n");
        }
        let mask = (u64::MAX >> (64 - run.len())) << (run.start % 64);
        let word = &self.filled[run.start as usize / 64];
        word.store(word.load(Relaxed) | mask, Relaxed);
        self.resident.fetch_add(run.len() as u32, Relaxed);
        lists.hand = run.end;
        Some(run)
    }

    /// The first run of `most` bare buffers that begins in a range, or the best one within a few looks.
    fn search(&self, range: Range<u32>, most: u32) -> Option<Range<u32>> {
        let (mut best, mut from, mut looks) = (0..0, range.start, 0);
        while from < range.end && best.len() < most as usize && (looks < LOOKS || best.is_empty()) {
            let run = self.bare_run(from, most);
            from = if run.is_empty() { from / 64 * 64 + 64 } else { run.end };
            looks += 1;
            if run.len() > best.len() {
                best = run;
            }
        }
        (!best.is_empty()).then_some(best)
    }

    /// The first run of bare buffers in the word of `from` and not before it, of at most `most`.
    fn bare_run(&self, from: u32, most: u32) -> Range<u32> {
        let Some(word) = self.filled.get(from as usize / 64) else { return from..from };
        let first = from / 64 * 64;
        // Those before `from`, and those that do not exist.
        let before = (1 << (from % 64)) - 1;
        let behind = u64::MAX.checked_shl(self.count - first).unwrap_or(0);
        let filled = word.load(Relaxed) | before | behind;
        let start = (!filled).trailing_zeros();
        let len = filled.checked_shr(start).map_or(0, |rest| rest.trailing_zeros().min(64 - start));
        first + start..first + start + len.min(most)
    }

    fn set_bare(&self, slot: u32) {
        let word = &self.filled[slot as usize / 64];
        word.store(word.load(Relaxed) & !(1 << (slot % 64)), Relaxed);
        self.resident.fetch_sub(1, Relaxed);
    }

    /// Whether pages can be moved into a buffer. Asks `register` the first time, for the addresses of its neighbours
    /// too.
    pub fn is_target(&self, slot: u32, register: impl FnOnce(Range<u64>) -> bool) -> bool {
        let chunk = self.chunk(slot);
        match chunk.target.load(Relaxed) {
            UNTRIED => {
                let start = chunk.pages.get() as u64;
                let is_open = register(start..start + (CHUNK * PAGE) as u64);
                chunk.target.store(if is_open { OPEN } else { REFUSED }, Relaxed);
                is_open
            }
            target => target == OPEN,
        }
    }

    /// Forgets what the host said: a forked child has another descriptor.
    pub fn forget_targets(&self) {
        let all = 0..(self.count as usize).div_ceil(CHUNK);
        let chunks = all.filter_map(|index| self.chunks.get(index));
        chunks.for_each(|chunk| chunk.target.store(UNTRIED, Relaxed));
    }

    /// The address of a buffer's page, which is valid until the buffer is given back.
    pub fn page(&self, slot: u32) -> *mut Page {
        let pages = self.chunk(slot).pages.get().cast::<Page>();
        // SAFETY: within the chunk's array of pages.
        unsafe { pages.add(slot as usize % CHUNK) }
    }

    /// Gives the memory of unused buffers back to the host.
    #[cold]
    fn give_back(&self, mut slots: [u32; COOLED], sweep: &Sweep) {
        slots.sort_unstable();
        let mut ranges = Ranges::new();
        for slot in slots {
            ranges.push(self.page(slot) as u64);
        }
        // If the host refuses, the pages merely stay resident.
        // SAFETY: the buffers are unused and in neither list, so nobody refers to them.
        let _ = unsafe { sweep.drop_pages(&ranges) };
        self.with_lists(|_| slots.into_iter().for_each(|slot| self.set_bare(slot)));
    }

    fn pop(&self, lists: &mut Lists) -> Option<u32> {
        let slot = match lists.warm.take_after(lists.last) {
            Some(slot) => slot,
            None => self.find_bare(lists, 1)?.start,
        };
        lists.last = slot;
        Some(slot)
    }

    /// The chunk of a buffer that was handed out.
    fn chunk(&self, slot: u32) -> &Chunk {
        match self.chunks.get(slot as usize / CHUNK) {
            Some(chunk) => chunk,
            None => unreachable!("buffer {slot} was never handed out"),
        }
    }

    fn with_lists<R>(&self, f: impl FnOnce(&mut Lists) -> R) -> R {
        self.lock.lock();
        // SAFETY: the lock is held, and `f` does not take it again.
        let result = f(unsafe { &mut *self.lists.get() });
        // SAFETY: locked above.
        unsafe { self.lock.unlock() };
        result
    }
}

#[cfg(test)]
mod tests;
