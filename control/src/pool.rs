//! The compressed memory of the tree: one pool, cut into spans.
//!
//! A span's word says how many processes hold it, 0 for a free one, and which area it was charged to.
//! Only a sole holder puts objects into a span. A fork makes the child hold what its parent holds:
//! both go on reading there, and each puts new objects elsewhere until it is alone again. The last
//! holder that lets a span go gives its memory back.
//!
//! Each process has a *column* of bits, one for each span that it holds. The keeper reads the column
//! of a process that is gone and lets its spans go. Nothing here is a lock. Whoever is killed between
//! two steps leaves a span charged that nobody holds, never one that two believe to have alone.

use crate::MOST_AREAS;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// The bytes of a span.
pub const SPAN: u64 = 32 << 10;

/// In a span's word: how many processes hold it.
const HOLDERS: u32 = 0xffff;
/// In a span's word: its memory is being given back.
const ENDING: u32 = 1 << 31;
/// Where the number of its area is.
const AREA: u32 = 16;

/// What each area's part of the pool uses, in bytes.
#[derive(Default)]
#[repr(C)]
pub struct PoolUse {
    used: [AtomicU64; MOST_AREAS],
    peak: AtomicU64,
}

impl PoolUse {
    /// The bytes that an area uses now.
    pub fn used(&self, area: usize) -> u64 {
        self.used.get(area).map_or(0, |used| used.load(Relaxed))
    }

    /// The most bytes that were in use at once, over all areas.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Charges an area with a span, unless it would then have more than `limit` bytes.
    pub fn charge(&self, area: usize, limit: u64) -> bool {
        self.charge_bytes(area, SPAN, limit)
    }

    /// Charges an area with so many bytes, unless it would then have more than `limit`.
    pub fn charge_bytes(&self, area: usize, bytes: u64, limit: u64) -> bool {
        let Some(used) = self.used.get(area) else { return false };
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        if used.fetch_update(Relaxed, Relaxed, more).is_err() {
            return false;
        }
        let all = self.used.iter().map(|used| used.load(Relaxed)).sum();
        self.peak.fetch_max(all, Relaxed);
        true
    }

    /// Takes back the charge for a span.
    pub fn uncharge(&self, area: usize) {
        self.uncharge_bytes(area, SPAN);
    }

    /// Takes back the charge for so many bytes.
    pub fn uncharge_bytes(&self, area: usize, bytes: u64) {
        let Some(used) = self.used.get(area) else { return };
        let less = |used: u64| used.checked_sub(bytes);
        let _ = used.fetch_update(Relaxed, Relaxed, less);
    }
}

/// What became of a span that a process let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Others hold it.
    ToOthers,
    /// It was the last: the caller gives the memory back and then says so by [`Spans::end`]. The span
    /// is charged to this area.
    ToNobody {
        /// The number of the area.
        area: usize,
    },
}

/// The words of all spans, mapped.
#[derive(Clone, Copy)]
pub struct Spans<'a> {
    words: &'a [AtomicU32],
}

impl<'a> Spans<'a> {
    /// The spans whose words are these.
    pub const fn new(words: &'a [AtomicU32]) -> Self {
        Self { words }
    }

    /// Takes a free span for an area; looks for one from `hint` on.
    pub fn take(&self, area: usize, hint: &AtomicU32) -> Option<u32> {
        let (count, from) = (self.words.len() as u32, hint.load(Relaxed));
        let held = 1 | (area as u32) << AREA;
        let mut spans = (0..count).map(|step| (from + step) % count);
        let found = spans.find(|span| {
            let word = &self.words[*span as usize];
            word.load(Relaxed) == 0 && word.compare_exchange(0, held, AcqRel, Relaxed).is_ok()
        })?;
        hint.store(found + 1, Relaxed);
        Some(found)
    }

    /// Makes one more process hold a span. The caller holds it.
    pub fn join(&self, span: u32) {
        if let Some(word) = self.words.get(span as usize) {
            word.fetch_add(1, AcqRel);
        }
    }

    /// Whether nobody but the caller, who holds it, holds a span.
    pub fn is_sole(&self, span: u32) -> bool {
        self.words.get(span as usize).is_some_and(|word| word.load(Acquire) & HOLDERS == 1)
    }

    /// Lets a span go.
    pub fn leave(&self, span: u32) -> Left {
        let Some(word) = self.words.get(span as usize) else { return Left::ToOthers };
        let less = |word: u32| match word & HOLDERS {
            0 => None,
            1 => Some(word | ENDING),
            _ => Some(word - 1),
        };
        match word.fetch_update(AcqRel, Acquire, less) {
            Ok(was) if was & HOLDERS == 1 => {
                Left::ToNobody { area: (was & !ENDING) as usize >> AREA }
            }
            _ => Left::ToOthers,
        }
    }

    /// Makes a span free whose memory was given back.
    pub fn end(&self, span: u32) {
        if let Some(word) = self.words.get(span as usize) {
            word.store(0, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<const N: usize>() -> [AtomicU32; N] {
        [const { AtomicU32::new(0) }; N]
    }

    #[test]
    fn a_span_is_free_again_when_the_last_holder_has_let_it_go() {
        let (words, hint) = (words::<3>(), AtomicU32::new(0));
        let spans = Spans::new(&words);
        let all: [_; 3] = core::array::from_fn(|area| spans.take(area, &hint).unwrap());
        assert_eq!(spans.take(0, &hint), None);
        assert!(spans.is_sole(all[2]));

        spans.join(all[2]);
        assert!(!spans.is_sole(all[2]));
        assert_eq!(spans.leave(all[2]), Left::ToOthers);
        assert!(spans.is_sole(all[2]));
        assert_eq!(spans.leave(all[2]), Left::ToNobody { area: 2 });
        // Until its memory is given back nobody may have it.
        assert_eq!(spans.take(0, &hint), None);
        spans.end(all[2]);
        assert_eq!(spans.take(1, &hint), Some(all[2]));
    }

    #[test]
    fn who_was_killed_while_giving_memory_back_is_followed_by_another() {
        let (words, hint) = (words::<1>(), AtomicU32::new(0));
        let spans = Spans::new(&words);
        spans.take(5, &hint).unwrap();
        assert_eq!(spans.leave(0), Left::ToNobody { area: 5 });
        assert_eq!(spans.leave(0), Left::ToNobody { area: 5 });
        spans.end(0);
        // One too many takes nothing from anybody.
        assert_eq!(spans.leave(0), Left::ToOthers);
        assert_eq!(spans.take(0, &hint), Some(0));
    }

    #[test]
    fn an_area_is_charged_up_to_its_limit() {
        let pool = PoolUse::default();
        assert!(pool.charge(0, 2 * SPAN));
        assert!(pool.charge(0, 2 * SPAN));
        assert!(!pool.charge(0, 2 * SPAN));
        assert!(pool.charge(1, SPAN));
        pool.uncharge(0);
        assert!(pool.charge(0, 2 * SPAN));
        assert_eq!((pool.used(0), pool.used(1), pool.peak()), (2 * SPAN, SPAN, 3 * SPAN));
        assert!(!pool.charge(MOST_AREAS, u64::MAX));
    }
}
