//! The least machine that the manager runs on: frames without content, a page table that is an
//! array, no flushes. What is measured on it is the manager alone; a complete machine is
//! `examples/machine.rs`.

#![allow(missing_docs)]

use core::cell::RefCell;
use core::ops::Range;
use core::sync::atomic::AtomicU32;
use pagefault::machine::machine::Page;
use pagefault::machine::store::PageBytes;
use pagefault::machine::{
    Backing, Capabilities, ContextId, Cursor, Entry, Frame, IoError, Machine, NoSpace, OutOfFrames,
    PAGE_SHIFT, PAGE_SIZE, Space, Stale, SwapDevice, VirtAddr,
};
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::Ordering;

/// The bytes of address space that a page table covers.
pub(crate) const REACH: u64 = 1 << 30;

const ENTRIES: usize = 512;

pub(crate) struct Plain {
    frames: u32,
    bits: Bits,
    free: Mutex<Vec<Frame>>,
    ids: AtomicU32,
}

/// Whether the machine sets accessed and dirty bits. In fact it sets none, and nobody notices.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    Set,
    Absent,
}

impl Plain {
    pub(crate) fn new(frames: u32, bits: Bits) -> Self {
        // Frame 0 is the frame of zeros.
        let free = (1..frames).rev().map(Frame).collect();
        Self { frames, bits, free: Mutex::new(free), ids: AtomicU32::new(1) }
    }
}

thread_local! {
    /// What every frame is said to contain.
    static SCRATCH: RefCell<Box<Page>> = RefCell::new(Box::new([0; PAGE_SIZE as usize]));
}

impl Machine for Plain {
    type Space = PlainSpace;
    type Mutex = parking_lot::RawMutex;
    type RwLock = parking_lot::RawRwLock;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            accessed: self.bits == Bits::Set,
            dirty: self.bits == Bits::Set,
            task_size: VirtAddr(REACH),
            no_execute: true,
            file_index_limit: u64::MAX >> PAGE_SHIFT,
            last_swap_slot: u32::MAX,
        }
    }

    fn frames(&self) -> u32 {
        self.frames
    }

    fn free_frames(&self) -> u32 {
        self.free.lock().len() as u32
    }

    fn zero_frame(&self) -> Option<Frame> {
        Some(Frame(0))
    }

    fn allocate(&self) -> Result<Frame, OutOfFrames> {
        self.free.lock().pop().ok_or(OutOfFrames)
    }

    fn free(&self, frame: Frame) {
        self.free.lock().push(frame);
    }

    fn zero(&self, _frame: Frame) {}

    fn copy(&self, _from: Frame, _to: Frame) {}

    fn fill<R>(&self, _frame: Frame, f: impl FnOnce(&mut Page) -> R) -> R {
        SCRATCH.with_borrow_mut(|page| f(page))
    }

    fn drain<R>(&self, _frame: Frame, f: impl FnOnce(&Page) -> R) -> R {
        SCRATCH.with_borrow(|page| f(page))
    }

    fn space(&self) -> Result<PlainSpace, NoSpace> {
        let leaves = REACH as usize / ENTRIES / PAGE_SIZE as usize;
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        Ok(PlainSpace { id, leaves: (0..leaves).map(|_| Mutex::new(Vec::new())).collect() })
    }

    fn flush(&self, _space: &PlainSpace, _stale: &[Stale]) {}

    /// There is one processor, which remembers nothing.
    fn flush_here(&self, _space: &PlainSpace, _stale: Stale) -> bool {
        true
    }

    fn context(&self) -> ContextId {
        ContextId(0)
    }

    fn wait(&self, _word: &AtomicU32, _value: u32) {
        std::thread::yield_now();
    }

    fn wake(&self, _word: &AtomicU32) {}

    fn pause(&self) {}

    fn now(&self) -> u64 {
        0
    }
}

pub(crate) struct PlainSpace {
    id: u32,
    /// Each leaf table is empty until it is first locked.
    leaves: Box<[Mutex<Vec<Entry>>]>,
}

impl Space for PlainSpace {
    type Cursor<'a> = PlainCursor<'a>;
    const SPAN: u64 = ENTRIES as u64 * PAGE_SIZE;

    fn id(&self) -> u32 {
        self.id
    }

    fn lock(&self, range: Range<VirtAddr>) -> Result<PlainCursor<'_>, OutOfFrames> {
        let mut leaf = self.leaves[(range.start.value() / Self::SPAN) as usize].lock();
        if leaf.is_empty() {
            leaf.resize(ENTRIES, Entry::None);
        }
        Ok(PlainCursor { leaf, end: range.end })
    }

    fn lock_existing(&self, range: Range<VirtAddr>) -> Option<PlainCursor<'_>> {
        let leaf = self.leaves[(range.start.value() / Self::SPAN) as usize].lock();
        (!leaf.is_empty()).then_some(PlainCursor { leaf, end: range.end })
    }

    fn prune(&self, _hole: Range<VirtAddr>, _unmapped: Range<VirtAddr>) {}

    fn leaves(&self) -> usize {
        self.leaves.iter().filter(|leaf| !leaf.lock().is_empty()).count()
    }
}

pub(crate) struct PlainCursor<'a> {
    leaf: MutexGuard<'a, Vec<Entry>>,
    end: VirtAddr,
}

fn place(address: VirtAddr) -> usize {
    address.page_number() as usize % ENTRIES
}

impl Cursor for PlainCursor<'_> {
    fn entry(&self, address: VirtAddr) -> Entry {
        self.leaf[place(address)]
    }

    fn replace(&mut self, address: VirtAddr, entry: Entry) -> Entry {
        core::mem::replace(&mut self.leaf[place(address)], entry)
    }

    fn next(&self, from: VirtAddr) -> Option<VirtAddr> {
        let mut at = from;
        while at < self.end {
            if !self.leaf[place(at)].is_none() {
                return Some(at);
            }
            at = at + PAGE_SIZE;
        }
        None
    }
}

/// A swap area, and a file, whose pages are whatever they are.
pub(crate) struct Blank(pub(crate) u64);

impl SwapDevice for Blank {
    fn slots(&self) -> u32 {
        self.0 as u32
    }

    fn read(&self, _slot: u32, _page: &mut PageBytes) -> Result<(), IoError> {
        Ok(())
    }

    fn write(&self, _slot: u32, _page: &PageBytes) -> Result<(), IoError> {
        Ok(())
    }
}

impl Backing for Blank {
    fn read(&self, _index: u64, _page: &mut PageBytes) -> Result<(), IoError> {
        Ok(())
    }

    fn write(&self, _index: u64, _page: &[u8]) -> Result<(), IoError> {
        Ok(())
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.0 * PAGE_SIZE)
    }
}
