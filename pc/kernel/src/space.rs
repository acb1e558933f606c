//! Page tables of four levels, written through the direct map.
//!
//! # Locks
//! A cursor holds the space's `levels` for reading and the lock of its leaf table. A missing level
//! is entered by one atomic exchange under `levels` for reading; only [`Space::prune`] takes tables
//! away, under `levels` for writing, when no cursor is left. A reader may enter while a writer
//! waits, so that two cursors of one thread do not meet a waiting writer between them.
//!
//! The leaf that was found last is remembered, since the next one is most often the same. It is read
//! and written under `levels` for reading, and forgotten where tables are taken away, under `levels`
//! for writing: so what is remembered is a table of the space.

use crate::direct::{self, Table, index, table};
use crate::failures;
use crate::frames::Frames;
use crate::layout::TASK_SIZE;
use crate::lock::{MutexGuard, ReadGuard, RwLock};
use crate::machine::leave_reserve;
use crate::shootdown::{self, Presence};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use pagefault::machine::encode::x86_64::{self as encode, Bits};
use pagefault::machine::{
    Cursor, Entry, Frame, Mode, OutOfFrames, PAGE_SIZE, Protection, Space, VirtAddr,
};

/// The entries of the top level from here on translate kernel addresses.
const KERNEL_HALF: usize = 256;

/// How many tables are taken away before the processors are interrupted.
const BATCH: usize = 32;

/// Tables out of the tree, that are freed when every processor knows.
struct Taken {
    frames: [Frame; BATCH],
    count: usize,
}

impl Taken {
    const fn is_full(&self) -> bool {
        self.count == BATCH
    }

    const fn push(&mut self, frame: Frame) {
        self.frames[self.count] = frame;
        self.count += 1;
    }
}

/// Which tables may be taken away.
struct Bounds {
    /// They serve only addresses in here.
    hole: Range<u64>,
    /// They serve some address in here.
    unmapped: Range<u64>,
}

/// The leaf table that was found last, and which addresses it covers: in one word, the number of the
/// span in the upper half and the frame in the lower. 0 for none, since frame 0 is no table.
#[derive(Default)]
struct Recent(AtomicU64);

impl Recent {
    #[inline]
    fn find(&self, address: VirtAddr) -> Option<Frame> {
        let word = self.0.load(Ordering::Acquire);
        (word >> 32 == address.value() / PcSpace::SPAN && word != 0).then_some(Frame(word as u32))
    }

    fn remember(&self, address: VirtAddr, leaf: Frame) {
        let span = address.value() / PcSpace::SPAN;
        self.0.store(span << 32 | u64::from(leaf.0), Ordering::Release);
    }

    fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The page table of one address space.
pub struct PcSpace {
    frames: &'static Frames,
    root: Frame,
    id: u32,
    levels: RwLock<()>,
    recent: Recent,
    leaves: AtomicUsize,
    /// How many of them have no entry: when there is none, nothing can be pruned.
    empty_leaves: AtomicUsize,
    /// Where it is in use.
    pub presence: Presence,
}

impl PcSpace {
    /// Makes an empty address space with the kernel's part of `reference`.
    pub fn new(frames: &'static Frames, reference: Frame, id: u32) -> Result<Self, OutOfFrames> {
        let root = frames.allocate_table()?;
        // SAFETY: the reference table is never freed, and the new root is ours.
        let (from, to) = unsafe { (table(reference), table(root)) };
        for at in KERNEL_HALF..512 {
            to[at].store(from[at].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        Ok(Self {
            frames,
            root,
            id,
            levels: RwLock::new(()),
            recent: Recent::default(),
            leaves: AtomicUsize::new(0),
            empty_leaves: AtomicUsize::new(0),
            presence: Presence::default(),
        })
    }

    /// The frame of the top level: what CR3 holds while a CPU runs the space.
    pub const fn root(&self) -> Frame {
        self.root
    }

    /// The leaf table that covers an address. The caller holds `levels`.
    #[inline]
    fn leaf(&self, address: VirtAddr) -> Option<Frame> {
        self.recent.find(address).or_else(|| self.walk_to_leaf(address))
    }

    #[cold]
    fn walk_to_leaf(&self, address: VirtAddr) -> Option<Frame> {
        let leaf = self.descend(address, 1)?;
        self.recent.remember(address, leaf);
        Some(leaf)
    }

    /// The table of `level` that covers an address. The caller holds `levels`.
    fn descend(&self, address: VirtAddr, level: u32) -> Option<Frame> {
        let mut at = self.root;
        for above in (level + 1..=4).rev() {
            // SAFETY: `at` is a table of this space, and none is taken away under `levels`.
            let raw = unsafe { table(at) }[index(address.value(), above)].load(Ordering::Acquire);
            if raw == 0 {
                return None;
            }
            at = encode::frame(raw);
        }
        Some(at)
    }

    /// The level of the table whose entry for an address is missing; `None` if the leaf exists. The
    /// caller holds `levels`.
    fn missing_level(&self, address: VirtAddr) -> Option<u32> {
        (1..4).rev().find(|level| self.descend(address, *level).is_none()).map(|level| level + 1)
    }

    /// Makes the levels that are missing (spec B1).
    fn make_levels(&self, address: VirtAddr) -> Result<(), OutOfFrames> {
        for level in (1..4).rev() {
            let _levels = self.levels.read();
            if self.descend(address, level).is_some() {
                continue;
            }
            let Some(parent) = self.descend(address, level + 1) else { continue };
            leave_reserve(self.frames)?;
            let new = self.frames.allocate_table()?;
            // SAFETY: `parent` is a table of this space, and none is taken away under `levels`.
            let entry = &unsafe { table(parent) }[index(address.value(), level + 1)];
            let raw = encode::table(new, Mode::User);
            if level == 1 {
                self.frames.live(new).store(0, Ordering::Relaxed);
            }
            match entry.compare_exchange(0, raw, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if level == 1 => {
                    self.leaves.fetch_add(1, Ordering::Relaxed);
                    self.empty_leaves.fetch_add(1, Ordering::Relaxed);
                }
                Ok(_) => {}
                // Another was faster.
                Err(_) => self.frames.free(new, 0),
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn try_lock(&self, range: &Range<VirtAddr>) -> Option<PcCursor<'_>> {
        let levels = self.levels.read();
        let leaf = self.leaf(range.start)?;
        let entries = self.frames.lock_leaf(leaf);
        Some(PcCursor { space: self, leaf, end: range.end, _entries: entries, _levels: levels })
    }

    /// Locks entries whose leaf table is missing, or may be.
    #[cold]
    fn make_and_lock(&self, range: &Range<VirtAddr>) -> Result<PcCursor<'_>, OutOfFrames> {
        loop {
            failures::frame()?;
            self.make_levels(range.start)?;
            if let Some(cursor) = self.try_lock(range) {
                return Ok(cursor);
            }
        }
    }

    /// Takes empty leaf tables that serve unmapped addresses, and the levels above them that become
    /// empty, out of the tree, as many as `taken` has room for. Tables that reach beyond the hole stay.
    ///
    /// The caller holds `levels` for writing.
    fn take_empty(&self, at: Frame, level: u32, base: u64, range: &Bounds, taken: &mut Taken) {
        let span = 1 << (12 + 9 * (level - 1));
        let first = range.unmapped.start.saturating_sub(base) / span;
        let last = (range.unmapped.end - base).div_ceil(span).min(512);
        // SAFETY: `at` is a table of this space, whose tree is ours while `levels` is held.
        let entries = unsafe { table(at) };
        for (i, entry) in (first..last).zip(&entries[first as usize..]) {
            let raw = entry.load(Ordering::Relaxed);
            if raw == 0 || taken.is_full() {
                continue;
            }
            let (lower, start) = (encode::frame(raw), base + i * span);
            if level > 2 {
                self.take_empty(lower, level - 1, start, range, taken);
            }
            let is_inside = start >= range.hole.start && start + span <= range.hole.end;
            if is_inside && !taken.is_full() && self.is_empty(lower, level - 1) {
                entry.store(0, Ordering::Release);
                taken.push(lower);
                if level == 2 {
                    self.leaves.fetch_sub(1, Ordering::Relaxed);
                    self.empty_leaves.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn is_empty(&self, at: Frame, level: u32) -> bool {
        if level == 1 {
            return self.frames.live(at).load(Ordering::Relaxed) == 0;
        }
        // SAFETY: as in `take_empty`.
        unsafe { table(at) }.iter().all(|entry| entry.load(Ordering::Relaxed) == 0)
    }

    /// Frees all tables below an entry of the user's half.
    fn free_below(&self, at: Frame, level: u32, entries: Range<usize>) {
        for index in entries {
            // SAFETY: `at` is a table of this space, which nobody uses any more.
            let raw = unsafe { direct::table(at) }[index].load(Ordering::Relaxed);
            if raw != 0 && level > 1 {
                let lower = encode::frame(raw);
                self.free_below(lower, level - 1, 0..512);
                self.frames.free(lower, 0);
            }
        }
    }
}

impl Space for PcSpace {
    type Cursor<'a> = PcCursor<'a>;
    const SPAN: u64 = 2 << 20;

    fn id(&self) -> u32 {
        self.id
    }

    #[inline(always)]
    fn lock(&self, range: Range<VirtAddr>) -> Result<PcCursor<'_>, OutOfFrames> {
        match self.try_lock(&range) {
            Some(cursor) => Ok(cursor),
            None => self.make_and_lock(&range),
        }
    }

    #[inline(always)]
    fn lock_existing(&self, range: Range<VirtAddr>) -> Option<PcCursor<'_>> {
        self.try_lock(&range)
    }

    fn next_leaf(&self, range: Range<VirtAddr>) -> Option<VirtAddr> {
        let mut at = range.start;
        while at < range.end {
            let _levels = self.levels.read();
            let Some(level) = self.missing_level(at) else { return Some(at) };
            // Nothing is below a missing entry: go on after all that it would cover.
            let covered = (1 << (12 + 9 * (level - 1))) - 1;
            at = VirtAddr(at.value() | covered).checked_add(1)?;
        }
        None
    }

    fn prune(&self, hole: Range<VirtAddr>, unmapped: Range<VirtAddr>) {
        let range = Bounds {
            hole: hole.start.value()..hole.end.value().min(TASK_SIZE),
            unmapped: unmapped.start.value()..unmapped.end.value().min(TASK_SIZE),
        };
        // Looked at without a lock: a leaf that becomes empty now is some later call's.
        while self.empty_leaves.load(Ordering::Relaxed) > 0 {
            let mut taken = Taken { frames: [Frame(0); BATCH], count: 0 };
            {
                let _levels = self.levels.write();
                self.recent.forget();
                self.take_empty(self.root, 4, 0, &range, &mut taken);
            }
            if taken.count > 0 {
                // A processor may be in the middle of a walk, or remember an upper level.
                shootdown::flush_all(self);
                for frame in &taken.frames[..taken.count] {
                    self.frames.free(*frame, 0);
                }
            }
            if !taken.is_full() {
                return;
            }
        }
    }

    fn leaves(&self) -> usize {
        self.leaves.load(Ordering::Relaxed)
    }
}

impl Drop for PcSpace {
    fn drop(&mut self) {
        shootdown::leave(self);
        self.free_below(self.root, 4, 0..KERNEL_HALF);
        self.frames.free(self.root, 0);
    }
}

/// The locked entries of a range.
pub struct PcCursor<'a> {
    space: &'a PcSpace,
    leaf: Frame,
    end: VirtAddr,
    _entries: MutexGuard<'a, ()>,
    _levels: ReadGuard<'a, ()>,
}

/// What happened to an entry.
#[derive(Clone, Copy)]
enum Change {
    Came,
    Left,
}

impl PcCursor<'_> {
    #[inline]
    fn word(&self, address: VirtAddr) -> &AtomicU64 {
        // SAFETY: the leaf stays a table while `levels` is held, which the cursor does.
        let table: &Table = unsafe { table(self.leaf) };
        &table[index(address.value(), 1)]
    }

    /// Counts an entry that came or went, under the leaf's lock.
    #[inline]
    fn count(&self, change: Change) {
        let live = self.space.frames.live(self.leaf);
        let before = live.load(Ordering::Relaxed);
        let now = match change {
            Change::Came => before + 1,
            Change::Left => before - 1,
        };
        live.store(now, Ordering::Relaxed);
        if before == 0 {
            self.space.empty_leaves.fetch_sub(1, Ordering::Relaxed);
        } else if now == 0 {
            self.space.empty_leaves.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Cursor for PcCursor<'_> {
    #[inline]
    fn entry(&self, address: VirtAddr) -> Entry {
        encode::decode(self.word(address).load(Ordering::Acquire))
    }

    // Where the entry's kind is known, and nobody asks for the old one, little is left of it.
    #[inline(always)]
    fn replace(&mut self, address: VirtAddr, entry: Entry) -> Entry {
        // Slots and file indexes come from the memory manager, which keeps to the limits that the
        // machine declares; a number beyond them would otherwise name another page.
        let raw = encode::encode(entry, Mode::User).expect("the entry fits the processor's word");
        let old = self.word(address).swap(raw, Ordering::AcqRel);
        if (old == 0) != (raw == 0) {
            self.count(if raw != 0 { Change::Came } else { Change::Left });
        }
        encode::decode(old)
    }

    fn next(&self, from: VirtAddr) -> Option<VirtAddr> {
        let mut address = from;
        while address < self.end {
            if self.word(address).load(Ordering::Relaxed) != 0 {
                return Some(address);
            }
            address = address + PAGE_SIZE;
        }
        None
    }

    fn protect(&mut self, address: VirtAddr, protection: Protection) -> Entry {
        // One exchange, made again if the processor sets a bit meanwhile (spec G5).
        let change = |raw| match encode::decode(raw) {
            Entry::Present { frame, accessed, dirty, .. } => {
                encode::encode(Entry::Present { frame, protection, accessed, dirty }, Mode::User)
                    .ok()
            }
            _ => None,
        };
        let word = self.word(address);
        let old = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        encode::decode(old.unwrap_or_else(|raw| raw))
    }

    fn clear_accessed(&mut self, address: VirtAddr) -> bool {
        let word = self.word(address);
        let present = encode::decode(word.load(Ordering::Relaxed)).frame().is_some();
        present
            && word.fetch_and(!Bits::ACCESSED.bits(), Ordering::AcqRel) & Bits::ACCESSED.bits() != 0
    }
}
