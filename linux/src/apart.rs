//! Keeps the manager's own mappings apart from the program's in its address space.
//!
//! A program may give up a range and map it again at the same address (`MAP_FIXED`), certain that
//! it is still free. The host would put a new mapping of ours into just such a gap. So ours go to a
//! part of the address space that the host uses last.

use core::ops::Range;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;

/// The part of the address space for ours: below a program's default mappings, and above the fixed
/// addresses of sanitizers and collectors. ThreadSanitizer refuses to run if anything but its own
/// heap lies between `0x6800_0000_0000` and the first of these.
const START: u64 = 0x7e80_0000_0000;
const END: u64 = 0x7ee0_0000_0000;
/// Where else ours may be: the runtime of `pagefault run`.
pub const IMAGES: Range<u64> = END..0x7ef0_0000_0000;
/// The first address is chosen among this many pages: the rest holds the tables of a large limit.
const CHOICES: u64 = 1 << 25;

/// How many further addresses to try before the host may choose.
const TRIES: usize = 64;

/// The process's.
static APART: Apart = Apart::new();

/// Where mappings of ours are.
struct Apart {
    /// The next address; 0 if the host chooses.
    next: AtomicU64,
    /// The first address that was given; 0 before there is one.
    first: AtomicU64,
}

/// Puts future mappings apart from the program's. `secret`, an address that was chosen at random,
/// makes theirs unguessable.
pub fn begin(secret: u64) {
    APART.begin(secret);
}

/// Makes a mapping of `len` bytes with `map`. Its argument is the mapping's address
/// (`MAP_FIXED_NOREPLACE`: it fails with `EXIST` if the range is taken), or `None` for any address.
pub fn map<T>(len: u64, map: impl Fn(Option<u64>) -> Result<T, Errno>) -> Result<T, Errno> {
    APART.map(len, map)
}

/// Whether a range contains addresses of our mappings.
pub fn overlaps(start: u64, len: u64) -> bool {
    APART.overlaps(start, len)
}

impl Apart {
    const fn new() -> Self {
        Self { next: AtomicU64::new(0), first: AtomicU64::new(0) }
    }

    fn begin(&self, secret: u64) {
        const PAGE: u64 = 4096;
        let first = START + secret / PAGE % CHOICES * PAGE;
        self.first.store(first, Relaxed);
        self.next.store(first, Relaxed);
    }

    fn map<T>(&self, len: u64, map: impl Fn(Option<u64>) -> Result<T, Errno>) -> Result<T, Errno> {
        for _ in 0..TRIES {
            let Some(address) = self.take(len) else { break };
            match map(Some(address)) {
                Err(Errno::EXIST) => {}
                made => return made,
            }
        }
        map(None)
    }

    fn overlaps(&self, start: u64, len: u64) -> bool {
        let first = self.first.load(Relaxed);
        let end = match self.next.load(Relaxed) {
            next if next >= first => next,
            _ => END,
        };
        first != 0 && start < end && first < start.saturating_add(len)
    }

    /// The address for a mapping; `None` if the host chooses.
    fn take(&self, len: u64) -> Option<u64> {
        let end = |next: u64| {
            let start = match next {
                0 => return None,
                next if next.checked_add(len)? <= END => next,
                _ => START,
            };
            start.checked_add(len.checked_next_multiple_of(4096)?).filter(|end| *end <= END)
        };
        let before = self.next.fetch_update(Relaxed, Relaxed, end).ok()?;
        Some(end(before)? - len.next_multiple_of(4096))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn mappings_lie_side_by_side_and_leave_what_is_there() {
        // Of its own: other tests map meanwhile.
        let apart = Apart::new();
        assert_eq!(apart.map(4096, Ok), Ok(None));
        assert!(!apart.overlaps(0, u64::MAX));
        apart.begin(0x5555_1234_5000);
        let taken = Cell::new(None);
        let place = |address: Option<u64>| {
            let address = address.unwrap();
            // Another mapping is at the first address.
            if taken.get().is_none() {
                taken.set(Some(address));
                return Err(Errno::EXIST);
            }
            Ok(address)
        };
        let first = apart.map(5000, place).unwrap();
        assert!(first > taken.get().unwrap() && (START..END).contains(&first));
        assert_eq!(apart.map(4096, place), Ok(first + 8192));
        assert!(
            apart.overlaps(first + 8192, 1)
                && apart.overlaps(first - 4096, 8192)
                && apart.overlaps(0, u64::MAX)
        );
        assert!(
            !apart.overlaps(first + 12288, u64::MAX) && !apart.overlaps(0, taken.get().unwrap())
        );
        // The host chooses the place of a mapping that does not fit there.
        assert_eq!(apart.map(1 << 47, Ok), Ok(None));
    }
}
