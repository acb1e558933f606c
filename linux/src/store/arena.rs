//! A size-classed arena for objects of 64 to 4,096 bytes, within a budget of real memory.
//!
//! Memory is taken in *spans* of 32 KiB. A span serves one class of objects; its bookkeeping lies in
//! a table beside the data, so that finding room touches no stored page. A span whose last object
//! is freed serves any class again, and beyond a few kept warm its memory goes back to the host.
//! The shape is zsmalloc's (Linux `mm/zsmalloc.c`), with spans contiguous in virtual memory instead
//! of chained pages.
//!
//! Lock order: a class, then the pool of spans.

use super::Mutex;
use crate::host;
use crate::reserve::{ReserveError, Sparse, Table, Zeroed};
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// The bytes of a span: eight pages.
pub const SPAN: usize = 32 << 10;

/// The sizes step by this many bytes where they are small.
const STEP: usize = 64;

/// The most objects that a span can hold.
const MOST: usize = SPAN / STEP;

/// What a span costs: its memory and its line in the table.
const SPAN_COST: u64 = (SPAN + size_of::<Span>()) as u64;

/// Empty spans that keep their memory, against giving back and taking again in a row.
const WARM: u32 = 4;

/// The end of a list of spans.
const NIL: u32 = 0;

/// The sizes of the classes, descending: the largest multiples of [`STEP`] of which 8, 9, 10… fit
/// into a span, so that a full span wastes almost nothing.
const SIZES: ([usize; 64], usize) = {
    let mut sizes = [0; 64];
    let mut classes = 0;
    let mut fit = SPAN / 4096;
    while fit <= MOST {
        let size = SPAN / fit / STEP * STEP;
        if classes == 0 || sizes[classes - 1] != size {
            sizes[classes] = size;
            classes += 1;
        }
        fit += 1;
    }
    (sizes, classes)
};

const CLASSES: usize = SIZES.1;

/// How much memory may be used, shared by everything that is charged to it.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    limit: u64,
}

impl Budget {
    /// A budget of `limit` bytes, none of them used.
    pub const fn new(limit: u64) -> Self {
        Self { used: AtomicU64::new(0), limit }
    }

    /// The bytes charged now.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// The most that may be charged.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Charges `bytes`, or returns false and charges nothing where they would exceed the limit.
    #[must_use]
    pub fn charge(&self, bytes: u64) -> bool {
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    /// Takes a charge back.
    pub fn uncharge(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// Where an object lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    span: u32,
    index: u32,
}

impl Place {
    /// The place as one word.
    pub const fn to_word(self) -> u64 {
        (self.span as u64) << 32 | self.index as u64
    }

    /// The place that [`Place::to_word`] gave.
    pub const fn from_word(word: u64) -> Self {
        Self { span: (word >> 32) as u32, index: word as u32 }
    }
}

/// The bookkeeping of a span; everything but `next` while pooled is guarded by its class's lock.
#[derive(Default)]
struct Span {
    /// One bit for each object that is in use.
    taken: [AtomicU64; MOST / 64],
    /// The neighbours in the class's list of spans with room, or in the pool's list.
    next: AtomicU32,
    previous: AtomicU32,
    /// How many objects are in use.
    used: AtomicU16,
    /// The class that it serves; fixed while any object is in use.
    class: AtomicU8,
}

// SAFETY: atomics of integers only, for which zero is a value.
unsafe impl Zeroed for Span {}

/// The spans that serve no class. Span 0 is never used, so that 0 can end a list.
struct Pool {
    /// Spans below this number have been used before.
    fresh: u32,
    /// Empty spans that kept their memory, and their number.
    warm: u32,
    warm_count: u32,
    /// Empty spans whose memory was given back.
    cold: u32,
}

/// The spans whose memory is reserved together: 8 MiB.
const CHUNK: usize = 256;

struct Chunk([UnsafeCell<[u8; SPAN]>; CHUNK]);

// SAFETY: bytes, for which zero is a value.
unsafe impl Zeroed for Chunk {}
// SAFETY: an object's bytes are touched only by whoever its place was given to.
unsafe impl Sync for Chunk {}
// SAFETY: no part is bound to a thread.
unsafe impl Send for Chunk {}

/// The arena.
pub struct Arena {
    memory: Sparse<Chunk>,
    spans: Table<Span>,
    /// For each class the first span that has room.
    classes: [Mutex<u32>; CLASSES],
    pool: Mutex<Pool>,
}

impl Arena {
    /// Makes an empty arena of as many spans as `budget` can pay; addresses are reserved as they are
    /// needed.
    pub fn reserve(budget: &Budget) -> Result<Self, ReserveError> {
        let spans = usize::try_from(budget.limit() / SPAN_COST).unwrap_or(usize::MAX / SPAN);
        let spans = spans.min(u32::MAX as usize - 1) + 1;
        Ok(Self {
            memory: Sparse::new(spans.div_ceil(CHUNK))?,
            spans: Table::new(spans)?,
            classes: [const { Mutex::new(NIL) }; CLASSES],
            pool: Mutex::new(Pool { fresh: 1, warm: NIL, warm_count: 0, cold: NIL }),
        })
    }

    /// Finds room for an object of `len` bytes, at most 4,096; `None` where the budget is used up.
    pub fn allocate(&self, len: usize, budget: &Budget) -> Option<Place> {
        let best = class_of(len);
        if let Some(place) = self.allocate_in(best) {
            return Some(place);
        }
        if let Some(span) = self.take_span(budget) {
            return Some(self.open_span(span, best));
        }
        // Nothing left to take: the next larger class with room wastes less than refusing does.
        (0..=best).rev().find_map(|class| self.allocate_in(class))
    }

    /// Gives an object's room back.
    ///
    /// `place` must be one that [`Arena::allocate`] gave and that was not freed since; a stray one
    /// is ignored.
    pub fn free(&self, place: Place, budget: &Budget) {
        let Some(span) = self.spans.get(place.span as usize) else { return };
        let class = usize::from(span.class.load(Relaxed));
        let Some(head) = self.classes.get(class) else { return };
        let mut head = head.lock();
        let (word, bit) = (place.index as usize / 64, 1 << (place.index % 64));
        let Some(taken) = span.taken.get(word) else { return };
        if taken.fetch_and(!bit, Relaxed) & bit == 0 {
            return;
        }
        let used = span.used.load(Relaxed) - 1;
        span.used.store(used, Relaxed);
        if usize::from(used) + 1 == per_span(class) {
            self.link(&mut head, place.span);
        }
        if used == 0 {
            self.unlink(&mut head, place.span);
            self.return_span(place.span, budget);
        }
    }

    /// The first byte of an object's room.
    ///
    /// # Safety
    /// `place` was given by [`Arena::allocate`] and has not been freed.
    pub unsafe fn address(&self, place: Place) -> *mut u8 {
        let span = &self.spans[place.span as usize];
        let size = SIZES.0[usize::from(span.class.load(Relaxed))];
        // SAFETY: an index that was allocated is below the number of objects that fit into a span.
        unsafe { self.span_memory(place.span).add(place.index as usize * size) }
    }

    /// The memory of a span that was taken before.
    fn span_memory(&self, number: u32) -> *mut u8 {
        match self.memory.get(number as usize / CHUNK) {
            Some(chunk) => chunk.0[number as usize % CHUNK].get().cast(),
            None => unreachable!("span {number} was never taken"),
        }
    }

    /// Takes an object from a span of `class` that has room.
    fn allocate_in(&self, class: usize) -> Option<Place> {
        let mut head = self.classes[class].lock();
        (*head != NIL).then(|| self.take_object(&mut head, class))
    }

    /// Makes an empty span serve `class` and takes its first object.
    fn open_span(&self, number: u32, class: usize) -> Place {
        let mut head = self.classes[class].lock();
        self.spans[number as usize].class.store(class as u8, Relaxed);
        self.link(&mut head, number);
        self.take_object(&mut head, class)
    }

    /// Takes an object from the first span of a list that is not empty.
    fn take_object(&self, head: &mut u32, class: usize) -> Place {
        let number = *head;
        let span = &self.spans[number as usize];
        let limit = per_span(class);
        // A span in the list has room, so that a clear bit below the limit is found.
        let index = (0..limit.div_ceil(64))
            .find_map(|word| {
                let free = (!span.taken[word].load(Relaxed)).trailing_zeros() as usize;
                (free < 64).then_some(word * 64 + free)
            })
            .unwrap_or(limit - 1);
        span.taken[index / 64].fetch_or(1 << (index % 64), Relaxed);
        let used = span.used.load(Relaxed) + 1;
        span.used.store(used, Relaxed);
        if usize::from(used) == limit {
            self.unlink(head, number);
        }
        Place { span: number, index: index as u32 }
    }

    /// Puts a span at the front of its class's list.
    fn link(&self, head: &mut u32, number: u32) {
        let span = &self.spans[number as usize];
        span.next.store(*head, Relaxed);
        span.previous.store(NIL, Relaxed);
        if *head != NIL {
            self.spans[*head as usize].previous.store(number, Relaxed);
        }
        *head = number;
    }

    /// Takes a span out of its class's list.
    fn unlink(&self, head: &mut u32, number: u32) {
        let span = &self.spans[number as usize];
        let (next, previous) = (span.next.load(Relaxed), span.previous.load(Relaxed));
        match previous {
            NIL => *head = next,
            _ => self.spans[previous as usize].next.store(next, Relaxed),
        }
        if next != NIL {
            self.spans[next as usize].previous.store(previous, Relaxed);
        }
    }

    /// Takes an empty span: one that still has its memory, or one that is charged anew.
    fn take_span(&self, budget: &Budget) -> Option<u32> {
        let mut pool = self.pool.lock();
        if pool.warm != NIL {
            let number = pool.warm;
            pool.warm = self.spans[number as usize].next.load(Relaxed);
            pool.warm_count -= 1;
            return Some(number);
        }
        let fresh = pool.fresh as usize;
        // Where the host refuses addresses there is no room, as where the budget is used up.
        let known = pool.cold != NIL
            || fresh < self.spans.len() && self.memory.get_or_reserve(fresh / CHUNK).is_ok();
        if !known || !budget.charge(SPAN_COST) {
            return None;
        }
        if pool.cold == NIL {
            pool.fresh += 1;
            return Some(pool.fresh - 1);
        }
        let number = pool.cold;
        pool.cold = self.spans[number as usize].next.load(Relaxed);
        Some(number)
    }

    /// Takes an empty span back, and beyond [`WARM`] of them gives its memory to the host.
    fn return_span(&self, number: u32, budget: &Budget) {
        let mut pool = self.pool.lock();
        let span = &self.spans[number as usize];
        if pool.warm_count < WARM {
            span.next.store(pool.warm, Relaxed);
            pool.warm = number;
            pool.warm_count += 1;
            return;
        }
        let start = self.span_memory(number) as u64;
        // If the host refuses, the memory merely stays.
        // SAFETY: the span holds no object and is in no list, so that nobody uses its bytes; the
        // pool's lock keeps it from being taken meanwhile.
        let _ = unsafe { host::discard(start..start + SPAN as u64) };
        budget.uncharge(SPAN_COST);
        span.next.store(pool.cold, Relaxed);
        pool.cold = number;
    }
}

/// The smallest class whose objects hold `len` bytes; the largest class for more than a page.
pub(super) fn class_of(len: usize) -> usize {
    SIZES.0[..CLASSES].partition_point(|size| *size >= len).saturating_sub(1)
}

/// How many objects of a class a span holds.
const fn per_span(class: usize) -> usize {
    SPAN / SIZES.0[class]
}
