//! A size-classed arena for objects of 64 to 4,096 bytes, within a budget of real memory.
//!
//! The arena takes memory in *spans* of 32 KiB from a [`Pool`]. A span serves one class of objects.
//! Its bookkeeping is in a table beside the data, so that finding room touches no stored page. A
//! span whose last object is freed can serve any class again; beyond a few warm ones it goes back
//! to the pool. The shape is zsmalloc's (Linux `mm/zsmalloc.c`), with spans contiguous in virtual
//! memory instead of chained pages.
//!
//! Processes may share a pool. After a fork both sides hold the parent's spans. They read there and
//! free there, each in its own bookkeeping. But a new object goes only into a span that no other
//! process holds, because room that is free here may be in use there. Spans with room that others
//! hold are *shelved* until this process is their sole holder again.
//!
//! Lock order: a class, then the warm spans, then the pool's own.

use super::Mutex;
use super::pool::{Pool, SPAN};
use crate::host;
use crate::reserve::{ReserveError, Table, Zeroed};
use alloc::boxed::Box;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// The step of the small sizes, in bytes.
const STEP: usize = 64;

/// The most objects that a span can hold.
const MOST: usize = SPAN / STEP;

/// How many empty spans keep their memory, to avoid giving back and taking again in turn.
const WARM: u32 = 4;

/// How many shelved spans to check before taking a fresh one.
const LOOKS: usize = 64;

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

/// The place of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    span: u32,
    index: u16,
    /// The class that the span serves as long as the object is there: so the address can be told without the
    /// span's line in the table.
    class: u16,
}

impl Place {
    /// The place as one word.
    pub const fn to_word(self) -> u64 {
        (self.span as u64) << 32 | (self.class as u64) << 16 | self.index as u64
    }

    /// The place that [`Place::to_word`] gave.
    pub const fn from_word(word: u64) -> Self {
        Self { span: (word >> 32) as u32, index: word as u16, class: (word >> 16) as u16 }
    }
}

/// The bookkeeping of a span; everything but `next` while warm is guarded by its class's lock.
#[derive(Default)]
struct Span {
    /// One bit for each object that is in use.
    taken: [AtomicU64; MOST / 64],
    /// The neighbours in one of the class's lists, or in that of warm spans.
    next: AtomicU32,
    previous: AtomicU32,
    /// The number of objects in use.
    used: AtomicU16,
    /// The class that it serves; fixed while any object is in use.
    class: AtomicU8,
}

// SAFETY: atomics of integers only, for which zero is a value.
unsafe impl Zeroed for Span {}

/// The spans of a class that have room: the first of each list.
struct Class {
    /// No other process holds these.
    room: u32,
    /// At their last check, other processes held these too.
    shelf: u32,
}

impl Class {
    const EMPTY: Self = Self { room: NIL, shelf: NIL };
}

/// Empty spans that are still taken from the pool: the first, and how many.
struct Warm {
    first: u32,
    count: u32,
}

/// The arena.
pub struct Arena {
    pool: Box<dyn Pool>,
    /// By the number of the span in the pool plus one, so that 0 can end a list.
    spans: Table<Span>,
    classes: [Mutex<Class>; CLASSES],
    warm: Mutex<Warm>,
}

impl Arena {
    /// Makes an empty arena of the spans of a pool.
    pub fn over(pool: Box<dyn Pool>) -> Result<Self, ReserveError> {
        Ok(Self {
            spans: Table::new(pool.spans() as usize + 1)?,
            pool,
            classes: [const { Mutex::new(Class::EMPTY) }; CLASSES],
            warm: Mutex::new(Warm { first: NIL, count: 0 }),
        })
    }

    /// The source of the spans.
    pub fn pool(&self) -> &dyn Pool {
        &*self.pool
    }

    /// Prepares for a process fork, while no other call runs: from now on parent and child may hold
    /// the same spans. Call this before the pool notes the child's spans.
    pub fn before_fork(&self) {
        let mut warm = self.warm.lock();
        while warm.first != NIL {
            let span = warm.first;
            warm.first = self.span(span).next.load(Relaxed);
            self.pool.give(span - 1);
        }
        warm.count = 0;
        for class in &self.classes {
            let mut class = class.lock();
            while class.room != NIL {
                let span = class.room;
                self.unlink(&mut class, span);
                self.link(&mut class.shelf, span);
            }
        }
    }

    /// Finds room for an object of `len` bytes, at most 4,096; `None` if the pool is used up.
    pub fn allocate(&self, len: usize) -> Option<Place> {
        let best = class_of(len);
        if let Some(place) = self.allocate_in(best) {
            return Some(place);
        }
        if let Some(span) = self.take_span() {
            return Some(self.open_span(span, best));
        }
        // No span is left: the next larger class with room is better than a refusal.
        (0..=best).rev().find_map(|class| self.allocate_in(class))
    }

    /// Gives an object's room back.
    ///
    /// `place` must be one that [`Arena::allocate`] gave and that was not freed since; a stray one
    /// is ignored.
    pub fn free(&self, place: Place) {
        let Some(span) = self.spans.get(place.span as usize) else { return };
        let number = usize::from(span.class.load(Relaxed));
        let Some(class) = self.classes.get(number) else { return };
        let mut class = class.lock();
        let (word, bit) = (place.index as usize / 64, 1 << (place.index % 64));
        let Some(taken) = span.taken.get(word) else { return };
        let before = taken.load(Relaxed);
        if before & bit == 0 {
            return;
        }
        // Changed only under the lock of the span's class.
        taken.store(before & !bit, Relaxed);
        let used = span.used.load(Relaxed) - 1;
        span.used.store(used, Relaxed);
        let sole = self.pool.is_sole(place.span - 1);
        if usize::from(used) + 1 == per_span(number) {
            let Class { room, shelf } = &mut *class;
            self.link(if sole { room } else { shelf }, place.span);
        }
        if used == 0 {
            self.unlink(&mut class, place.span);
            match sole {
                true => self.keep_warm(place.span),
                false => self.pool.give(place.span - 1),
            }
        }
    }

    /// The first byte of an object's room.
    ///
    /// # Safety
    /// `place` was given by [`Arena::allocate`] and has not been freed.
    pub unsafe fn address(&self, place: Place) -> *mut u8 {
        let size = SIZES.0[usize::from(place.class)];
        // SAFETY: an index that was allocated is below the number of objects that fit into a span,
        // and the span is held as long as an object in it is allocated.
        unsafe { self.pool.memory(place.span - 1).add(place.index as usize * size) }
    }

    /// Begins to load the bookkeeping of an object's span, which is needed when the object is freed.
    pub fn prefetch(&self, place: Place) {
        host::prefetch(self.span(place.span));
    }

    fn span(&self, number: u32) -> &Span {
        &self.spans[number as usize]
    }

    /// Takes an object from a span of a class that has room.
    fn allocate_in(&self, number: usize) -> Option<Place> {
        let mut class = self.classes[number].lock();
        if class.room == NIL {
            self.unshelve(&mut class);
        }
        (class.room != NIL).then(|| self.take_object(&mut class, number))
    }

    /// Puts back the first shelved span that no other process holds any more.
    fn unshelve(&self, class: &mut Class) {
        let mut next = class.shelf;
        for _ in 0..LOOKS {
            if next == NIL {
                return;
            }
            let span = next;
            if self.pool.is_sole(span - 1) {
                self.unlink(class, span);
                self.link(&mut class.room, span);
                return;
            }
            next = self.span(span).next.load(Relaxed);
        }
    }

    /// Makes an empty span serve a class and takes its first object.
    fn open_span(&self, span: u32, number: usize) -> Place {
        let mut class = self.classes[number].lock();
        self.span(span).class.store(number as u8, Relaxed);
        self.link(&mut class.room, span);
        self.take_object(&mut class, number)
    }

    /// Takes an object from the first span that has room; there is one.
    fn take_object(&self, class: &mut Class, number: usize) -> Place {
        let first = class.room;
        let span = self.span(first);
        let limit = per_span(number);
        // A span in the list has room, so that a clear bit below the limit is found.
        let index = (0..limit.div_ceil(64))
            .find_map(|word| {
                let free = (!span.taken[word].load(Relaxed)).trailing_zeros() as usize;
                (free < 64).then_some(word * 64 + free)
            })
            .unwrap_or(limit - 1);
        let word = &span.taken[index / 64];
        word.store(word.load(Relaxed) | 1 << (index % 64), Relaxed);
        let used = span.used.load(Relaxed) + 1;
        span.used.store(used, Relaxed);
        if usize::from(used) == limit {
            self.unlink(class, first);
        }
        Place { span: first, index: index as u16, class: number as u16 }
    }

    /// Puts a span at the front of a list.
    fn link(&self, head: &mut u32, number: u32) {
        let span = self.span(number);
        span.next.store(*head, Relaxed);
        span.previous.store(NIL, Relaxed);
        if *head != NIL {
            self.span(*head).previous.store(number, Relaxed);
        }
        *head = number;
    }

    /// Takes a span out of the list of its class that it is in.
    fn unlink(&self, class: &mut Class, number: u32) {
        let span = self.span(number);
        let (next, previous) = (span.next.load(Relaxed), span.previous.load(Relaxed));
        match previous {
            NIL if class.room == number => class.room = next,
            NIL => class.shelf = next,
            _ => self.span(previous).next.store(next, Relaxed),
        }
        if next != NIL {
            self.span(next).previous.store(previous, Relaxed);
        }
    }

    /// Takes an empty span: a warm one, or one of the pool's.
    fn take_span(&self) -> Option<u32> {
        let mut warm = self.warm.lock();
        if warm.first == NIL {
            return self.pool.take().map(|span| span + 1);
        }
        let number = warm.first;
        warm.first = self.span(number).next.load(Relaxed);
        warm.count -= 1;
        Some(number)
    }

    /// Keeps an empty span that no other process holds; beyond [`WARM`] of them gives it to the pool.
    fn keep_warm(&self, number: u32) {
        let mut warm = self.warm.lock();
        if warm.count == WARM {
            drop(warm);
            self.pool.give(number - 1);
            return;
        }
        self.span(number).next.store(warm.first, Relaxed);
        warm.first = number;
        warm.count += 1;
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
