//! Virtual addresses and page arithmetic.

use core::fmt;
use core::ops::{Add, Range, Sub};

/// The base-two logarithm of [`PAGE_SIZE`].
///
/// A build-time constant, as in Linux. Only Alpha has larger pages.
pub const PAGE_SHIFT: u32 = if cfg!(feature = "pages-of-8k") { 13 } else { 12 };

/// The size of a page and of a frame in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// A virtual address in some address space.
///
/// `+` and `-` check for overflow in debug builds, as integers do. Use [`VirtAddr::checked_add`] for
/// untrusted operands.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtAddr(pub u64);

impl VirtAddr {
    /// The lowest address.
    pub const ZERO: Self = Self(0);

    /// The address as a number.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The first address of the page that contains this one.
    pub const fn page(self) -> Self {
        Self(self.0 & !(PAGE_SIZE - 1))
    }

    /// The first page boundary at or above this address, or `None` past the end of the numbers.
    pub const fn page_up(self) -> Option<Self> {
        match self.0.checked_add(PAGE_SIZE - 1) {
            Some(v) => Some(Self(v & !(PAGE_SIZE - 1))),
            None => None,
        }
    }

    /// Whether the address lies on a page boundary.
    pub const fn is_page_aligned(self) -> bool {
        self.0.is_multiple_of(PAGE_SIZE)
    }

    /// The offset within the page, below [`PAGE_SIZE`].
    pub const fn page_offset(self) -> usize {
        (self.0 & (PAGE_SIZE - 1)) as usize
    }

    /// The number of the page: the address divided by the page size.
    pub const fn page_number(self) -> u64 {
        self.0 >> PAGE_SHIFT
    }

    /// The sum, or `None` on overflow.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Add<u64> for VirtAddr {
    type Output = Self;
    fn add(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl Sub<u64> for VirtAddr {
    type Output = Self;
    fn sub(self, bytes: u64) -> Self {
        Self(self.0 - bytes)
    }
}

impl Sub for VirtAddr {
    type Output = u64;
    fn sub(self, other: Self) -> u64 {
        self.0 - other.0
    }
}

/// Walks a range of addresses in pieces, each inside one aligned block of `span` bytes.
///
/// The memory manager locks one leaf table at a time; this splits a long range at the leaf tables'
/// boundaries.
#[derive(Clone, Debug)]
pub struct Pages {
    next: u64,
    end: u64,
    span: u64,
}

impl Pages {
    /// Splits `range` at every multiple of `span`, a power of two.
    pub const fn new(range: &Range<VirtAddr>, span: u64) -> Self {
        Self { next: range.start.0, end: range.end.0, span }
    }
}

impl Iterator for Pages {
    type Item = Range<VirtAddr>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let start = self.next;
        let block_end = (start & !(self.span - 1)).saturating_add(self.span);
        self.next = block_end.min(self.end);
        Some(VirtAddr(start)..VirtAddr(self.next))
    }
}
