//! The last read of a store that failed, as the message tells it that ends a program.

use core::fmt;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use rustix::io::Errno;

/// A page that could not be read from a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its slot.
    pub slot: u32,
    /// Why.
    pub cause: Cause,
}

/// Why a page could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The slot is empty.
    Empty,
    /// The compressed page has so many bytes, and they do not make a page.
    Undecodable(u32),
    /// The host could not read the file: its error.
    Host(i32),
    /// The page came back other than it was written.
    Checksum,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, cause } = *self;
        match cause {
            Cause::Empty => write!(f, "slot {slot} is empty"),
            Cause::Undecodable(len) => {
                write!(f, "the {len} compressed bytes of slot {slot} do not make a page")
            }
            Cause::Host(errno) => {
                write!(f, "slot {slot}: {} (error {errno})", Errno::from_raw_os_error(errno))
            }
            Cause::Checksum => write!(f, "the checksum of slot {slot} is wrong"),
        }
    }
}

/// The last failure of a store, in one word; 0 for none.
#[derive(Default)]
pub(super) struct LastFailure(AtomicU64);

/// The cause is below the slot, and its number below the kind.
const SLOT: u32 = 32;
const KIND: u32 = 24;
const NUMBER: u64 = (1 << KIND) - 1;

impl LastFailure {
    pub fn note(&self, slot: u32, cause: Cause) {
        let (kind, number) = match cause {
            Cause::Empty => (1, 0),
            Cause::Undecodable(len) => (2, u64::from(len)),
            Cause::Host(errno) => (3, u64::from(errno.unsigned_abs())),
            Cause::Checksum => (4, 0),
        };
        self.0.store(u64::from(slot) << SLOT | kind << KIND | number & NUMBER, Relaxed);
    }

    pub fn get(&self) -> Option<Failure> {
        let word = self.0.load(Relaxed);
        let number = word & NUMBER;
        let cause = match word >> KIND & 0xff {
            1 => Cause::Empty,
            2 => Cause::Undecodable(number as u32),
            3 => Cause::Host(number as i32),
            4 => Cause::Checksum,
            _ => return None,
        };
        Some(Failure { slot: (word >> SLOT) as u32, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_comes_back_from_its_word() {
        let last = LastFailure::default();
        assert_eq!(last.get(), None);
        let causes = [Cause::Empty, Cause::Undecodable(4095), Cause::Host(133), Cause::Checksum];
        for (slot, cause) in [0, 1, 7, u32::MAX].into_iter().zip(causes) {
            last.note(slot, cause);
            assert_eq!(last.get(), Some(Failure { slot, cause }));
        }
    }
}
