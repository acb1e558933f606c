//! One address space's levels of tables: making them on demand and taking them away.

use crate::arch::Architecture;
use crate::hardware::Hardware;
use crate::lock::SimRwLock;
use crate::shootdown::Flush;
use crate::walk::Place;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use pagefault_machine::{Frame, Mode, OutOfFrames, PAGE_SHIFT, VirtAddr};

/// The page table of one address space.
///
/// Locks, outermost first: a leaf table's, then `levels`. Whoever waits for a leaf's lock holds
/// neither `levels` nor any lock of a leaf but as [`Space::lock`](pagefault_machine::Space::lock)
/// allows.
pub(crate) struct Table {
    pub(crate) id: u32,
    pub(crate) root: Frame,
    /// The upper levels. Held for writing where one is installed or taken away, which is never
    /// done while a frame is allocated.
    levels: lock_api::RwLock<SimRwLock, ()>,
    /// Counts the leaf tables taken away; a waiter for a leaf's lock sees by it whether to look
    /// again.
    generation: AtomicU64,
    /// The number of leaf tables.
    pub(crate) leaves: AtomicUsize,
    /// The CPUs that may hold translations of this space, as a set of bits (spec G3).
    pub(crate) cpus: AtomicU64,
}

impl Table {
    pub(crate) fn new(id: u32, root: Frame) -> Self {
        Self {
            id,
            root,
            levels: lock_api::RwLock::new(()),
            generation: AtomicU64::new(0),
            leaves: AtomicUsize::new(0),
            cpus: AtomicU64::new(0),
        }
    }

    /// A number that changes when a leaf table is taken away.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The leaf table that covers an address, if there is one.
    pub(crate) fn leaf<A: Architecture>(
        &self,
        hw: &Hardware<A>,
        address: VirtAddr,
    ) -> Option<Frame> {
        let _levels = self.levels.read();
        self.descend(hw, address, 1).ok()
    }

    /// The words on the way to the leaf entry of an address, as far as they are present, and the
    /// one after.
    pub(crate) fn words<A: Architecture>(&self, hw: &Hardware<A>, address: VirtAddr) -> Vec<u64> {
        let _levels = self.levels.read();
        let mut words = Vec::new();
        let mut table = self.root;
        for level in (1..=A::LEVELS).rev() {
            let raw = hw.frames.entry::<A>(Place { table, index: A::index(address, level) });
            words.push(raw);
            table = A::frame(raw);
            if !A::is_present(raw) || !hw.frames.contains(table) {
                break;
            }
        }
        words
    }

    /// Makes the levels above the entries of an address as far as they are missing (spec B1).
    pub(crate) fn make_levels<A: Architecture>(
        &self,
        hw: &Hardware<A>,
        address: VirtAddr,
    ) -> Result<(), OutOfFrames> {
        loop {
            let missing = {
                let _levels = self.levels.read();
                match self.descend(hw, address, 1) {
                    Ok(_) => return Ok(()),
                    Err(missing) => missing,
                }
            };
            let new = hw.allocate_table()?;
            let _levels = self.levels.write();
            // Another thread may have made it, or pruned what is above it, meanwhile.
            match self.descend(hw, address, 1) {
                Err(still) if still == missing => {
                    let raw = A::table(new, A::mode(address), still.level);
                    hw.frames.exchange_entry::<A>(still.place, raw);
                    if still.level == 2 {
                        self.leaves.fetch_add(1, Ordering::SeqCst);
                    }
                }
                _ => hw.free_table(new),
            }
        }
    }

    /// The first address in a range that has a leaf table.
    pub(crate) fn next_leaf<A: Architecture>(
        &self,
        hw: &Hardware<A>,
        range: &Range<VirtAddr>,
    ) -> Option<VirtAddr> {
        let mut at = range.start;
        while at < range.end {
            let found = {
                let _levels = self.levels.read();
                self.descend(hw, at, 1)
            };
            let Err(missing) = found else { return Some(at) };
            at = VirtAddr(missing.end_of_block::<A>(at)?);
        }
        None
    }

    /// Frees the tables that serve only addresses in `hole`, some of them in `unmapped`, and hold no
    /// entries (spec E6).
    pub(crate) fn prune<A: Architecture>(
        &self,
        hw: &Hardware<A>,
        hole: &Range<VirtAddr>,
        unmapped: &Range<VirtAddr>,
    ) {
        for level in 1..A::LEVELS {
            let span = 1u64 << (PAGE_SHIFT + A::INDEX_BITS * level);
            let touched = unmapped.start.value() / span * span;
            let mut block = touched.max(hole.start.value().next_multiple_of(span));
            while block < unmapped.end.value()
                && block.checked_add(span).is_some_and(|end| end <= hole.end.value())
            {
                block = match self.prune_block(hw, VirtAddr(block), level) {
                    // Nothing below a missing upper entry: go on after all that it covers.
                    Some(missing) => match missing.end_of_block::<A>(VirtAddr(block)) {
                        Some(end) => end,
                        None => break,
                    },
                    None => block + span,
                };
            }
        }
    }

    /// Frees the table of `level` that covers a block if it is empty. Where there is none, returns
    /// the entry that is missing.
    fn prune_block<A: Architecture>(
        &self,
        hw: &Hardware<A>,
        block: VirtAddr,
        level: u32,
    ) -> Option<Missing> {
        let found = {
            let _levels = self.levels.read();
            self.descend(hw, block, level)
        };
        let table = match found {
            Ok(table) => table,
            Err(missing) => return Some(missing),
        };
        let _entries = (level == 1).then(|| hw.frames.leaf_lock(table).lock());
        {
            let _levels = self.levels.write();
            let parent = self.descend(hw, block, level + 1);
            let Ok(parent) = parent else { return None };
            let place = Place { table: parent, index: A::index(block, level + 1) };
            let unchanged = self.descend(hw, block, level) == Ok(table);
            if !unchanged || !self.is_empty(hw, table) {
                return None;
            }
            hw.frames.exchange_entry::<A>(place, 0);
            if level == 1 {
                self.leaves.fetch_sub(1, Ordering::SeqCst);
                self.generation.fetch_add(1, Ordering::SeqCst);
            }
        }
        // A CPU may be in the middle of a walk through it.
        hw.shoot_down(self, Flush::Walks);
        hw.free_table(table);
        None
    }

    /// Frees every table of the user part, and the root.
    pub(crate) fn destroy<A: Architecture>(&self, hw: &Hardware<A>) {
        hw.shoot_down(self, Flush::Leave);
        self.free_below(hw, self.root, A::LEVELS, VirtAddr::ZERO);
        hw.free_table(self.root);
    }

    fn free_below<A: Architecture>(
        &self,
        hw: &Hardware<A>,
        table: Frame,
        level: u32,
        base: VirtAddr,
    ) {
        if level == 1 {
            return;
        }
        let span = 1u64 << (PAGE_SHIFT + A::INDEX_BITS * (level - 1));
        for index in 0..A::entries() {
            let address = VirtAddr(base.value() + span * index as u64);
            if A::mode(address) == Mode::Kernel {
                break;
            }
            let raw = hw.frames.entry::<A>(Place { table, index });
            if A::is_present(raw) {
                let lower = A::frame(raw);
                self.free_below(hw, lower, level - 1, address);
                hw.free_table(lower);
            }
        }
    }

    /// The table of `level` that covers an address, or the first entry on the way that is missing.
    ///
    /// The caller holds `levels`.
    fn descend<A: Architecture>(
        &self,
        hw: &Hardware<A>,
        address: VirtAddr,
        level: u32,
    ) -> Result<Frame, Missing> {
        let mut table = self.root;
        for at in (level + 1..=A::LEVELS).rev() {
            let place = Place { table, index: A::index(address, at) };
            let raw = hw.frames.entry::<A>(place);
            if !A::is_present(raw) {
                return Err(Missing { place, level: at });
            }
            table = A::frame(raw);
        }
        Ok(table)
    }

    fn is_empty<A: Architecture>(&self, hw: &Hardware<A>, table: Frame) -> bool {
        (0..A::entries()).all(|index| hw.frames.entry::<A>(Place { table, index }) == 0)
    }
}

/// An entry of an upper level that is not present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missing {
    place: Place,
    level: u32,
}

impl Missing {
    /// Where the block ends that the entry would cover, around an address; `None` at the end of all
    /// addresses.
    fn end_of_block<A: Architecture>(&self, address: VirtAddr) -> Option<u64> {
        let span = 1u64 << (PAGE_SHIFT + A::INDEX_BITS * (self.level - 1));
        (address.value() | (span - 1)).checked_add(1)
    }
}
