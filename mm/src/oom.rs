//! Chooses the victim when memory is out (spec F25, with the score of newer kernels).
//!
//! The memory manager reports that memory is out ([`Verdict::OutOfMemory`](crate::entry::Verdict)).
//! This module finds the program whose end frees the most. The embedder kills it.

use crate::entries::GUARD;
use crate::machine::{Cursor, Entry, Machine, PAGE_SIZE, VirtAddr};
use crate::manager::Manager;
use crate::mm::Mm;
use alloc::sync::Arc;
use core::ops::Range;

/// The adjustment of a program that is never killed (`OOM_SCORE_ADJ_MIN`).
pub const NEVER: i16 = -1000;
/// The adjustment of a program that is killed before all others.
pub const FIRST: i16 = 1000;

/// The state of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It runs.
    Running,
    /// It was killed or is exiting, and has not freed its memory yet.
    Ending,
    /// It must not be killed: init.
    Needed,
}

/// A program that may be killed.
pub struct Candidate<'a, M: Machine> {
    /// Its memory. Programs that share it are killed together.
    pub mm: &'a Arc<Mm<M>>,
    /// Its state.
    pub standing: Standing,
    /// The frames of its page tables.
    pub tables: u64,
    /// Thousandths of all memory that are added to what it uses: from [`NEVER`] to [`FIRST`].
    pub adjustment: i16,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Kill this candidate, by its place in the list, and all that share its memory.
    Kill(usize),
    /// One is exiting already: wait for its memory.
    Wait,
    /// No candidate may be killed: the machine cannot continue.
    Nobody,
}

impl<M: Machine> Manager<M> {
    /// Chooses the victim when memory is out (Linux: `select_bad_process`, spec F25): the candidate
    /// whose end frees most, with its adjustment; of two of equal size, the later one. The caller kills
    /// it. Walks all entries of every candidate; call it without a lock.
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
    /// The pages that its end would free, adjusted, out of `total` pages of memory and swap.
    fn badness(&self, total: u64) -> i64 {
        let usage = self.mm.usage();
        let pages = usage.anonymous + usage.file + self.mm.swapped_pages();
        // The caller's number may be anything.
        let pages = i64::try_from(pages.saturating_add(self.tables)).unwrap_or(i64::MAX);
        let adjustment = self.adjustment.clamp(NEVER, FIRST);
        pages.saturating_add(i64::from(adjustment) * total as i64 / 1000)
    }
}

impl<M: Machine> Mm<M> {
    /// How many entries name a slot of a swap area (Linux: `MM_SWAPENTS`). Walks all entries, each block
    /// under its lock, and allocates nothing.
    pub fn swapped_pages(&self) -> u64 {
        let Range { start: mut from, end } = self.layout.range;
        let mut pages = 0;
        // One region at a time, without a list: this runs when memory is out.
        while let Some(range) = self.first_mapped(from..end) {
            from = range.end;
            pages += self.blocks(range).map(|block| self.swapped_in_block(block)).sum::<u64>();
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
