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
    /// The machine has all the spaces that it can have, and evicting pages does not help.
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
/// Used to choose among sharded structures and, in debug builds, to check the lock order; two
/// threads of control that run at the same time should have different numbers, below
/// [`ContextId::LIMIT`] where they can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextId(pub u32);

impl ContextId {
    /// Contexts with numbers from here on are not checked.
    pub const LIMIT: u32 = 256;
}

/// What a machine can do; the memory manager adapts to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The accessed bit of an entry is set by the machine. Without it the replacement policy
    /// works without knowing which pages are used.
    pub accessed: bool,
    /// The dirty bit of an entry is set by the machine. Without it an entry is writable only while
    /// it is marked dirty, so that the first store faults.
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

/// What becomes of a page whose entry was changed; tells a machine how much work a flush is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody needs the frame's content any more: it is freed after the flush.
    Freed,
    /// The entry is gone or names another frame, and the frame lives on.
    Kept,
    /// The entry still names the frame, with less permission or with a bit cleared.
    Narrowed,
}

/// How far a processor tells loads, stores and fetches apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Whatever is allowed at all may be loaded, and a fetch from an absent page is a load (x86,
    /// spec A16).
    Implied,
    /// A fetch needs the right to execute; a load the right to load or store (Alpha, spec A17).
    Each,
}

/// A translation that may be stale: the machine may still use what the entry said before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The page's address.
    pub address: VirtAddr,
    /// The frame that the entry named.
    pub frame: Frame,
    /// What becomes of the frame.
    pub fate: Fate,
}

/// A computer: frames, address spaces and the flushing of stale translations.
///
/// The order of implementation, and what may be held at each method, are in the chapter *Making a
/// machine* of package `pagefault`.
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

    /// What this machine can do; constant over its life.
    fn capabilities(&self) -> Capabilities;

    /// The number of frames; they are numbered from 0. What is sized by memory is sized by this.
    fn frames(&self) -> u32;

    /// The most frames that there may be one day, if the machine can get more while it runs: their numbers
    /// are below this.
    fn most_frames(&self) -> u32 {
        self.frames()
    }

    /// How many frames are free now; may be out of date by the time it is used.
    fn free_frames(&self) -> u32;

    /// The shared frame of zeros (spec B8), which is never freed and never writable, if one frame
    /// can be mapped at many addresses at once.
    fn zero_frame(&self) -> Option<Frame>;

    /// Takes a free frame; its content is undefined.
    fn allocate(&self) -> Result<Frame, OutOfFrames>;

    /// Gives a frame back. No translation to it may be left (spec G4).
    fn free(&self, frame: Frame);

    /// Fills a frame with zeros.
    fn zero(&self, frame: Frame);

    /// Copies the content of one frame to another.
    fn copy(&self, from: Frame, to: Frame);

    /// Lets `f` give a frame its content, or change a part of it. It may do I/O.
    ///
    /// The memory manager does so with frames that no program can store to or load from: their
    /// content is yet to come. What others may use meanwhile is changed by [`write`](Self::write).
    fn fill<R>(&self, frame: Frame, f: impl FnOnce(&mut Page) -> R) -> R;

    /// Lets `f` look at the content of a frame. It may do I/O.
    ///
    /// No program can store to the frame meanwhile; what one can is read by [`read`](Self::read).
    fn drain<R>(&self, frame: Frame, f: impl FnOnce(&Page) -> R) -> R;

    /// Copies bytes out of a frame, from an offset on. Programs may store to it meanwhile: each byte
    /// is one that was there.
    fn read(&self, frame: Frame, offset: usize, bytes: &mut [u8]) {
        self.drain(frame, |page| bytes.copy_from_slice(&page[offset..][..bytes.len()]));
    }

    /// Copies bytes into a frame, from an offset on. Programs may use it meanwhile: what they store
    /// beside these bytes stays.
    fn write(&self, frame: Frame, offset: usize, bytes: &[u8]) {
        self.fill(frame, |page| page[offset..][..bytes.len()].copy_from_slice(bytes));
    }

    /// Makes an empty address space, its kernel part taken from the reference table.
    fn space(&self) -> Result<Self::Space, NoSpace>;

    /// Makes sure that no processor uses a stale translation of `space` (spec G1, G3).
    ///
    /// Called with no cursor held by the caller. `stale` lists pages of one space whose entries
    /// were changed; an entry may have been changed again since, by another thread of control, and
    /// the machine must then leave the newer state alone.
    fn flush(&self, space: &Self::Space, stale: &[Stale]);

    /// Whether a frame's content can be kept while none of its entries allows an access, without
    /// more memory than now.
    fn keeps_unmapped(&self, _frame: Frame) -> bool {
        true
    }

    /// Does what [`flush`](Self::flush) does for one page, if no processor but the caller's need be
    /// told; else does nothing and returns `false`, as a machine may do always.
    ///
    /// Waits for nobody, and so may be called with the cursor held under which the entry was
    /// changed: whoever uses the space from then on sees the changed entry.
    fn flush_here(&self, _space: &Self::Space, _stale: Stale) -> bool {
        false
    }

    /// Whether nobody but the caller can store to memory of `space`, or be let do so, until the caller
    /// goes back to the program that it serves; a machine may always say no.
    ///
    /// Then the right to store need not be taken from a page whose content is saved, which spares a
    /// flush. May be called with a cursor held.
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

    /// How many pages at least a thread that needs a frame evicts before it goes on; at most 32 are taken
    /// at a time.
    ///
    /// The fewer, the shorter its fault; the more, the more pages share a flush. A machine on which
    /// a flush concerns nobody else says a small number.
    fn direct_batch(&self) -> usize {
        32
    }

    /// Brings the part of the loaded page table that translates a kernel address in line with the
    /// reference table, and says whether the address is mapped there (spec A4–A7). Takes no lock:
    /// the interrupted code may hold any.
    fn synchronise(&self, _address: VirtAddr) -> bool {
        false
    }

    /// The erratum of the processor that explains a fault which cannot be corrected, if one does (spec
    /// A24). Asked before anybody gets a signal. Takes no lock, as [`synchronise`](Self::synchronise).
    fn erratum(&self, _fault: &PageFault) -> Option<Erratum> {
        None
    }

    /// Who is running.
    fn context(&self) -> ContextId;

    /// Waits while `word` holds `value`; may return early for no reason (Linux: `FUTEX_WAIT`).
    fn wait(&self, word: &AtomicU32, value: u32);

    /// Wakes every waiter on `word`.
    fn wake(&self, word: &AtomicU32);

    /// Lets others run for a moment: the caller is about to look again for what they are to do, and
    /// holds nothing that they may wait for but a page (Linux: `cond_resched`).
    ///
    /// On a machine whose contexts are not preempted they might otherwise never run.
    fn pause(&self);

    /// A clock in nanoseconds that never goes back; a simulated machine may count steps.
    fn now(&self) -> u64;
}

/// The page table of one address space.
pub trait Space: Send + Sync {
    /// The lock guard over the entries of a range.
    type Cursor<'a>: Cursor
    where
        Self: 'a;

    /// How many bytes of addresses one leaf table covers, a power of two (2 MiB on x86-64).
    const SPAN: u64;

    /// A number that no other living space of the machine has.
    fn id(&self) -> u32;

    /// The addresses that the table covers, if not all: no region is made elsewhere.
    fn covers(&self) -> Range<VirtAddr> {
        VirtAddr::ZERO..VirtAddr(u64::MAX)
    }

    /// Locks the entries of a range, making the levels of the table that are missing (spec B1).
    ///
    /// `range` is page-aligned, not empty, within [`Space::covers`] and within one aligned block of
    /// [`Space::SPAN`] bytes.
    /// On failure the levels already made stay. A thread of control holds at most two cursors at
    /// once, and two only while it alone changes both address spaces: parent and child in a fork,
    /// or two blocks of one space, the one at the lower address first.
    fn lock(&self, range: Range<VirtAddr>) -> Result<Self::Cursor<'_>, OutOfFrames>;

    /// Like [`Space::lock`], but `None` where a level is missing, so that all entries are none.
    fn lock_existing(&self, range: Range<VirtAddr>) -> Option<Self::Cursor<'_>>;

    /// Frees the levels that serve only addresses in `hole`, among them some in `unmapped`, and hold
    /// no entries (spec E6).
    ///
    /// `unmapped` lies in `hole`: a level elsewhere in the hole was given back when its own last
    /// page was unmapped. No page in `hole` may be in a region while this runs.
    fn prune(&self, hole: Range<VirtAddr>, unmapped: Range<VirtAddr>);

    /// How many leaf tables there are (Linux: `nr_ptes`).
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
    /// Translations that the machine may still hold of a replaced present entry are dealt with by
    /// a later [`Machine::flush`], or, where the new entry allows more, not at all.
    fn replace(&mut self, address: VirtAddr, entry: Entry) -> Entry;

    /// The first address at or after `from`, within the range, whose entry is not none.
    fn next(&self, from: VirtAddr) -> Option<VirtAddr>;

    /// Clears the accessed bit of a present entry and returns whether it was set. The machine need
    /// not flush: a translation in use may go on without setting the bit anew.
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

    /// Makes a present entry's protection `protection`, keeping its frame and its bits, and
    /// returns what was there. Does nothing to an entry that is not present.
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
