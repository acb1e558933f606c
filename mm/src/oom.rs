//! Who has to go when no memory can be had (spec F25, the score of newer kernels).
//!
//! The memory manager says that there is none ([`Verdict::OutOfMemory`](crate::entry::Verdict)); whose
//! end gives the most back is counted here; what ends is the embedder's.

use crate::entries::GUARD;
use crate::machine::{Cursor, Entry, Machine, PAGE_SIZE, Pages, Space, VirtAddr};
use crate::manager::Manager;
use crate::mm::Mm;
use alloc::sync::Arc;
use core::ops::Range;

/// The adjustment of a program that is never chosen (`OOM_SCORE_ADJ_MIN`).
pub const NEVER: i16 = -1000;
/// The adjustment of a program that is chosen before all others.
pub const FIRST: i16 = 1000;

/// What a program is just doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It runs.
    Running,
    /// It was chosen before, or ends by itself, and has not given its memory back yet.
    Ending,
    /// The system ends with it: init.
    Needed,
}

/// A program that might go.
pub struct Candidate<'a, M: Machine> {
    /// Its memory. Programs that share it go together.
    pub mm: &'a Arc<Mm<M>>,
    /// What it is doing.
    pub standing: Standing,
    /// The frames of its page tables.
    pub tables: u64,
    /// Thousandths of all memory that are added to what it uses: from [`NEVER`] to [`FIRST`].
    pub adjustment: i16,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This candidate, by its place in the list, and all that share its memory have to go.
    Kill(usize),
    /// One is going already: wait for its memory.
    Wait,
    /// Nobody may be chosen: the machine cannot go on.
    Nobody,
}

impl<M: Machine> Manager<M> {
    /// Chooses who has to go. Of two that are as large the later goes.
    pub fn choose_victim(&self, candidates: &[Candidate<'_, M>]) -> Choice {
        if candidates.iter().any(|candidate| candidate.standing == Standing::Ending) {
            return Choice::Wait;
        }
        let total = u64::from(self.machine.frames()) + self.swap.total();
        let is_shared_with_needed = |candidate: &Candidate<'_, M>| {
            candidates.iter().any(|other| {
                other.standing == Standing::Needed && Arc::ptr_eq(other.mm, candidate.mm)
            })
        };
        candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| candidate.adjustment > NEVER)
            .filter(|(_, candidate)| !is_shared_with_needed(candidate))
            .max_by_key(|(place, candidate)| (candidate.badness(total), *place))
            .map_or(Choice::Nobody, |(place, _)| Choice::Kill(place))
    }
}

impl<M: Machine> Candidate<'_, M> {
    /// How many pages its end would give back, and the adjustment, of `total` pages of memory and swap.
    fn badness(&self, total: u64) -> i64 {
        let usage = self.mm.usage();
        let pages = usage.anonymous + usage.file + self.mm.swapped_pages() + self.tables;
        let adjustment = self.adjustment.clamp(NEVER, FIRST);
        pages as i64 + i64::from(adjustment) * total as i64 / 1000
    }
}

impl<M: Machine> Mm<M> {
    /// How many entries name a slot: counted by going through all of them.
    pub fn swapped_pages(&self) -> u64 {
        let Range { start: mut from, end } = self.layout.range;
        let mut pages = 0;
        // One region at a time: no list of them, for this is asked when memory is out.
        while let Some(range) = self.first_mapped(from..end) {
            from = range.end;
            let blocks = Pages::new(&range, M::Space::SPAN);
            pages += blocks.map(|block| self.swapped_in_block(block)).sum::<u64>();
        }
        pages
    }

    fn swapped_in_block(&self, block: Range<VirtAddr>) -> u64 {
        let Some(cursor) = self.existing_entries(block.clone()) else { return 0 };
        let (mut at, mut pages) = (block.start, 0);
        while at < block.end
            && let Some(address) = cursor.next(at).filter(|address| *address < block.end)
        {
            let is_slot = matches!(cursor.entry(address), Entry::Swap(slot) if slot != GUARD);
            pages += u64::from(is_slot);
            at = address + PAGE_SIZE;
        }
        pages
    }
}
