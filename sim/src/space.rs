//! An address space as the memory manager sees it: cursors over locked leaf tables.

use crate::arch::Architecture;
use crate::hardware::Hardware;
use crate::lock::SimMutex;
use crate::schedule;
use crate::table::Table;
use crate::violation::{Operation, Violation};
use crate::walk::Place;
use core::cell::Cell;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering;
use pagefault_machine::{
    Cursor, Entry, Frame, Mode, OutOfFrames, PAGE_SIZE, Protection, Space, VirtAddr,
};
use std::sync::Arc;

/// The page table of one simulated address space.
///
/// Dropping it makes every CPU leave it and frees its tables; frames that entries still name stay
/// allocated.
pub struct SimSpace<A: Architecture> {
    pub(crate) hw: Arc<Hardware<A>>,
    pub(crate) table: Arc<Table>,
}

impl<A: Architecture> Space for SimSpace<A> {
    type Cursor<'a> = SimCursor<'a, A>;
    const SPAN: u64 = A::SPAN;

    fn id(&self) -> u32 {
        self.table.id
    }

    /// # Panics
    /// If the range is not as the trait demands, or is the kernel's in another space than
    /// [`Computer::kernel`](crate::Computer::kernel) or a user's in that.
    fn lock(&self, range: Range<VirtAddr>) -> Result<SimCursor<'_, A>, OutOfFrames> {
        self.check(&range);
        loop {
            if let Some(cursor) = self.try_cursor(&range) {
                return Ok(cursor);
            }
            self.table.make_levels(&self.hw, range.start)?;
        }
    }

    /// # Panics
    /// As [`SimSpace::lock`].
    fn lock_existing(&self, range: Range<VirtAddr>) -> Option<SimCursor<'_, A>> {
        self.check(&range);
        self.try_cursor(&range)
    }

    fn next_leaf(&self, range: Range<VirtAddr>) -> Option<VirtAddr> {
        self.table.next_leaf(&self.hw, &range)
    }

    fn prune(&self, hole: Range<VirtAddr>, unmapped: Range<VirtAddr>) {
        self.table.prune(&self.hw, &hole, &unmapped);
    }

    fn leaves(&self) -> usize {
        self.table.leaves.load(Ordering::SeqCst)
    }
}

impl<A: Architecture> SimSpace<A> {
    pub(crate) fn new(hw: Arc<Hardware<A>>, table: Arc<Table>) -> Self {
        Self { hw, table }
    }

    /// The frame of the root (what CR3 holds while a CPU runs the space).
    pub fn root(&self) -> Frame {
        self.table.root
    }

    /// The CPUs that may hold translations of this space, as a set of bits (Linux: `mm_cpumask`).
    pub fn cpu_mask(&self) -> u64 {
        self.table.cpus.load(Ordering::SeqCst)
    }

    /// What the top level names for an address: the entry that [`Machine::synchronise`] copies.
    ///
    /// [`Machine::synchronise`]: pagefault_machine::Machine::synchronise
    pub fn top(&self, address: VirtAddr) -> Option<Frame> {
        let place = Place { table: self.table.root, index: A::index(address, A::LEVELS) };
        let raw = self.hw.frames.entry::<A>(place);
        A::is_present(raw).then(|| A::frame(raw))
    }

    /// The words that a walk for an address meets, the root's first, down to the leaf entry or to
    /// the first that is not present: what an oops prints (spec A21).
    pub fn words(&self, address: VirtAddr) -> Vec<u64> {
        self.table.words(&self.hw, address)
    }

    /// Makes the top level name `table` for an address, or nothing, whatever is there, and returns
    /// what it named: a way to corrupt a page table.
    pub fn replace_top(&self, address: VirtAddr, table: Option<Frame>) -> Option<Frame> {
        let raw = table.map_or(0, |table| A::table(table, A::mode(address), A::LEVELS));
        let place = Place { table: self.table.root, index: A::index(address, A::LEVELS) };
        let old = self.hw.frames.exchange_entry::<A>(place, raw);
        A::is_present(old).then(|| A::frame(old))
    }

    fn try_cursor(&self, range: &Range<VirtAddr>) -> Option<SimCursor<'_, A>> {
        loop {
            let generation = self.table.generation();
            let leaf = self.table.leaf(&self.hw, range.start)?;
            let guard = self.hw.frames.leaf_lock(leaf).lock();
            // A leaf is taken away with its lock held, so either this one is still the right one
            // and stays, or the generation has changed.
            if self.table.generation() == generation {
                return Some(SimCursor::new(self, leaf, range.clone(), guard));
            }
        }
    }

    fn check(&self, range: &Range<VirtAddr>) {
        let Range { start, end } = range;
        assert!(start.is_page_aligned() && end.is_page_aligned() && start < end, "{range:?}");
        let last = end.value() - 1;
        assert!(start.value() / A::SPAN == last / A::SPAN, "{range:?} is in two leaf tables");
        let is_kernel = self.table.id == self.hw.reference.id;
        let mode = if is_kernel { Mode::Kernel } else { Mode::User };
        let belongs = A::mode(*start) == mode && A::mode(VirtAddr(last)) == mode;
        assert!(belongs && A::is_canonical(*start), "{range:?} is not of space {}", self.table.id);
    }
}

impl<A: Architecture> Drop for SimSpace<A> {
    fn drop(&mut self) {
        // The reference table lives as long as the computer: every space shares parts of it.
        if self.table.id != self.hw.reference.id {
            self.table.destroy(&self.hw);
        }
    }
}

impl<A: Architecture> fmt::Debug for SimSpace<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSpace")
            .field("id", &self.table.id)
            .field("root", &self.table.root)
            .field("leaves", &self.leaves())
            .finish_non_exhaustive()
    }
}

/// The locked entries of a range of a [`SimSpace`].
pub struct SimCursor<'a, A: Architecture> {
    space: &'a SimSpace<A>,
    leaf: Frame,
    range: Range<VirtAddr>,
    _guard: lock_api::MutexGuard<'a, SimMutex, ()>,
}

thread_local! {
    /// How many cursors the calling thread holds.
    static CURSORS: Cell<u32> = const { Cell::new(0) };
}

/// How many cursors the calling thread holds.
pub(crate) fn cursors_held() -> u32 {
    CURSORS.get()
}

impl<A: Architecture> Drop for SimCursor<'_, A> {
    fn drop(&mut self) {
        CURSORS.set(CURSORS.get() - 1);
    }
}

impl<A: Architecture> Cursor for SimCursor<'_, A> {
    /// # Panics
    /// If the address is outside the range.
    fn entry(&self, address: VirtAddr) -> Entry {
        A::decode(self.raw(address))
    }

    /// # Panics
    /// If the address is outside the range, or the processor's entries cannot hold `entry`
    /// ([`Architecture::LIMITS`]).
    fn replace(&mut self, address: VirtAddr, entry: Entry) -> Entry {
        let hw = &self.space.hw;
        let place = self.place(address);
        hw.expect(self.check_entry(address, entry));
        let raw = match A::encode(entry, A::mode(address)) {
            Ok(raw) => raw,
            Err(error) => panic!("{entry:?} at {address}: {error}"),
        };
        schedule::point();
        hw.prefetch_before_change(&self.space.table, address);
        A::decode(hw.frames.exchange_entry::<A>(place, raw))
    }

    /// Clears the bit alone, so that no CPU meets an entry that is taken out.
    fn clear_accessed(&mut self, address: VirtAddr) -> bool {
        schedule::point();
        let place = self.place(address);
        let is_present = self.entry(address).frame().is_some();
        is_present && self.space.hw.frames.clear::<A>(place, A::ACCESSED)
    }

    fn next(&self, from: VirtAddr) -> Option<VirtAddr> {
        let mut address = from.max(self.range.start);
        while address < self.range.end {
            if self.raw(address) != 0 {
                return Some(address);
            }
            address = address + PAGE_SIZE;
        }
        None
    }
}

impl<'a, A: Architecture> SimCursor<'a, A> {
    fn new(
        space: &'a SimSpace<A>,
        leaf: Frame,
        range: Range<VirtAddr>,
        guard: lock_api::MutexGuard<'a, SimMutex, ()>,
    ) -> Self {
        CURSORS.set(CURSORS.get() + 1);
        let cursor = Self { space, leaf, range, _guard: guard };
        if cursors_held() > 2 {
            let space = space.table.id;
            cursor.space.hw.expect(Err(Violation::TooManyCursors { space }));
        }
        cursor
    }

    /// The entry as the processor reads it.
    ///
    /// # Panics
    /// If the address is outside the range.
    pub fn raw(&self, address: VirtAddr) -> u64 {
        self.space.hw.frames.entry::<A>(self.place(address))
    }

    /// Writes an entry as the processor reads it, whatever it says, and returns what was there: a
    /// way to corrupt a page table.
    ///
    /// # Panics
    /// If the address is outside the range.
    pub fn replace_raw(&mut self, address: VirtAddr, raw: u64) -> u64 {
        self.space.hw.frames.exchange_entry::<A>(self.place(address), raw)
    }

    fn place(&self, address: VirtAddr) -> Place {
        let inside = self.range.contains(&address) && address.is_page_aligned();
        assert!(inside, "{address} is not a page of {:?}", self.range);
        Place { table: self.leaf, index: A::index(address, 1) }
    }

    fn check_entry(&self, address: VirtAddr, entry: Entry) -> Result<(), Violation> {
        let Entry::Present { frame, protection, dirty, .. } = entry else { return Ok(()) };
        let is_writable = protection.contains(Protection::WRITE);
        let operation = if is_writable { Operation::MapWritable } else { Operation::Map };
        self.space.hw.frames.check_use(frame, operation)?;
        if is_writable && !dirty && !self.space.hw.config.dirty_bits {
            return Err(Violation::WritableUnnoticed { address });
        }
        Ok(())
    }
}
