//! The trace of a program's page accesses, in order.
//!
//! A trace file is a sequence of little-endian 64-bit words: a page number in the upper 61 bits, the
//! access in the lower 3.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// What a program does to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It loads from the page.
    Load,
    /// It stores to the page.
    Store,
    /// It stores to memory that is all zeros.
    FirstStore,
    /// It loads from memory that is all zeros.
    FirstLoad,
    /// It gives the page up: the content is no longer needed.
    Discard,
}

impl Deed {
    /// Its number in a file.
    pub const fn code(self) -> u64 {
        match self {
            Self::Load => 0,
            Self::Store => 1,
            Self::FirstStore => 2,
            Self::FirstLoad => 3,
            Self::Discard => 4,
        }
    }

    const fn of(code: u64) -> Option<Self> {
        Some(match code {
            0 => Self::Load,
            1 => Self::Store,
            2 => Self::FirstStore,
            3 => Self::FirstLoad,
            4 => Self::Discard,
            _ => return None,
        })
    }
}

/// One step of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which page: an index into [`Trace::numbers`].
    pub page: u32,
    pub deed: Deed,
}

/// A whole trace.
pub struct Trace {
    pub steps: Vec<Step>,
    /// The page numbers, in order, so that neighbours in memory are neighbours here.
    pub numbers: Vec<u64>,
}

impl Trace {
    /// Reads a trace file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let (words, rest) = bytes.as_chunks::<8>();
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        if !rest.is_empty() {
            return Err(invalid("not a row of words of 64 bits"));
        }
        let decode = |word: &[u8; 8]| {
            let word = u64::from_le_bytes(*word);
            Deed::of(word & 7).map(|deed| (word >> 3, deed))
        };
        let steps: Option<Vec<_>> = words.iter().map(decode).collect();
        Ok(Self::new(&steps.ok_or_else(|| invalid("an unknown deed"))?))
    }

    /// A trace of steps, with pages by number.
    pub fn new(steps: &[(u64, Deed)]) -> Self {
        let numbers: BTreeSet<u64> = steps.iter().map(|(number, _)| *number).collect();
        let numbers: Vec<u64> = numbers.into_iter().collect();
        let step = |(number, deed): &(u64, Deed)| {
            let page = numbers.partition_point(|other| other < number) as u32;
            Step { page, deed: *deed }
        };
        Self { steps: steps.iter().map(step).collect(), numbers }
    }

    pub fn pages(&self) -> usize {
        self.numbers.len()
    }

    /// The page at a distance from another, if the trace has it.
    pub fn neighbour(&self, page: u32, distance: i64) -> Option<u32> {
        let other = u32::try_from(i64::from(page) + distance).ok()?;
        let number = *self.numbers.get(other as usize)?;
        let expected = self.numbers[page as usize].checked_add_signed(distance)?;
        (number == expected).then_some(other)
    }

    /// For each step, the next one that needs the page's content; `u32::MAX` for none.
    pub fn next_uses(&self) -> Vec<u32> {
        let mut next = vec![u32::MAX; self.pages()];
        let mut uses = vec![u32::MAX; self.steps.len()];
        for (at, step) in self.steps.iter().enumerate().rev() {
            let page = step.page as usize;
            uses[at] = next[page];
            next[page] = match step.deed {
                Deed::Load | Deed::Store => at as u32,
                Deed::FirstStore | Deed::FirstLoad | Deed::Discard => u32::MAX,
            };
        }
        uses
    }
}
