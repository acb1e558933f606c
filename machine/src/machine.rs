//! The traits that a computer implements.

use crate::fault::{Erratum, PageFault};
use crate::store::PageBytes;
use crate::{Entry, Frame, Protection, VirtAddr};
use core::fmt;
use core::ops::Range;
use core::sync::atomic::AtomicU32;

/// A page's bytes.
pub type Page = PageBytes;

/// No frame is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfFrames;

impl fmt::Display for OutOfFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no frame is free")
    }
}

impl core::error::Error for OutOfFrames {}

/// Why an address space could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSpace {
    /// No frame is free for its page table; evicting pages may help.
    OutOfFrames,
    /// The machine has no room for another space; evicting pages does not help.
    Refused,
}

impl From<OutOfFrames> for NoSpace {
    fn from(OutOfFrames: OutOfFrames) -> Self {
        Self::OutOfFrames
    }
}

impl fmt::Display for NoSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfFrames => "no frame is free for a page table",
            Self::Refused => "the machine has all the address spaces that it can have",
        })
    }
}

impl core::error::Error for NoSpace {}

/// A number for the thread of control that is running: a task of a kernel, a thread of a process.
///
/// Selects a shard of sharded structures, and in debug builds identifies the holder of a lock. Threads of
/// control that run at the same time should have different numbers, if possible below
/// [`ContextId::LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextId(pub u32);

impl ContextId {
    /// The lock order is not checked for numbers from here on.
    pub const LIMIT: u32 = 256;
}

/// What a machine can do; the memory manager adapts to it. A simple machine sets neither bit, and nothing is lost but
/// speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The machine sets the accessed bit of an entry. Without it, pages show their use on standby.
    pub accessed: bool,
    /// The machine sets the dirty bit of an entry. Without it, an entry is writable only while it is
    /// marked dirty, so that the first store faults.
    pub dirty: bool,
    /// Addresses at and above this one belong to the kernel.
    pub task_size: VirtAddr,
    /// A present entry without [`Protection::EXECUTE`] forbids instruction fetches (NX).
    pub no_execute: bool,
    /// The largest page number that [`Entry::File`] can hold (spec F3).
    pub file_index_limit: u64,
    /// The largest slot of a swap area that [`Entry::Swap`] can hold (spec F3).
    pub last_swap_slot: u32,
}

/// What happens to a page whose entry changed. It decides how much work a flush is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The frame's content is no longer needed: it is freed after the flush.
    Freed,
    /// The entry is gone or names another frame, and the frame lives on.
    Kept,
    /// The entry still names the frame, with less permission or with a bit cleared.
    Narrowed,
}

/// How a processor checks loads, stores and fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Any right implies the right to load, and a fetch from an absent page is reported as a load (x86,
    /// spec A16). A fetch is refused only if its fault has
    /// [`ErrorCode::PROTECTION`](crate::ErrorCode::PROTECTION).
    Implied,
    /// A fetch needs the right to execute; a load the right to load or store (Alpha, spec A17).
    Each,
}

/// A translation that may be stale: the machine may still use the entry's old value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The page's address.
    pub address: VirtAddr,
    /// The frame that the entry named.
    pub frame: Frame,
    /// What happens to the frame.
    pub fate: Fate,
}

/// A computer: frames, address spaces and the flushing of stale translations.
///
/// The chapter *Making a machine* of package `pagefault` has the order of implementation, and the locks
/// that each method's caller holds.
///
/// # Concurrency
/// Every method may be called from several threads of control at once. No method may call back
/// into the memory manager.
pub trait Machine: Send + Sync + Sized + 'static {
    /// An address space's page table.
    type Space: Space;
    /// A mutual-exclusion lock held for short times; never across I/O.
    type Mutex: lock_api::RawMutex + Send + Sync + 'static;
    /// A readers-writer lock held for short times.
    type RwLock: lock_api::RawRwLock + Send + Sync + 'static;
    /// How the processor's accesses are checked against what a region allows.
    const RIGHTS: Rights = Rights::Implied;

    /// What this machine can do. The answer never changes.
    fn capabilities(&self) -> Capabilities;

    /// The number of frames, which are numbered from 0. Everything whose size depends on the amount of
    /// memory depends on this.
    fn frames(&self) -> u32;

    /// The most frames that the machine may ever have, if it can grow while it runs; all frame numbers are
    /// below this. Numbers from here on are memory of devices ([`DeviceMemory`](crate::DeviceMemory)), if
    /// there is any.
    fn most_frames(&self) -> u32 {
        self.frames()
    }

    /// The number of free frames. It may be out of date by the time the caller uses it.
    fn free_frames(&self) -> u32;

    /// The shared zero frame (spec B8), if one frame can be mapped at many addresses at once. It is never
    /// freed and never writable.
    fn zero_frame(&self) -> Option<Frame>;

    /// Takes a free frame; its content is undefined.
    fn allocate(&self) -> Result<Frame, OutOfFrames>;

    /// Frees a frame. No translation to it may be left (spec G4).
    fn free(&self, frame: Frame);

    /// Fills a frame with zeros.
    fn zero(&self, frame: Frame);

    /// Copies the content of one frame to another. `from` may be memory of a device; unreadable bytes become
    /// zeros (spec B18).
    fn copy(&self, from: Frame, to: Frame);

    /// Lets `f` fill a frame, or change a part of it. `f` may do I/O.
    ///
    /// The frame's content is not complete yet, and no program can access it. The memory manager changes
    /// frames in use by [`write`](Self::write).
    fn fill<R>(&self, frame: Frame, f: impl FnOnce(&mut Page) -> R) -> R;

    /// Lets `f` read the content of a frame. `f` may do I/O.
    ///
    /// No program can store to the frame meanwhile. The memory manager reads other frames by
    /// [`read`](Self::read).
    fn drain<R>(&self, frame: Frame, f: impl FnOnce(&Page) -> R) -> R;

    /// Copies bytes out of a frame, starting at an offset. Programs may store to it meanwhile: each byte
    /// copied is an old or a new one.
    fn read(&self, frame: Frame, offset: usize, bytes: &mut [u8]) {
        self.drain(frame, |page| bytes.copy_from_slice(&page[offset..][..bytes.len()]));
    }

    /// Copies bytes into a frame, starting at an offset. Programs may use the frame meanwhile; their stores
    /// beside these bytes are kept.
    fn write(&self, frame: Frame, offset: usize, bytes: &[u8]) {
        self.fill(frame, |page| page[offset..][..bytes.len()].copy_from_slice(bytes));
    }

    /// Makes an address space that is empty but for the kernel part of the reference table.
    fn space(&self) -> Result<Self::Space, NoSpace>;

    /// Makes sure that no processor uses a stale translation of `space` (spec G1, G3).
    ///
    /// The caller holds no cursor. `stale` lists pages of one space whose entries were changed. Another thread
    /// of control may have changed an entry again since; the machine must then leave the newer state alone.
    fn flush(&self, space: &Self::Space, stale: &[Stale]);

    /// Hints that the manager will soon work on a frame.
    ///
    /// A machine whose tables are in memory can begin to load what concerns the frame, and return at once. It
    /// takes no lock that it could wait for. Does nothing by default.
    fn prefetch(&self, _frame: Frame, _part: Part) {}

    /// Whether a frame keeps its content while none of its entries allows an access, without taking more
    /// memory.
    fn keeps_unmapped(&self, _frame: Frame) -> bool {
        true
    }

    /// Flushes one page if only the caller's processor can have a stale translation; otherwise does nothing
    /// and returns `false`. A machine may always return `false`.
    ///
    /// It never waits, so the caller may hold the cursor under which it changed the entry: every later user
    /// of the space sees the changed entry.
    fn flush_here(&self, _space: &Self::Space, _stale: Stale) -> bool {
        false
    }

    /// Whether nobody but the caller can store to memory of `space` until the caller returns to its program.
    /// A machine may always return `false`.
    ///
    /// If so, reclaim writes a page without write-protecting it first, which saves a flush. The caller may
    /// hold a cursor.
    fn is_alone(&self, _space: &Self::Space) -> bool {
        false
    }

    /// Whether nobody but the caller is inside the manager, or comes in, until the caller goes back to the
    /// program that it serves; a machine may always say no.
    ///
    /// Then counting takes no atomic operation. Asked often, so it should cost a load.
    fn is_sole(&self) -> bool {
        false
    }

    /// How many pages a thread unmaps with one flush when it needs a frame, up to 32.
    ///
    /// A machine with accessed bits evicts that many, and one without evicts half of them. A small batch
    /// shortens its fault; a large batch shares one flush among more pages. A machine whose flushes are local
    /// returns a small number.
    fn direct_batch(&self) -> usize {
        32
    }

    /// Synchronises the loaded page table's entry for a kernel address with the reference table; returns
    /// whether the address is mapped there (spec A4–A7). Takes no lock, since the interrupted code may hold
    /// any.
    fn synchronise(&self, _address: VirtAddr) -> bool {
        false
    }

    /// The processor erratum that explains a fault, if there is one (spec A24). The memory manager asks when
    /// it cannot correct the fault, before it sends a signal. Takes no lock, like
    /// [`synchronise`](Self::synchronise).
    fn erratum(&self, _fault: &PageFault) -> Option<Erratum> {
        None
    }

    /// The running thread of control.
    fn context(&self) -> ContextId;

    /// Waits while `word` holds `value`; may wake up spuriously (Linux: `FUTEX_WAIT`).
    fn wait(&self, word: &AtomicU32, value: u32);

    /// Wakes every waiter on `word`.
    fn wake(&self, word: &AtomicU32);

    /// Yields the CPU before a retry, so that the thread it depends on can run (Linux: `cond_resched`). The
    /// caller holds no lock but a page's.
    ///
    /// Without preemption, that thread might otherwise never run.
    fn pause(&self);

    /// A monotonic clock in nanoseconds; a simulated machine may count steps instead.
    fn now(&self) -> u64;
}

/// The part of a frame or slot that a hint is about: [`Machine::prefetch`],
/// [`SwapDevice::prefetch`](crate::SwapDevice::prefetch).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// What the machine or the device notes about it. This hint comes first.
    State,
    /// Its content. By now the state is probably at hand.
    Content,
}

/// The page table of one address space.
pub trait Space: Send + Sync {
    /// The lock guard over the entries of a range.
    type Cursor<'a>: Cursor
    where
        Self: 'a;

    /// The bytes of addresses that one leaf table covers, a power of two (2 MiB on x86-64).
    const SPAN: u64;

    /// A number that is unique among the machine's living spaces.
    fn id(&self) -> u32;

    /// The addresses that the table can map; by default all. Regions are only made there.
    fn covers(&self) -> Range<VirtAddr> {
        VirtAddr::ZERO..VirtAddr(u64::MAX)
    }

    /// Locks the entries of a range and allocates missing levels of the table (spec B1).
    ///
    /// `range` is page-aligned, not empty, within [`Space::covers`] and within one aligned block of
    /// [`Space::SPAN`] bytes.
    /// On failure, levels already allocated stay. A thread of control holds at most two cursors: of parent
    /// and child in a fork, or of two blocks of one space, the lower first. It holds two only while nobody
    /// else can change the address spaces.
    fn lock(&self, range: Range<VirtAddr>) -> Result<Self::Cursor<'_>, OutOfFrames>;

    /// Like [`Space::lock`], but returns `None` if a level is missing: then all entries are none.
    fn lock_existing(&self, range: Range<VirtAddr>) -> Option<Self::Cursor<'_>>;

    /// Hints that the entry of an address will be looked at soon; see [`Machine::prefetch`]. Does nothing by
    /// default.
    fn prefetch(&self, _address: VirtAddr) {}

    /// The first address in a page-aligned range that may have a leaf table; everything before it has no
    /// entries. `None`: the whole range has none.
    ///
    /// If a machine skips all that a missing upper level covers in one step, work on a large and sparse
    /// mapping is proportional to what was touched there. By default the start of the range.
    fn next_leaf(&self, range: Range<VirtAddr>) -> Option<VirtAddr> {
        (range.start < range.end).then_some(range.start)
    }

    /// Frees empty levels that cover only addresses in `hole`, and some in `unmapped` (spec E6).
    ///
    /// `unmapped` lies in `hole`; levels elsewhere in the hole were freed when their own last page was
    /// unmapped. No page in `hole` may be in a region while this runs.
    fn prune(&self, hole: Range<VirtAddr>, unmapped: Range<VirtAddr>);

    /// The number of leaf tables (Linux: `nr_ptes`).
    fn leaves(&self) -> usize;
}

/// The locked entries of a range of addresses.
///
/// Addresses passed are page-aligned and inside the range that was locked.
pub trait Cursor {
    /// Reads an entry.
    fn entry(&self, address: VirtAddr) -> Entry;

    /// Exchanges an entry atomically with respect to the accessed and dirty bits that the machine
    /// sets itself (spec G5), and returns what was there.
    ///
    /// A later [`Machine::flush`] removes cached translations of a replaced present entry. If the new entry
    /// only adds rights, there is no flush.
    fn replace(&mut self, address: VirtAddr, entry: Entry) -> Entry;

    /// The first address at or after `from`, within the range, whose entry is not none.
    fn next(&self, from: VirtAddr) -> Option<VirtAddr>;

    /// Clears the accessed bit of a present entry and returns whether it was set. No flush is needed: a
    /// cached translation need not set the bit again.
    fn clear_accessed(&mut self, address: VirtAddr) -> bool {
        match self.entry(address) {
            Entry::Present { frame, protection, accessed: true, .. } => {
                let old = self.replace(address, Entry::None);
                let dirty = matches!(old, Entry::Present { dirty: true, .. });
                self.replace(address, Entry::Present { frame, protection, accessed: false, dirty });
                true
            }
            _ => false,
        }
    }

    /// Changes a present entry's protection, keeps its frame and bits, and returns the old entry. Does nothing
    /// to an entry that is not present.
    fn protect(&mut self, address: VirtAddr, protection: Protection) -> Entry {
        let old = self.entry(address);
        let Entry::Present { protection: before, .. } = old else { return old };
        if before == protection {
            return old;
        }
        // Taken out and put back, so that bits set meanwhile are not lost (spec G5).
        let old = self.replace(address, Entry::None);
        if let Entry::Present { frame, accessed, dirty, .. } = old {
            self.replace(address, Entry::Present { frame, protection, accessed, dirty });
        }
        old
    }
}
