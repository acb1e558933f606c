//! The frames: their content, who has them, and what a free one must look like.

use crate::chance::STEP;
use crate::conduct::FailNth;
use crate::lock::SimMutex;
use crate::violation::{Operation, Violation};
use core::ops::Range;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use pagefault_machine::machine::Page;
use pagefault_machine::{Frame, OutOfFrames, PAGE_SIZE};
use parking_lot::Mutex;
use std::sync::OnceLock;

/// Words of eight bytes in a frame.
const WORDS: usize = PAGE_SIZE as usize / 8;

/// A frame's content. Words are atomic, so that CPUs and the memory manager may use a frame at the
/// same time with a defined result.
type Content = [AtomicU64; WORDS];

/// All frames of a computer.
pub(crate) struct Frames {
    /// Memory, then memory of devices.
    frames: Box<[Slot]>,
    /// How many of them are memory.
    count: u32,
    /// The first frame of device memory that no device has.
    devices_from: AtomicU32,
    /// Free frames; the one freed last is taken first, so that a stale translation meets the new
    /// owner's data soon.
    free: Mutex<Vec<Frame>>,
    free_count: AtomicU32,
    /// The allocation that fails.
    fail: FailNth,
}

struct Slot {
    /// Made at the first use, so that a computer with many frames is cheap.
    content: OnceLock<Box<Content>>,
    owner: AtomicU8,
    /// How many translations in TLBs name the frame.
    translations: AtomicU32,
    /// Locks the entries when the frame holds a leaf table. It stays with the frame, so that a
    /// waiter on the lock of a table that is pruned meanwhile has something to wait on.
    leaf: lock_api::Mutex<SimMutex, ()>,
}

/// What a frame is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Owner {
    /// Nothing.
    Nobody = 0,
    /// It was allocated.
    Manager = 1,
    /// It holds a page table.
    Table = 2,
    /// It is the frame of zeros.
    Zeros = 3,
    /// It is a device's.
    Device = 4,
}

impl Frames {
    pub(crate) fn new(count: u32, devices: u32) -> Self {
        let slot = |owner: Owner| Slot {
            content: OnceLock::new(),
            owner: AtomicU8::new(owner as u8),
            translations: AtomicU32::new(0),
            leaf: lock_api::Mutex::new(()),
        };
        Self {
            frames: (0..count)
                .map(|_| slot(Owner::Nobody))
                .chain((0..devices).map(|_| slot(Owner::Device)))
                .collect(),
            count,
            devices_from: AtomicU32::new(count),
            free: Mutex::new((0..count).rev().map(Frame).collect()),
            free_count: AtomicU32::new(count),
            fail: FailNth::default(),
        }
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn free_count(&self) -> u32 {
        self.free_count.load(Ordering::Relaxed)
    }

    /// How many frames hold page tables.
    pub(crate) fn tables(&self) -> u32 {
        let is_table = |slot: &&Slot| slot.owner() == Owner::Table;
        self.frames.iter().filter(is_table).count() as u32
    }

    pub(crate) fn fail_nth(&self, nth: u64) {
        self.fail.set(nth);
    }

    pub(crate) fn contains(&self, frame: Frame) -> bool {
        frame.index() < self.frames.len()
    }

    pub(crate) fn owner(&self, frame: Frame) -> Owner {
        self.frames[frame.index()].owner()
    }

    /// Takes frames of device memory, which are zeros and stay the device's.
    pub(crate) fn take_device_frames(&self, pages: u32) -> Option<Range<u32>> {
        let more =
            |from: u32| from.checked_add(pages).filter(|end| *end as usize <= self.frames.len());
        let from = self.devices_from.try_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        (from..from + pages).for_each(|number| self.zero(Frame(number)));
        Some(from..from + pages)
    }

    /// Takes a free frame. The second value says whether it was written while it was free.
    pub(crate) fn allocate(
        &self,
        owner: Owner,
    ) -> Result<(Frame, Result<(), Violation>), OutOfFrames> {
        if self.fail.is_now() {
            return Err(OutOfFrames);
        }
        let frame = self.free.lock().pop().ok_or(OutOfFrames)?;
        self.free_count.fetch_sub(1, Ordering::Relaxed);
        let intact = self.check_poison(frame);
        self.frames[frame.index()].owner.store(owner as u8, Ordering::SeqCst);
        Ok((frame, intact))
    }

    /// Takes a frame for a page table, all of whose entries are empty.
    pub(crate) fn allocate_table(&self) -> Result<(Frame, Result<(), Violation>), OutOfFrames> {
        let (frame, intact) = self.allocate(Owner::Table)?;
        self.zero(frame);
        Ok((frame, intact))
    }

    /// Gives back a frame that `owner` had, and scrambles its content.
    pub(crate) fn free(&self, frame: Frame, owner: Owner) -> Result<(), Violation> {
        if !self.contains(frame) {
            return Err(Violation::NoSuchFrame { frame });
        }
        let slot = &self.frames[frame.index()];
        let exchange = slot.owner.compare_exchange(
            owner as u8,
            Owner::Nobody as u8,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        match exchange.map_err(Owner::from) {
            Ok(_) => {}
            Err(Owner::Nobody) => return Err(Violation::DoubleFree { frame }),
            Err(_) => return Err(Violation::Forbidden { frame, operation: Operation::Free }),
        }
        self.poison(frame);
        self.free.lock().push(frame);
        self.free_count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a frame may be used in this way now.
    pub(crate) fn check_use(&self, frame: Frame, operation: Operation) -> Result<(), Violation> {
        if !self.contains(frame) {
            return Err(Violation::NoSuchFrame { frame });
        }
        let reads = matches!(operation, Operation::CopyFrom | Operation::Drain | Operation::Map);
        let writes = matches!(operation, Operation::Fill | Operation::MapWritable);
        match self.owner(frame) {
            Owner::Manager => Ok(()),
            Owner::Zeros if reads => Ok(()),
            Owner::Device if reads || writes => Ok(()),
            Owner::Nobody => Err(Violation::UseAfterFree { frame, operation }),
            Owner::Table | Owner::Zeros | Owner::Device => {
                Err(Violation::Forbidden { frame, operation })
            }
        }
    }

    fn poison(&self, frame: Frame) {
        for (index, word) in self.content(frame).iter().enumerate() {
            word.store(poison(frame, index), Ordering::Relaxed);
        }
    }

    fn check_poison(&self, frame: Frame) -> Result<(), Violation> {
        let Some(content) = self.frames[frame.index()].content.get() else { return Ok(()) };
        let changed = content
            .iter()
            .enumerate()
            .position(|(index, word)| word.load(Ordering::Relaxed) != poison(frame, index));
        match changed {
            None => Ok(()),
            Some(index) => Err(Violation::WrittenWhileFree { frame, offset: index * 8 }),
        }
    }
}

/// What word number `index` of a free frame holds: nothing like an address, a zero or a text.
fn poison(frame: Frame, index: usize) -> u64 {
    (0xdead_f4a3 << 32 | u64::from(frame.0)) ^ (index as u64 + 1).wrapping_mul(STEP)
}

/// Content.
impl Frames {
    pub(crate) fn content(&self, frame: Frame) -> &Content {
        self.frames[frame.index()].content.get_or_init(|| {
            Box::new(core::array::from_fn(|index| AtomicU64::new(poison(frame, index))))
        })
    }

    pub(crate) fn zero(&self, frame: Frame) {
        for word in self.content(frame) {
            word.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn copy(&self, from: Frame, to: Frame) {
        for (from, to) in self.content(from).iter().zip(self.content(to)) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self, frame: Frame) -> Page {
        let mut page = [0; PAGE_SIZE as usize];
        for (bytes, word) in page.chunks_exact_mut(8).zip(self.content(frame)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        page
    }

    /// Stores the words of `new` that differ from `old`, and leaves the others to whoever else
    /// writes to the frame meanwhile.
    pub(crate) fn write_changes(&self, frame: Frame, old: &Page, new: &Page) {
        let words = old.chunks_exact(8).zip(new.chunks_exact(8)).zip(self.content(frame));
        for ((old, new), word) in words {
            if old != new {
                word.store(word_of(new), Ordering::Relaxed);
            }
        }
    }

    /// Loads bytes that lie within one frame.
    pub(crate) fn load(&self, frame: Frame, mut offset: usize, mut bytes: &mut [u8]) {
        let content = self.content(frame);
        while !bytes.is_empty() {
            let within = offset % 8;
            let length = bytes.len().min(8 - within);
            let (now, rest) = bytes.split_at_mut(length);
            let word = content[offset / 8].load(Ordering::Relaxed).to_le_bytes();
            now.copy_from_slice(&word[within..within + length]);
            offset += length;
            bytes = rest;
        }
    }

    /// Stores bytes that lie within one frame; bytes beside them are left alone.
    pub(crate) fn store(&self, frame: Frame, mut offset: usize, mut bytes: &[u8]) {
        let content = self.content(frame);
        while !bytes.is_empty() {
            let within = offset % 8;
            let (now, rest) = bytes.split_at(bytes.len().min(8 - within));
            let word = &content[offset / 8];
            if let Ok(whole) = now.try_into() {
                word.store(u64::from_le_bytes(whole), Ordering::Relaxed);
            } else {
                word.update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                    let mut old = old.to_le_bytes();
                    old[within..within + now.len()].copy_from_slice(now);
                    u64::from_le_bytes(old)
                });
            }
            offset += now.len();
            bytes = rest;
        }
    }
}

fn word_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Translations and table locks.
impl Frames {
    pub(crate) fn translation_made(&self, frame: Frame) {
        self.frames[frame.index()].translations.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn translation_dropped(&self, frame: Frame) {
        self.frames[frame.index()].translations.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn has_translations(&self, frame: Frame) -> bool {
        self.contains(frame) && self.frames[frame.index()].translations.load(Ordering::SeqCst) != 0
    }

    pub(crate) fn leaf_lock(&self, frame: Frame) -> &lock_api::Mutex<SimMutex, ()> {
        &self.frames[frame.index()].leaf
    }
}

impl Slot {
    fn owner(&self) -> Owner {
        self.owner.load(Ordering::SeqCst).into()
    }
}

impl From<u8> for Owner {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Manager,
            2 => Self::Table,
            3 => Self::Zeros,
            4 => Self::Device,
            _ => Self::Nobody,
        }
    }
}
