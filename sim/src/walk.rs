//! Page tables as the processor sees them: words in frames.

use crate::arch::Architecture;
use crate::frames::Frames;
use crate::tlb::Rights;
use core::sync::atomic::{AtomicU64, Ordering};
use pagefault_machine::{Frame, VirtAddr};

/// One entry's place: which table, and which of its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) table: Frame,
    pub(crate) index: usize,
}

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    /// An entry on the way is not present.
    Missing,
    /// An entry on the way has a reserved bit set (spec A10).
    Reserved,
    /// A leaf entry that the processor may use.
    Found(Leaf),
}

/// A leaf entry that the processor may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) place: Place,
    pub(crate) raw: u64,
    pub(crate) frame: Frame,
    pub(crate) rights: Rights,
    pub(crate) global: bool,
}

/// Whether a walk marks the upper levels as used, as a processor's own walks do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    Set,
    Leave,
}

/// Walks from a root to the leaf entry of an address.
///
/// No lock is needed by a CPU whose state is locked: tables are freed only after every CPU that
/// could walk them was interrupted. Others hold the space's table lock.
pub(crate) fn walk<A: Architecture>(
    frames: &Frames,
    root: Frame,
    address: VirtAddr,
    marks: Marks,
) -> Walked {
    let mut table = root;
    let mut rights = Rights::ALL;
    for level in (1..=A::LEVELS).rev() {
        let place = Place { table, index: A::index(address, level) };
        let raw = frames.entry::<A>(place);
        if !A::is_present(raw) {
            return Walked::Missing;
        }
        let frame = A::frame(raw);
        // Physical addresses end with the last frame.
        if A::is_reserved(raw, level) || !frames.contains(frame) {
            return Walked::Reserved;
        }
        rights = rights.and(A::rights(raw, level));
        if level == 1 {
            let global = A::is_global(raw);
            return Walked::Found(Leaf { place, raw, frame, rights, global });
        }
        if marks == Marks::Set && A::marks_upper(level) && raw & A::ACCESSED == 0 {
            frames.mark::<A>(place, raw, A::ACCESSED);
        }
        table = frame;
    }
    Walked::Missing
}

/// Entries.
impl Frames {
    pub(crate) fn entry<A: Architecture>(&self, place: Place) -> u64 {
        let (word, part) = self.word::<A>(place);
        part.extract(word.load(Ordering::SeqCst))
    }

    /// Exchanges an entry and returns what was there (spec G5).
    pub(crate) fn exchange_entry<A: Architecture>(&self, place: Place, raw: u64) -> u64 {
        let (word, part) = self.word::<A>(place);
        let old = word.update(Ordering::SeqCst, Ordering::SeqCst, |old| part.insert(old, raw));
        part.extract(old)
    }

    /// Sets bits of an entry if it is still `raw`, and says whether it was.
    pub(crate) fn mark<A: Architecture>(&self, place: Place, raw: u64, bits: u64) -> bool {
        let (word, part) = self.word::<A>(place);
        let marked = |old| (part.extract(old) == raw).then(|| part.insert(old, raw | bits));
        word.try_update(Ordering::SeqCst, Ordering::SeqCst, marked).is_ok()
    }

    /// Clears bits of an entry, and says whether any was set.
    pub(crate) fn clear<A: Architecture>(&self, place: Place, bits: u64) -> bool {
        let (word, part) = self.word::<A>(place);
        let cleared = |old| part.insert(old, part.extract(old) & !bits);
        let old = word.update(Ordering::SeqCst, Ordering::SeqCst, cleared);
        part.extract(old) & bits != 0
    }

    fn word<A: Architecture>(&self, place: Place) -> (&AtomicU64, Part) {
        let per_word = 8 / A::ENTRY_BYTES;
        let bits = 64 / per_word as u32;
        let part = Part { shift: bits * (place.index % per_word) as u32, bits };
        (&self.content(place.table)[place.index / per_word], part)
    }
}

/// Which bits of an eight-byte word an entry is.
#[derive(Clone, Copy)]
struct Part {
    shift: u32,
    bits: u32,
}

impl Part {
    fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    fn extract(self, word: u64) -> u64 {
        word >> self.shift & self.mask()
    }

    fn insert(self, word: u64, raw: u64) -> u64 {
        word & !(self.mask() << self.shift) | raw << self.shift
    }
}
