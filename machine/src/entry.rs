//! The neutral page-table entry.

use crate::{Access, Frame};
use core::fmt;

bitflags::bitflags! {
    /// What an access through a present entry may do.
    ///
    /// The empty set is `PROT_NONE`: the entry keeps its frame and satisfies no access (spec I14).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Protection: u8 {
        /// Loads are allowed.
        const READ = 1;
        /// Stores are allowed.
        const WRITE = 2;
        /// Instruction fetches are allowed.
        const EXECUTE = 4;
    }
}

impl Protection {
    /// The same protection without the right to store.
    pub const fn read_only(self) -> Self {
        self.difference(Self::WRITE)
    }
}

/// A slot in a swap area: where an evicted page is kept.
///
/// Linux's `swp_entry_t`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwapSlot {
    /// The number of the area, 0 to 31 (spec F2).
    pub area: u8,
    /// The slot's offset within the area in pages; slot 0 holds the area's header and is never used.
    pub offset: u32,
}

impl fmt::Debug for SwapSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}:{}", self.area, self.offset)
    }
}

/// A page-table entry in the form that every machine can store. [`Cursor::entry`](crate::Cursor::entry) returns
/// what [`Cursor::replace`](crate::Cursor::replace) stored, but for the accessed and dirty bits that the machine sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// Empty: the region alone decides what an access means.
    #[default]
    None,
    /// A translation.
    Present {
        /// The frame that holds the page.
        frame: Frame,
        /// What an access may do.
        protection: Protection,
        /// The page was used through this entry since the bit was last cleared.
        accessed: bool,
        /// The page was written through this entry since the bit was last cleared.
        dirty: bool,
    },
    /// The page is in swap.
    Swap(SwapSlot),
    /// The page is the given page of the region's file (nonlinear mappings, spec B12).
    File(u64),
}

impl Entry {
    /// Whether the entry is empty.
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The frame of a present entry.
    pub const fn frame(&self) -> Option<Frame> {
        match self {
            Self::Present { frame, .. } => Some(*frame),
            _ => None,
        }
    }

    /// Whether a store through this entry succeeds without a fault.
    pub const fn is_writable(&self) -> bool {
        matches!(self, Self::Present { protection, .. } if protection.contains(Protection::WRITE))
    }

    /// Whether the page was written through this entry.
    pub const fn is_dirty(&self) -> bool {
        matches!(self, Self::Present { dirty: true, .. })
    }

    /// Whether an access through this entry succeeds without a fault, by the rule of
    /// [`Rights::Implied`](crate::Rights::Implied): a page that can be written or executed can also be read (spec A16).
    /// With [`Rights::Each`](crate::Rights::Each) the right to execute alone allows no load.
    pub fn allows(&self, access: Access) -> bool {
        let Self::Present { protection, .. } = self else { return false };
        match access {
            Access::Read => !protection.is_empty(),
            Access::Write => protection.contains(Protection::WRITE),
            Access::Execute => protection.contains(Protection::EXECUTE),
        }
    }

    /// Whether two reads of an entry show the same state. Ignores the accessed and dirty bits, which
    /// hardware may set at any moment (spec B3, G5).
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Present { frame: a, protection: p, .. },
                Self::Present { frame: b, protection: q, .. },
            ) => a == b && p == q,
            _ => self == other,
        }
    }
}
