//! The *room*: one mapping that the manager's tables share.
//!
//! A manager has fifty tables, and each mapping of its own would cost three calls at the start, one more at the
//! end, and a region of the host's in each fork. Short tables lie together at the lower end of the room, so that
//! they share the host's page tables, and long ones at its upper end.

use crate::host::PAGE;
use crate::reserve::{Reservation, ReserveError};
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// The length of a further room, for short tables.
const FURTHER: usize = 2 << 20;
/// Longer tables go to the upper end, or have mappings of their own.
const LONGEST: usize = FURTHER / 2;

/// What is left of the current room, as [`Rest::pack`] has it.
static REST: AtomicU64 = AtomicU64::new(0);

/// The free pages of a room: the number of the first one, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    first: u64,
    count: u64,
}

impl Rest {
    /// The bits of the count; the first page's number is above them.
    const COUNT: u32 = 28;
    /// The longest room in bytes.
    const MOST: usize = ((1 << Self::COUNT) - 1) * PAGE;

    fn of(room: &Reservation, bytes: usize) -> Self {
        Self { first: room.address() / PAGE as u64, count: (bytes / PAGE) as u64 }
    }

    const fn pack(self) -> u64 {
        self.first << Self::COUNT | self.count
    }

    const fn unpack(word: u64) -> Self {
        Self { first: word >> Self::COUNT, count: word & ((1 << Self::COUNT) - 1) }
    }

    /// The first page of a range at the lower end, and the rest without it.
    fn below(self, pages: u64, align: u64) -> Option<(u64, Self)> {
        let page = self.first.next_multiple_of(align);
        let used = page - self.first + pages;
        let rest = Self { first: self.first + used, count: self.count.checked_sub(used)? };
        (self.first > 0).then_some((page, rest))
    }

    /// The same at the upper end. Short tables keep some space.
    fn above(self, pages: u64, align: u64) -> Option<(u64, Self)> {
        let page = (self.first + self.count).checked_sub(pages)? / align * align;
        let count = page.checked_sub(self.first)?;
        (count >= (FURTHER / PAGE) as u64).then_some((page, Self { count, ..self }))
    }
}

/// Reserves a room of `bytes`, at most 1 TiB, before there are tables. Without it, short tables share smaller
/// rooms, and each long one has a mapping of its own.
pub fn begin(bytes: usize) -> Result<(), ReserveError> {
    reserve(bytes.min(Rest::MOST) / PAGE * PAGE)
}

fn reserve(bytes: usize) -> Result<(), ReserveError> {
    let room = Reservation::undumped(bytes)?;
    REST.store(Rest::of(&room, bytes).pack(), Relaxed);
    room.leak();
    Ok(())
}

/// Takes a range of whole pages, which are zero. Its address is a multiple of `align`, a power of two. `None`: it is
/// too long, or there are no addresses.
///
/// Nothing comes back: a range that is unmapped is a hole in the room. So this is for what mostly stays. Where a short
/// range does not fit, the rest is given up for a further room.
pub fn take(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let pages = bytes.div_ceil(PAGE) as u64;
    let align = (align.div_ceil(PAGE) as u64).max(1);
    loop {
        let word = REST.load(Relaxed);
        let rest = Rest::unpack(word);
        let taken = match bytes > LONGEST {
            true => rest.above(pages, align),
            false => rest.below(pages, align),
        };
        let Some((page, rest)) = taken else {
            if bytes > LONGEST || align > 1 {
                return None;
            }
            // What another thread may reserve meanwhile is lost: addresses, no memory.
            reserve(FURTHER).ok()?;
            continue;
        };
        if REST.compare_exchange_weak(word, rest.pack(), Relaxed, Relaxed).is_ok() {
            return NonNull::new((page as usize * PAGE) as *mut u8);
        }
    }
}

/// Whether so many bytes are left.
pub fn has(bytes: usize) -> bool {
    Rest::unpack(REST.load(Relaxed)).count as usize >= bytes / PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ranges_come_from_below_and_long_ones_from_above() {
        let rest = Rest { first: 1000, count: 4096 };
        assert_eq!(Rest::unpack(rest.pack()), rest);
        assert_eq!(rest.below(3, 1), Some((1000, Rest { first: 1003, count: 4093 })));
        // An aligned one leaves a gap.
        assert_eq!(rest.below(64, 64), Some((1024, Rest { first: 1088, count: 4096 - 88 })));
        assert_eq!(Rest { count: 2, ..rest }.below(3, 1), None);
        assert_eq!(rest.above(300, 1), Some((4796, Rest { count: 3796, ..rest })));
        assert_eq!(rest.above(300, 64), Some((4736, Rest { count: 3736, ..rest })));
        // A long one would leave nothing for short ones.
        assert_eq!(rest.above(3900, 1), None);
        assert_eq!(rest.above(1 << 30, 1), None);
        // There is no room yet.
        let none = Rest::unpack(0);
        assert_eq!((none.below(1, 1), none.above(300, 1)), (None, None));
    }

    #[test]
    fn ranges_are_zero_and_apart() {
        let [one, other] = [1, 5000].map(|bytes| take(bytes, 1).unwrap());
        assert_ne!(one, other);
        // SAFETY: just taken, and nobody else's.
        unsafe {
            assert_eq!(*other.as_ptr().add(4999), 0);
            *other.as_ptr().add(4999) = 1;
            assert_eq!(*one.as_ptr(), 0);
        }
        assert_eq!(take(LONGEST + 1, 1), None);
    }
}
