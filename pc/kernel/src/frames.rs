//! The machine's frames: which are free, and a lock for each that is a leaf table.

use crate::buddy::{Buddy, Link};
use crate::direct::{self, Early};
use crate::layout::DIRECT_MAP;
use crate::lock::{Mutex, MutexGuard};
use crate::start_info::BootInfo;
use core::ops::Range;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use pagefault::machine::{Frame, OutOfFrames};

/// All frames of the machine, by physical page number.
pub struct Frames {
    buddy: Mutex<Buddy<'static>>,
    free: AtomicU32,
    leaf_locks: &'static [Mutex<()>],
    /// For each frame that is a leaf table, how many of its entries are not empty.
    live: &'static [AtomicU16],
}

/// The frame bookkeeping, as physical addresses, before the direct map is in use.
pub struct Reserved {
    links: u64,
    locks: u64,
    live: u64,
}

impl Reserved {
    /// Sets memory aside for the bookkeeping of every frame.
    pub fn new(info: &BootInfo, early: &mut Early) -> Self {
        let frames = u64::from(info.frames());
        let links = early.take(frames * size_of::<Link>() as u64);
        let locks = early.take(frames * size_of::<Mutex<()>>() as u64);
        let live = early.take(frames * size_of::<AtomicU16>() as u64);
        Self { links, locks, live }
    }
}

impl Frames {
    /// Finds the free frames: all memory above the first megabyte, which devices and firmware use
    /// in old ways, but what is `used` and the archive.
    pub fn new(info: &BootInfo, reserved: &Reserved, used: &Range<u64>) -> Self {
        let count = info.frames() as usize;
        let links = (DIRECT_MAP + reserved.links) as *mut Link;
        for i in 0..count {
            // SAFETY: `Reserved::new` set aside that many elements, for this use alone, and the
            // direct map is in use.
            unsafe { links.add(i).write(Link::USED) };
        }
        // SAFETY: as above, and all elements were just written; nobody else has the pointer.
        let links = unsafe { core::slice::from_raw_parts_mut(links, count) };
        let mut buddy = Buddy::new(links);
        let archive = info.archive.start & !4095..info.archive.end.next_multiple_of(4096);
        for piece in info.pieces() {
            for at in piece.step_by(4096) {
                let taken = used.contains(&at) || archive.contains(&at) || at < 1 << 20;
                if !taken {
                    buddy.free((at >> 12) as u32, 0);
                }
            }
        }
        let locks = (DIRECT_MAP + reserved.locks) as *const Mutex<()>;
        // SAFETY: the memory was set aside for this use and is zero, which is an unlocked lock.
        let leaf_locks = unsafe { core::slice::from_raw_parts(locks, count) };
        let live = (DIRECT_MAP + reserved.live) as *const AtomicU16;
        // SAFETY: as above; zero is a valid count.
        let live = unsafe { core::slice::from_raw_parts(live, count) };
        let free = AtomicU32::new(buddy.free_frames());
        Self { buddy: Mutex::new(buddy), free, leaf_locks, live }
    }

    /// One past the highest frame number.
    pub const fn count(&self) -> u32 {
        self.leaf_locks.len() as u32
    }

    /// How many are free now.
    pub fn free_frames(&self) -> u32 {
        self.free.load(Ordering::Relaxed)
    }

    /// Takes 2^`order` frames that lie one after the other.
    pub fn allocate(&self, order: usize) -> Result<Frame, OutOfFrames> {
        let mut buddy = self.buddy.lock();
        let frame = buddy.allocate(order).ok_or(OutOfFrames)?;
        self.free.store(buddy.free_frames(), Ordering::Relaxed);
        Ok(Frame(frame))
    }

    /// Gives 2^`order` frames back.
    pub fn free(&self, frame: Frame, order: usize) {
        let mut buddy = self.buddy.lock();
        buddy.free(frame.0, order);
        self.free.store(buddy.free_frames(), Ordering::Relaxed);
    }

    /// Takes a frame full of zeros, to be a page table.
    pub fn allocate_table(&self) -> Result<Frame, OutOfFrames> {
        let frame = self.allocate(0)?;
        // SAFETY: the frame was just allocated: nobody else uses it.
        unsafe { direct::content(frame).write_bytes(0, 1) };
        Ok(frame)
    }

    /// Locks the entries of a leaf table.
    pub fn lock_leaf(&self, leaf: Frame) -> MutexGuard<'_, ()> {
        self.leaf_locks[leaf.index()].lock()
    }

    /// How many entries of a leaf table are not empty; changed under its lock.
    pub fn live(&self, leaf: Frame) -> &AtomicU16 {
        &self.live[leaf.index()]
    }
}
