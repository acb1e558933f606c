//! Spans: the parts that the compressed memory of the tree and its swap files are cut into.
//!
//! A span's word says how many processes hold it, 0 for a free one, and which area it was charged to.
//! Only a sole holder writes to a span. A fork makes the child hold its parent's spans: both go on
//! reading there, and each writes to other spans until it is a sole holder again. The last holder
//! that releases a span gives its memory, or its blocks, back.
//!
//! Each process has a *column* of bits, one for each span that it holds. The supervisor reads the
//! column of an ended process and releases its spans. Nothing here is a lock. A process that is
//! killed between two steps may leave a span without a holder that stays unused, never one with two
//! sole holders. The tests try all orders of the steps, with a kill at each.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

#[cfg(not(test))]
pub use core::sync::atomic::{AtomicU32 as Word, AtomicU64 as Bits};
#[cfg(test)]
pub use stepped::{Bits, Word};

/// In a span's word: the number of holders.
const HOLDERS: u32 = 0xffff;
/// In a span's word: it is being given back.
const ENDING: u32 = 1 << 31;
/// The shift of its area's number.
const AREA: u32 = 16;

/// The words of all spans, mapped.
#[derive(Clone, Copy)]
pub struct Spans<'a> {
    words: &'a [Word],
}

/// A span after a process released it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Other processes hold it.
    ToOthers,
    /// The process was the last holder: the caller gives the span's memory back and then calls
    /// [`Spans::end`]. The span is charged to this area.
    ToNobody { area: usize },
}

impl<'a> Spans<'a> {
    /// The spans whose words are these.
    pub const fn new(words: &'a [Word]) -> Self {
        Self { words }
    }

    /// The number of spans.
    pub const fn count(&self) -> u32 {
        self.words.len() as u32
    }

    /// Takes a free span for an area; looks for one from `hint` on.
    fn take(&self, area: usize, hint: &AtomicU32) -> Option<u32> {
        let (count, from) = (self.count(), hint.load(Relaxed));
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
    fn join(&self, span: u32) {
        if let Some(word) = self.words.get(span as usize) {
            word.fetch_add(1, AcqRel);
        }
    }

    /// Whether the caller is the only holder of a span.
    pub fn is_sole(&self, span: u32) -> bool {
        self.words.get(span as usize).is_some_and(|word| word.load(Acquire) & HOLDERS == 1)
    }

    fn leave(&self, span: u32) -> Left {
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

    /// Makes a span free after its memory was given back.
    fn end(&self, span: u32) {
        if let Some(word) = self.words.get(span as usize) {
            word.store(0, Release);
        }
    }

    /// Releases a span of an ended process. If it was the last holder, gives the memory back and
    /// returns the area that the span was charged to.
    pub fn let_go(&self, span: u32, give_back: impl FnOnce()) -> Option<usize> {
        match self.leave(span) {
            Left::ToOthers => None,
            Left::ToNobody { area } => {
                give_back();
                self.end(span);
                Some(area)
            }
        }
    }
}

/// The spans that one process holds.
#[derive(Clone, Copy)]
pub struct Holder<'a> {
    spans: Spans<'a>,
    column: &'a [Bits],
}

impl<'a> Holder<'a> {
    /// The process with this column of one bit for each span.
    pub const fn new(spans: Spans<'a>, column: &'a [Bits]) -> Self {
        Self { spans, column }
    }

    /// Takes a free span for an area; looks for one from `hint` on.
    pub fn take(&self, area: usize, hint: &AtomicU32) -> Option<u32> {
        let span = self.spans.take(area, hint)?;
        let (bits, bit) = self.bit(span);
        bits.fetch_or(bit, AcqRel);
        Some(span)
    }

    /// Whether no other process holds a span that this one holds.
    pub fn is_sole(&self, span: u32) -> bool {
        self.spans.is_sole(span)
    }

    /// Releases a span that this process holds. If it was the last holder, gives the memory back
    /// and returns the area that the span was charged to.
    pub fn leave(&self, span: u32, give_back: impl FnOnce()) -> Option<usize> {
        let (bits, bit) = self.bit(span);
        // A sole holder keeps its bit until the memory is given back, so that the supervisor can
        // continue if this process is killed. If there are other holders, the bit must go before
        // the count in the span's word.
        if !self.spans.is_sole(span) {
            bits.fetch_and(!bit, AcqRel);
        }
        self.spans.let_go(span, || {
            give_back();
            bits.fetch_and(!bit, AcqRel);
        })
    }

    /// Makes a child with this column hold the spans of this process. No other operation on them
    /// may be running.
    pub fn share_with(&self, child: &[Bits]) {
        for (number, held) in self.held() {
            spans_of(number, held).for_each(|span| self.spans.join(span));
            // Counted first, noted then: if the process is killed in between, no other holder loses
            // a span.
            child[number].store(held, Release);
        }
    }

    /// Undoes that: there is no child.
    pub fn take_from(&self, child: &[Bits]) {
        for (number, held) in self.held() {
            child[number].store(0, Relaxed);
            // This process holds them too, so none ends here.
            spans_of(number, held).for_each(|span| _ = self.spans.leave(span));
        }
    }

    /// The words of the column that are not zero.
    fn held(&self) -> impl Iterator<Item = (usize, u64)> + use<'a> {
        let words = self.column.iter().map(|word| word.load(Relaxed)).enumerate();
        words.filter(|(_, held)| *held != 0)
    }

    fn bit(&self, span: u32) -> (&'a Bits, u64) {
        (&self.column[span as usize / 64], 1 << (span % 64))
    }
}

/// The spans whose bits are set in a word of a column.
fn spans_of(number: usize, held: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |bit| held & 1 << bit != 0).map(move |bit| number as u32 * 64 + bit)
}

#[cfg(test)]
mod stepped;
#[cfg(test)]
mod tests;
