//! Frames that several processes of the tree share after a fork.
//!
//! A share is a number; its word says how many processes are in it, 0 for a free one. Each process
//! has a *column*: for each of its frames, the share that it is in, or 0. The supervisor reads the
//! column of a killed process, and leaves its shares on its behalf.
//!
//! Both lie behind [`Control`] in the same file, like the compressed memory
//! ([`Spans`](crate::Spans)). Only used parts of the file take memory.

use crate::offload::{Mailbox, PLACE, PLACES};
use crate::pool::SPAN;
use crate::{Control, FilePlan, MOST_AREAS, Ring};
use core::ops::Range;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

const PAGE: u64 = 4096;

/// The layout of the file, for a limit in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    frames: u32,
    spans: u32,
    /// The pages of each swap file.
    pages: [u32; MOST_AREAS],
}

impl Plan {
    /// The layout for a limit and an amount of compressed memory in bytes, and for swap files with
    /// a size in pages each; 0 for an area without a file.
    pub fn new(most_bytes: u64, pool_bytes: u64, pages: [u32; MOST_AREAS]) -> Self {
        Self {
            pages,
            frames: u32::try_from(most_bytes / PAGE).unwrap_or(u32::MAX - 1),
            spans: u32::try_from(pool_bytes / SPAN).unwrap_or(u32::MAX),
        }
    }

    /// The frames of the tree.
    pub const fn frames(&self) -> u32 {
        self.frames
    }

    /// The words of all shares; that of number 0 is not used.
    pub const fn shares(&self) -> Range<u64> {
        let start = (size_of::<Control>() as u64).next_multiple_of(PAGE);
        start..start + self.column_len()
    }

    /// The column of a slot.
    pub const fn column(&self, slot: u32) -> Range<u64> {
        let start = self.shares().end + slot as u64 * self.column_len();
        start..start + self.column_len()
    }

    /// The spans of the compressed memory.
    pub const fn spans(&self) -> u32 {
        self.spans
    }

    /// The words of all spans.
    pub const fn span_words(&self) -> Range<u64> {
        let start = self.column(crate::MOST_PROCESSES as u32).start;
        start..start + (self.spans as u64 * 4).next_multiple_of(PAGE)
    }

    /// The column of bits of a slot, one for each span.
    pub const fn span_column(&self, slot: u32) -> Range<u64> {
        let len = (self.spans as u64).div_ceil(8).next_multiple_of(PAGE);
        let start = self.span_words().end + slot as u64 * len;
        start..start + len
    }

    /// The memory of the spans.
    pub const fn pool(&self) -> Range<u64> {
        let start = self.span_column(crate::MOST_PROCESSES as u32).start;
        start..start + self.spans as u64 * SPAN
    }

    /// The extents of the swap files.
    pub const fn files(&self) -> FilePlan {
        FilePlan::new(self.pool().end, self.pages)
    }

    /// The mailbox of a slot.
    pub fn mailbox(&self, slot: u32) -> Range<u64> {
        let len = (size_of::<Mailbox>() as u64).next_multiple_of(PAGE);
        let start = self.files().end() + u64::from(slot) * len;
        start..start + len
    }

    /// The pages of the places of a slot's mailbox, and their results.
    pub fn mailbox_pages(&self, slot: u32) -> Range<u64> {
        let len = PLACES as u64 * PLACE;
        let start = self.mailbox(crate::MOST_PROCESSES as u32).start + slot as u64 * len;
        start..start + len
    }

    /// The length of the file without rings.
    pub fn file_len(&self) -> u64 {
        self.mailbox_pages(crate::MOST_PROCESSES as u32).start
    }

    /// The ring of a slot, in a file that has room for rings.
    pub fn ring(&self, slot: u32) -> Range<u64> {
        let len = (size_of::<Ring>() as u64).next_multiple_of(PAGE);
        let start = self.file_len() + slot as u64 * len;
        start..start + len
    }

    /// The length of a file that has room for rings.
    pub fn observed_len(&self) -> u64 {
        self.ring(crate::MOST_PROCESSES as u32).start
    }

    /// The bytes of a column, and of the words: one word more than there are frames.
    pub const fn column_len(&self) -> u64 {
        ((self.frames as u64 + 1) * 4).next_multiple_of(PAGE)
    }
}

/// The words of all shares, mapped.
#[derive(Clone, Copy)]
pub struct Shares<'a> {
    words: &'a [AtomicU32],
}

impl<'a> Shares<'a> {
    /// The shares whose words are these.
    pub const fn new(words: &'a [AtomicU32]) -> Self {
        Self { words }
    }

    /// Begins a share with two processes; searches for a free number from `hint` on.
    pub fn begin(&self, hint: &AtomicU32) -> Option<u32> {
        let count = self.words.len() as u32;
        let from = hint.load(Relaxed);
        let share = (0..count).map(|step| (from + step) % count).skip_while(|share| *share == 0);
        let mut free = share.filter(|share| *share != 0);
        let found = free.find(|share| {
            let word = &self.words[*share as usize];
            word.compare_exchange(0, 2, AcqRel, Relaxed).is_ok()
        })?;
        hint.store(found + 1, Relaxed);
        Some(found)
    }

    /// Adds a process to a share.
    pub fn join(&self, share: u32) {
        self.words[share as usize].fetch_add(1, Relaxed);
    }

    /// Leaves a share; returns whether it is now empty.
    pub fn leave(&self, share: u32) -> bool {
        let Some(word) = self.words.get(share as usize) else { return false };
        let less = |count: u32| count.checked_sub(1);
        word.fetch_update(AcqRel, Relaxed, less) == Ok(1)
    }

    /// Ends a share if the caller is its only member; returns whether it did.
    pub fn end(&self, share: u32) -> bool {
        let word = &self.words[share as usize];
        word.load(Acquire) == 1 && word.compare_exchange(1, 0, AcqRel, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_file_follow_each_other() {
        let plan = Plan::new(64 << 20, 32 << 20, [0, 100, 0, 0, 0, 0, 0, 0]);
        assert_eq!(plan.frames(), 16384);
        assert!(plan.shares().start >= size_of::<Control>() as u64);
        assert_eq!(plan.column(0).start, plan.shares().end);
        assert_eq!(plan.column(1).start, plan.column(0).end);
        assert!(plan.span_words().start >= plan.column(crate::MOST_PROCESSES as u32 - 1).end);
        assert_eq!(plan.spans(), 1024);
        assert_eq!(plan.span_column(0).start, plan.span_words().end);
        assert_eq!(plan.span_column(1).start, plan.span_column(0).end);
        assert!(plan.pool().start >= plan.span_column(crate::MOST_PROCESSES as u32 - 1).end);
        assert_eq!(plan.pool().end - plan.pool().start, 32 << 20);
        assert_eq!(plan.files().words(0).start, plan.pool().end);
        assert_eq!(plan.mailbox(0).start, plan.files().end());
        assert_eq!(plan.mailbox(1).start, plan.mailbox(0).end);
        assert!(plan.mailbox_pages(0).start >= plan.mailbox(crate::MOST_PROCESSES as u32 - 1).end);
        assert_eq!(plan.file_len(), plan.mailbox_pages(crate::MOST_PROCESSES as u32 - 1).end);
        assert!(plan.column_len() >= (u64::from(plan.frames()) + 1) * 4);
    }

    #[test]
    fn a_share_is_free_again_when_the_last_has_left() {
        let words: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
        let (shares, hint) = (Shares::new(&words), AtomicU32::new(0));
        let all: [_; 3] = core::array::from_fn(|_| shares.begin(&hint).unwrap());
        assert!(!all.contains(&0));
        assert_eq!(shares.begin(&hint), None);
        shares.join(all[0]);
        assert!(!shares.end(all[0]));
        assert!(!shares.leave(all[0]));
        assert!(!shares.leave(all[0]));
        assert!(shares.end(all[0]));
        assert!(!shares.leave(all[1]));
        assert!(shares.leave(all[1]));
        // One leave too many, by a process that was killed halfway, takes nothing from others.
        assert!(!shares.leave(all[1]));
        assert!(shares.begin(&hint).is_some());
    }
}
