//! The state of every frame: its references, its mappings, its content.
//!
//! Linux's `struct page` (spec, Conventions). The table is made once, with one element for each
//! frame of the machine; nothing in it is allocated later. Where the heap's zeros cost nothing, an
//! element takes memory only once its frame is used. A page's fields are changed under these
//! rules:
//!
//! | field | changed by |
//! |---|---|
//! | `refs` | a holder of a reference, or a finder in a cache under its chain's lock |
//! | `maps` | a change of an entry that names the page, under the entry's cursor |
//! | pins | raised under the cursor over an entry that names the page, lowered by the pin's holder |
//! | `owner`, `index` | the holder of the page lock, or the only user of a new page |
//! | `slot` | the holder of the page lock, under the chain's lock |
//! | queue links | under the lock of the queue's shard |

use crate::machine::{Frame, Machine, SwapSlot};
use crate::word::{Sole, Word};
use alloc::boxed::Box;
use bytemuck::allocation::zeroed_slice_box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The end of a chain or queue.
pub(crate) const NO_FRAME: u32 = u32::MAX;

bitflags::bitflags! {
    /// The state of a page and of the work on it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct PageFlags: u32 {
        /// The page lock, where faults, I/O and reclaim meet. Held while the content is read or
        /// written.
        const LOCKED = 1;
        /// A thread waits for the lock.
        const WAITERS = 2;
        /// The content is complete.
        const UPTODATE = 4;
        /// The content differs from its backing store, or has no store.
        const DIRTY = 8;
        /// The page came back from swap before it was touched, and has shown no sign of use.
        const READ_AHEAD = 0x10;
        /// The page was used since the replacement policy last looked.
        const REFERENCED = 0x20;
        /// The page is in the main queue rather than in the small one.
        const MAIN = 0x40;
        /// The page is in a replacement queue.
        const QUEUED = 0x80;
        /// The page is in the swap cache, at `slot`.
        const SWAP_CACHE = 0x100;
        /// The page is in the page cache, at `owner` and `index`.
        const PAGE_CACHE = 0x200;
        /// Reading the content failed.
        const ERROR = 0x400;
        /// The owner allowed the content to be discarded while the page stays clean (J9).
        const LAZY_FREE = 0x800;
        /// The page is on standby rather than in the small or the main queue.
        const STANDBY = 0x1000;
        /// How many rounds of the main queue the page stays because it was used on standby: a
        /// two-bit number, changed under the lock of the queue's shard.
        const ROUNDS = 0x6000;
        /// Untouched memory got the page before its first access; it has shown no sign of use.
        const POPULATED_AHEAD = 0x8000;
    }
}

/// One of [`PageFlags::ROUNDS`].
const ONE_ROUND: u32 = 0x2000;

impl PageFlags {
    /// So many rounds, of which there is room for three.
    pub(crate) const fn rounds(count: u32) -> Self {
        Self::from_bits_retain((count * ONE_ROUND) & Self::ROUNDS.bits())
    }
}

/// One pin, in the upper half of the flags' word.
const PIN: u32 = 1 << 16;

/// The owner of a page's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// None yet.
    None,
    /// Anonymous memory of the family of regions with this number.
    Anon(u64),
    /// The file with this number.
    File(u64),
}

/// The bit of an owner's code that tells a file from a family.
const OF_FILE: u64 = 1;

impl Owner {
    const fn encode(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Anon(id) => id << 1,
            Self::File(id) => id << 1 | OF_FILE,
        }
    }

    const fn decode(raw: u64) -> Self {
        match (raw, raw & OF_FILE) {
            (0, _) => Self::None,
            (_, 0) => Self::Anon(raw >> 1),
            _ => Self::File(raw >> 1),
        }
    }
}

/// The state of one frame; all zero at first.
///
/// Its fields take 48 bytes. With 64 for each row, they lie in one cache line where the table begins at most
/// 16 bytes past one. An alignment would ensure that, but a heap's zeros cost something if they are aligned.
#[derive(bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Page {
    /// References: one for each entry, cache, pin and passing user (spec I2). 0: free.
    pub(crate) refs: AtomicU32,
    /// Present entries that name the frame (spec I3).
    pub(crate) maps: AtomicU32,
    /// [`PageFlags`] in the lower half, the number of pins in the upper.
    pub(crate) flags: AtomicU32,
    /// The next frame of the same chain of the cache, while the page is in one.
    pub(crate) chain: AtomicU32,
    /// The neighbours in the replacement queue, while the page is in one.
    pub(crate) newer: AtomicU32,
    pub(crate) older: AtomicU32,
    owner: AtomicU64,
    index: AtomicU64,
    slot: AtomicU64,
    _rest: [u64; 2],
}

impl Page {
    #[inline]
    pub(crate) fn flags(&self) -> PageFlags {
        PageFlags::from_bits_truncate(self.flags.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn has(&self, flags: PageFlags) -> bool {
        self.flags().intersects(flags)
    }

    #[inline]
    pub(crate) fn set(&self, who: &impl Sole, flags: PageFlags) -> PageFlags {
        let before = self.flags.or_by(who, flags.bits(), Ordering::AcqRel);
        PageFlags::from_bits_truncate(before)
    }

    #[inline]
    pub(crate) fn clear(&self, who: &impl Sole, flags: PageFlags) -> PageFlags {
        let before = self.flags.and_by(who, !flags.bits(), Ordering::AcqRel);
        PageFlags::from_bits_truncate(before)
    }

    /// Uses up one of the rounds for which the page stays; false if none is left.
    #[inline]
    pub(crate) fn spend_round(&self, who: &impl Sole) -> bool {
        let some = self.has(PageFlags::ROUNDS);
        if some {
            self.flags.sub_by(who, ONE_ROUND, Ordering::AcqRel);
        }
        some
    }

    #[inline]
    pub(crate) fn owner(&self) -> Owner {
        Owner::decode(self.owner.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn set_owner(&self, owner: Owner, index: u64) {
        self.index.store(index, Ordering::Release);
        self.owner.store(owner.encode(), Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_anon(&self) -> bool {
        let raw = self.owner.load(Ordering::Acquire);
        raw != Owner::None.encode() && raw & OF_FILE == 0
    }

    /// Whether the page is anonymous memory of a family.
    #[inline]
    pub(crate) fn is_of(&self, family: u64) -> bool {
        self.owner.load(Ordering::Acquire) == Owner::Anon(family).encode()
    }

    #[inline]
    pub(crate) fn index(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }

    /// The slot of a page in the swap cache.
    #[inline]
    pub(crate) fn slot(&self) -> Option<SwapSlot> {
        if !self.has(PageFlags::SWAP_CACHE) {
            return None;
        }
        let raw = self.slot.load(Ordering::Acquire);
        Some(SwapSlot { area: (raw >> 32) as u8, offset: raw as u32 })
    }

    #[inline]
    pub(crate) fn set_slot(&self, slot: SwapSlot) {
        self.slot.store(u64::from(slot.area) << 32 | u64::from(slot.offset), Ordering::Release);
    }

    #[inline]
    pub(crate) fn refs(&self) -> u32 {
        self.refs.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn maps(&self) -> u32 {
        self.maps.load(Ordering::Acquire)
    }

    /// Takes a reference on a page to which the caller already has one, or whose release it
    /// prevents.
    #[inline]
    pub(crate) fn hold(&self, who: &impl Sole) {
        let before = self.refs.add_by(who, 1, Ordering::AcqRel);
        debug_assert!(before > 0, "reference to a free page");
    }

    /// Takes a reference, unless the page has none.
    #[inline]
    pub(crate) fn try_hold(&self, who: &impl Sole) -> bool {
        if who.is_sole() {
            let some = self.refs() > 0;
            self.refs.add_by(who, u32::from(some), Ordering::AcqRel);
            return some;
        }
        let more = |refs| (refs > 0).then_some(refs + 1);
        self.refs.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// How many pins there are; each also has a reference.
    #[inline]
    pub(crate) fn pins(&self) -> u32 {
        self.flags.load(Ordering::Acquire) / PIN
    }

    /// Whether a device uses the page (spec B20).
    #[inline]
    pub(crate) fn is_pinned(&self) -> bool {
        self.pins() > 0
    }

    /// Adds a pin, unless there are too many to count; see the table above.
    pub(crate) fn pin(&self) -> bool {
        let more = |word: u32| word.checked_add(PIN);
        self.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Undoes [`pin`](Self::pin).
    pub(crate) fn unpin(&self) {
        let before = self.flags.fetch_sub(PIN, Ordering::AcqRel);
        debug_assert!(before >= PIN, "unpinned too often");
    }

    /// The number of references that the caches hold.
    #[inline]
    pub(crate) fn cache_refs(&self) -> u32 {
        u32::from(self.has(PageFlags::SWAP_CACHE | PageFlags::PAGE_CACHE))
    }

    /// Gives the lock back.
    #[inline]
    pub(crate) fn unlock(&self, machine: &impl Machine) {
        let before = self.clear(machine, PageFlags::LOCKED | PageFlags::WAITERS);
        debug_assert!(before.contains(PageFlags::LOCKED), "unlocked but not locked");
        if before.contains(PageFlags::WAITERS) {
            machine.wake(&self.flags);
        }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub(crate) fn try_lock(&self, who: &impl Sole) -> bool {
        !self.set(who, PageFlags::LOCKED).contains(PageFlags::LOCKED)
    }
}

/// The table of all pages.
pub(crate) struct Pages {
    table: Box<[Page]>,
}

impl Pages {
    pub(crate) fn new(frames: u32) -> Self {
        Self { table: zeroed_slice_box(frames as usize) }
    }

    #[inline]
    pub(crate) fn of(&self, frame: Frame) -> &Page {
        &self.table[frame.index()]
    }

    /// The page of a frame, unless the frame is memory of a device.
    #[inline]
    pub(crate) fn get(&self, frame: Frame) -> Option<&Page> {
        self.table.get(frame.index())
    }

    pub(crate) fn len(&self) -> u32 {
        self.table.len() as u32
    }

    /// Locks a page, waiting while another thread has it. The caller holds a reference.
    pub(crate) fn lock(&self, machine: &impl Machine, frame: Frame) {
        let page = self.of(frame);
        while !page.try_lock(machine) {
            let waiters = PageFlags::WAITERS.bits();
            let seen = page.flags.fetch_or(waiters, Ordering::AcqRel);
            if seen & PageFlags::LOCKED.bits() != 0 {
                machine.wait(&page.flags, seen | waiters);
            }
        }
    }
}
