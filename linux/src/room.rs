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
/// In [`LEFT`]: the bits of a number of pages. The number of the first page is above them.
const COUNT: u32 = 28;
/// The longest room.
const MOST: usize = ((1 << COUNT) - 1) * PAGE;

/// What is left of the current room: its first page and the number of pages.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// Reserves a room of `bytes`, at most 1 TiB, before there are tables. Without it, short tables share smaller
/// rooms, and each long one has a mapping of its own.
pub fn begin(bytes: usize) -> Result<(), ReserveError> {
    let bytes = bytes.min(MOST) / PAGE * PAGE;
    let room = Reservation::undumped(bytes)?;
    LEFT.store(left_of(room.address(), bytes), Relaxed);
    room.leak();
    Ok(())
}

/// Takes a range of whole pages, zero and for good, whose address is a multiple of `align`, a power of two. `None`:
/// it is too long, or there are no addresses.
pub fn take(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let pages = bytes.div_ceil(PAGE) as u64;
    let align = (align.div_ceil(PAGE) as u64).max(1);
    loop {
        let before = LEFT.load(Relaxed);
        let (first, count) = (before >> COUNT, before & ((1 << COUNT) - 1));
        let taken = if bytes > LONGEST {
            above(first, count, pages, align)
        } else {
            below(first, count, pages, align)
        };
        let Some((page, after)) = taken else {
            if bytes > LONGEST || align > 1 {
                return None;
            }
            further()?;
            continue;
        };
        if LEFT.compare_exchange_weak(before, after, Relaxed, Relaxed).is_ok() {
            return NonNull::new((page as usize * PAGE) as *mut u8);
        }
    }
}

/// Whether so many bytes are left.
pub fn has(bytes: usize) -> bool {
    let count = LEFT.load(Relaxed) & ((1 << COUNT) - 1);
    count as usize >= bytes / PAGE
}

/// The range's first page at the lower end, and what is left then.
fn below(first: u64, count: u64, pages: u64, align: u64) -> Option<(u64, u64)> {
    let page = first.next_multiple_of(align);
    let used = page - first + pages;
    (used <= count && first > 0).then(|| (page, (first + used) << COUNT | (count - used)))
}

/// The same at the upper end. Short tables keep some space.
fn above(first: u64, count: u64, pages: u64, align: u64) -> Option<(u64, u64)> {
    let page = (first + count).checked_sub(pages)? / align * align;
    (page >= first + (FURTHER / PAGE) as u64).then(|| (page, first << COUNT | (page - first)))
}

/// Reserves a further room. What another thread may reserve meanwhile is lost: addresses, no memory.
#[cold]
fn further() -> Option<()> {
    let room = Reservation::undumped(FURTHER).ok()?;
    LEFT.store(left_of(room.address(), FURTHER), Relaxed);
    room.leak();
    Some(())
}

fn left_of(address: u64, bytes: usize) -> u64 {
    address / PAGE as u64 * (1 << COUNT) + (bytes / PAGE) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ranges_come_from_below_and_long_ones_from_above() {
        let (first, count) = (1000, 4096);
        assert_eq!(below(first, count, 3, 1), Some((1000, 1003 << COUNT | 4093)));
        // An aligned one leaves a gap.
        assert_eq!(below(first, count, 64, 64), Some((1024, 1088 << COUNT | (4096 - 88))));
        assert_eq!(below(first, 2, 3, 1), None);
        assert_eq!(above(first, count, 300, 1), Some((4796, 1000 << COUNT | 3796)));
        assert_eq!(above(first, count, 300, 64), Some((4736, 1000 << COUNT | 3736)));
        // A long one would leave nothing for short ones.
        assert_eq!(above(first, count, 3900, 1), None);
        assert_eq!(above(first, count, 1 << 30, 1), None);
        // There is no room yet.
        assert_eq!((below(0, 0, 1, 1), above(0, 0, 300, 1)), (None, None));
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
