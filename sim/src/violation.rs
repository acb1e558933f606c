//! How the rules of the machine were broken.

use core::fmt;
use pagefault_machine::{Access, Frame, VirtAddr};

/// A rule of the computer that was broken, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A frame was freed that was free already.
    DoubleFree {
        /// The frame.
        frame: Frame,
    },
    /// The frame of zeros, or a frame that holds a page table, was freed or written; or a device's memory was
    /// used as if it were the memory manager's.
    Forbidden {
        /// The frame.
        frame: Frame,
        /// What was tried.
        operation: Operation,
    },
    /// The content or an entry of a free frame was used.
    UseAfterFree {
        /// The frame.
        frame: Frame,
        /// What was tried.
        operation: Operation,
    },
    /// A frame number is beyond the last frame.
    NoSuchFrame {
        /// The number.
        frame: Frame,
    },
    /// A frame was freed while a TLB still translated to it (spec G4, I4).
    FreedWhileMapped {
        /// The frame.
        frame: Frame,
        /// The CPU whose TLB holds the translation.
        cpu: u32,
        /// The page that it translates.
        address: VirtAddr,
    },
    /// A CPU used a frame that is free or has become a page table, through a stale translation or
    /// an entry that still names it.
    StrayAccess {
        /// The frame.
        frame: Frame,
        /// The CPU.
        cpu: u32,
        /// The address that it used.
        address: VirtAddr,
        /// What it did there.
        access: Access,
    },
    /// A free frame has lost the pattern that was put there when it was freed: it was written.
    WrittenWhileFree {
        /// The frame.
        frame: Frame,
        /// The first byte that changed, rounded down to a multiple of 8.
        offset: usize,
    },
    /// A translation in a TLB allows what the page table does not (spec I19).
    StaleTranslation {
        /// The CPU whose TLB holds it.
        cpu: u32,
        /// The number of the address space.
        space: u32,
        /// The page.
        address: VirtAddr,
        /// The frame that the TLB names.
        frame: Frame,
        /// What is wrong with it.
        staleness: Staleness,
    },
    /// A thread flushed while it held a cursor; on a real machine the CPU that it waits for may
    /// wait for that cursor.
    FlushUnderCursor {
        /// The number of the address space that was flushed.
        space: u32,
    },
    /// A thread holds more than two cursors.
    TooManyCursors {
        /// The number of the address space in which it locked the last of them.
        space: u32,
    },
    /// An entry that is writable without being marked dirty, on a computer that keeps no dirty
    /// bits: the page's changes would be lost.
    WritableUnnoticed {
        /// The page.
        address: VirtAddr,
    },
}

/// What was tried with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It was freed.
    Free,
    /// It was filled with zeros.
    Zero,
    /// It was copied from.
    CopyFrom,
    /// It was copied to.
    CopyTo,
    /// It was filled.
    Fill,
    /// It was drained.
    Drain,
    /// An entry was made that names it.
    Map,
    /// An entry was made that names it and allows stores.
    MapWritable,
}

/// How a translation in a TLB differs from the page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staleness {
    /// The page table has no translation.
    Absent,
    /// The page table names this other frame.
    Frame(Frame),
    /// The page table does not allow stores.
    Write,
    /// The page table does not allow user mode.
    User,
    /// The page table does not allow instruction fetches.
    Execute,
    /// The entry is clean, so stores through this translation would not mark it dirty.
    Dirty,
    /// The frame is free.
    Free,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::DoubleFree { frame } => write!(f, "{frame:?} was freed twice"),
            Self::Forbidden { frame, operation } => {
                write!(
                    f,
                    "{operation:?} of {frame:?}, which is the frame of zeros, a page table or a device's"
                )
            }
            Self::UseAfterFree { frame, operation } => {
                write!(f, "{operation:?} of {frame:?}, which is free")
            }
            Self::NoSuchFrame { frame } => write!(f, "there is no {frame:?}"),
            Self::FreedWhileMapped { frame, cpu, address } => {
                write!(f, "{frame:?} was freed while the TLB of CPU {cpu} maps {address} to it")
            }
            Self::StrayAccess { frame, cpu, address, access } => write!(
                f,
                "CPU {cpu}: {access:?} at {address} went to {frame:?}, which is free or a table"
            ),
            Self::WrittenWhileFree { frame, offset } => {
                write!(f, "{frame:?} was written at offset {offset} while it was free")
            }
            Self::StaleTranslation { cpu, space, address, frame, staleness } => write!(
                f,
                "the TLB of CPU {cpu} maps {address} of space {space} to {frame:?}, but {staleness}"
            ),
            Self::FlushUnderCursor { space } => {
                write!(f, "space {space} was flushed by a thread that holds a cursor")
            }
            Self::TooManyCursors { space } => {
                write!(f, "a third cursor was locked, in space {space}")
            }
            Self::WritableUnnoticed { address } => write!(
                f,
                "the entry for {address} is writable and clean, and no dirty bits are kept"
            ),
        }
    }
}

impl fmt::Display for Staleness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("the page table has no translation"),
            Self::Frame(frame) => write!(f, "the page table names {frame:?}"),
            Self::Write => f.write_str("the page table does not allow stores"),
            Self::User => f.write_str("the page table does not allow user mode"),
            Self::Execute => f.write_str("the page table does not allow instruction fetches"),
            Self::Dirty => f.write_str("the entry is clean: stores would go unnoticed"),
            Self::Free => f.write_str("the frame is free"),
        }
    }
}

impl core::error::Error for Violation {}
