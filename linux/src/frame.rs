//! The frames: the place of each one's content, and which are free.
//!
//! A frame of this machine is a number with a *location*. Its content is at the one host address where
//! it is mapped, or parked in a [buffer](crate::buffer) of the manager's own, or nowhere as long as
//! it is all zeros.
//!
//! # Locks
//! Each frame has a lock, whose holder may move the content: every change of a frame's host page
//! happens under it. A thread that already holds a frame's lock, or a lock of a page table, only
//! *tries* to take a frame's lock. On failure it releases everything and waits.

use crate::host;
use crate::lock::SoleMutex;
use crate::reserve::{ReserveError, Sparse, Zeroed};
use crate::uffd::Mapped;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64, fence};
use lock_api::RawMutex;
use pagefault_machine::Frame;

/// The place of a frame's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// The frame is free.
    Free,
    /// Allocated, content undefined (and in fact zeros).
    Blank,
    /// All zeros; costs nothing.
    Zero,
    /// In the buffer with this number.
    Buffer(u32),
    /// In the host page with this address.
    At(u64, Mapped),
}

const FREE: u64 = 0;
const BLANK: u64 = 1;
const ZERO: u64 = 2;
const BUFFER: u64 = 3;
const AT: u64 = 4;
const TAG: u64 = 7;
const WRITABLE: u64 = 8;

impl Location {
    // The host's addresses are below 2^47 and page-aligned, so the low bits are free for the tag.
    fn encode(self) -> u64 {
        match self {
            Self::Free => FREE,
            Self::Blank => BLANK,
            Self::Zero => ZERO,
            Self::Buffer(slot) => BUFFER | u64::from(slot) << 12,
            Self::At(page, Mapped::Writable) => AT | WRITABLE | page,
            Self::At(page, Mapped::WriteProtected) => AT | page,
        }
    }

    fn decode(word: u64) -> Self {
        let page = word & !0xFFF;
        match word & TAG {
            BLANK => Self::Blank,
            ZERO => Self::Zero,
            BUFFER => Self::Buffer((word >> 12) as u32),
            AT if word & WRITABLE != 0 => Self::At(page, Mapped::Writable),
            AT => Self::At(page, Mapped::WriteProtected),
            _ => Self::Free,
        }
    }
}

#[repr(C)]
struct Slot {
    location: AtomicU64,
    lock: SoleMutex,
    /// While free: the next free frame plus one.
    next: AtomicU32,
}

// SAFETY: all fields are atomics, valid when zero: location free, unlocked, no next.
unsafe impl Zeroed for Slot {}

/// The number of free lists; threads are spread over them.
const SHARDS: usize = 16;

#[repr(align(64))]
struct Shard {
    lock: SoleMutex,
    /// The first free frame plus one.
    head: AtomicU32,
    count: AtomicU32,
}

/// The frames whose slots are reserved together: a quarter of a gigabyte of memory.
const CHUNK: usize = 1 << 16;

struct Chunk([Slot; CHUNK]);

// SAFETY: an array of slots, valid when zero.
unsafe impl Zeroed for Chunk {}

/// All frames of a machine.
pub struct Frames {
    chunks: Sparse<Chunk>,
    len: u32,
    shards: [Shard; SHARDS],
    /// Frames from here on have never been allocated.
    fresh: AtomicU32,
}

/// A locked frame; released on drop.
pub struct Held<'a> {
    slot: &'a Slot,
    frame: Frame,
}

impl Frames {
    /// `count` free frames.
    pub fn new(count: u32) -> Result<Self, ReserveError> {
        Ok(Self {
            chunks: Sparse::new((count as usize).div_ceil(CHUNK))?,
            len: count,
            shards: [const {
                Shard { lock: SoleMutex::INIT, head: AtomicU32::new(0), count: AtomicU32::new(0) }
            }; SHARDS],
            fresh: AtomicU32::new(0),
        })
    }

    /// The number of frames.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Frames with numbers from here on have never been used. A fresh one is taken only when no
    /// used one is free, so this is also the most that were in use at once.
    pub fn used(&self) -> u32 {
        self.fresh.load(Acquire)
    }

    /// Roughly how many are free.
    pub fn free_count(&self) -> u32 {
        let listed: u32 = self.shards.iter().map(|s| s.count.load(Relaxed)).sum();
        (self.len() - self.used()).saturating_add(listed)
    }

    /// Takes a free frame, preferably one that the same context freed. Its content is undefined.
    pub fn allocate(&self, context: u32) -> Option<Frame> {
        let frame = self
            .pop(&self.shards[context as usize % SHARDS])
            .or_else(|| self.shards.iter().find_map(|shard| self.pop(shard)))
            .or_else(|| self.take_fresh())?;
        // No longer on a list, it belongs to the caller alone.
        let location = &self.slot(frame).location;
        let before = location.load(Acquire);
        location.store(Location::Blank.encode(), Release);
        debug_assert_eq!(Location::decode(before), Location::Free, "{frame:?} is handed out twice");
        Some(frame)
    }

    /// Puts a frame without content on a free list.
    pub fn release(&self, held: Held<'_>, context: u32) {
        held.set_location(Location::Free);
        let frame = held.frame;
        drop(held);
        let shard = &self.shards[context as usize % SHARDS];
        shard.lock.lock();
        self.slot(frame).next.store(shard.head.load(Relaxed), Relaxed);
        shard.head.store(frame.0 + 1, Relaxed);
        // Changed under the lock alone.
        shard.count.store(shard.count.load(Relaxed) + 1, Relaxed);
        // SAFETY: locked above.
        unsafe { shard.lock.unlock() };
    }

    /// Locks a frame. The caller must hold no other frame and no page-table lock.
    pub fn hold(&self, frame: Frame) -> Held<'_> {
        let slot = self.slot(frame);
        slot.lock.lock();
        Held { slot, frame }
    }

    /// Locks a frame, unless another thread has it.
    pub fn try_hold(&self, frame: Frame) -> Option<Held<'_>> {
        let slot = self.slot(frame);
        slot.lock.try_lock().then(|| Held { slot, frame })
    }

    /// Waits until the frame's holder releases it.
    pub fn wait_until_idle(&self, frame: Frame) {
        self.slot(frame).lock.wait_until_free();
    }

    /// Begins to load what is noted about a frame.
    #[inline]
    pub fn prefetch(&self, frame: Frame) {
        host::prefetch(self.slot(frame));
    }

    /// The location of a frame that no thread holds.
    ///
    /// A thread that holds it later sees every entry that was written before this call and an atomic exchange
    /// after it.
    pub fn peek_idle(&self, frame: Frame) -> Option<Location> {
        let is_held = self.slot(frame).lock.is_locked();
        // The last holder's location, if it has released the frame.
        fence(Acquire);
        (!is_held).then(|| self.peek(frame))
    }

    /// A frame's location, as it was a moment ago.
    pub fn peek(&self, frame: Frame) -> Location {
        Location::decode(self.slot(frame).location.load(Acquire))
    }

    fn take_fresh(&self) -> Option<Frame> {
        let mut number = self.fresh.load(Relaxed);
        loop {
            if number >= self.len {
                return None;
            }
            // The slot exists before any thread knows the number.
            self.chunks.get_or_reserve(number as usize / CHUNK).ok()?;
            match self.fresh.compare_exchange_weak(number, number + 1, AcqRel, Relaxed) {
                Ok(_) => return Some(Frame(number)),
                Err(now) => number = now,
            }
        }
    }

    /// The slot of a frame that was handed out.
    #[inline]
    fn slot(&self, frame: Frame) -> &Slot {
        match self.chunks.get(frame.index() / CHUNK) {
            Some(chunk) => &chunk.0[frame.index() % CHUNK],
            None => unreachable!("{frame:?} was never handed out"),
        }
    }

    fn pop(&self, shard: &Shard) -> Option<Frame> {
        if shard.count.load(Relaxed) == 0 {
            return None;
        }
        shard.lock.lock();
        let frame = shard.head.load(Relaxed).checked_sub(1).map(Frame);
        if let Some(frame) = frame {
            shard.head.store(self.slot(frame).next.load(Relaxed), Relaxed);
            shard.count.store(shard.count.load(Relaxed) - 1, Relaxed);
        }
        // SAFETY: locked above.
        unsafe { shard.lock.unlock() };
        frame
    }
}

impl Held<'_> {
    /// The place of the content.
    pub fn location(&self) -> Location {
        Location::decode(self.slot.location.load(Acquire))
    }

    /// Notes the new place of the content.
    pub fn set_location(&self, location: Location) {
        self.slot.location.store(location.encode(), Release);
    }

    /// The frame's number.
    pub fn frame(&self) -> Frame {
        self.frame
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: a `Held` exists only while its lock is held by its owner.
        unsafe { self.slot.lock.unlock() };
    }
}

#[cfg(test)]
mod tests;
