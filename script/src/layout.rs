//! Where mappings go that the script does not place: the same on every machine.

use crate::ast::PAGE;

/// The first byte of the window in which every script lives.
pub const WINDOW_START: u64 = 0x10_0000_0000;

/// The byte after the window's last one: 64 GiB.
pub const WINDOW_END: u64 = WINDOW_START + (64 << 30);

/// The end of user space on x86-64, which no mapping passes (spec A3).
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// What one table page of the lowest level translates: 2 MiB.
const TABLE: u64 = 512 * PAGE;

/// Pages of a mapping that lie below the table boundary it is put across.
const BELOW: u64 = 4 * PAGE;

/// Free room before a mapping, so that 1,024 pages stay free however its lower neighbour grows
/// within half of it.
const ROOM: u64 = 2048 * PAGE;

/// Hands out addresses upwards and never the same one twice.
///
/// Each mapping starts four pages below a 2 MiB boundary: whatever is longer than that crosses
/// from one page table to the next.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Above every address that was ever used.
    frontier: u64,
}

impl Layout {
    pub(crate) fn new() -> Self {
        Self { frontier: WINDOW_START }
    }

    /// Room for `length` bytes, or where it would start if the window has it not.
    pub(crate) fn place(&mut self, length: u64) -> Placed {
        let start = (self.frontier + ROOM + BELOW).next_multiple_of(TABLE) - BELOW;
        match fits(start, length) {
            Fit::Inside => {
                self.used(start, length);
                Placed::At(start)
            }
            Fit::Invalid => Placed::At(start),
            Fit::Outside => Placed::NoRoom(start),
        }
    }

    /// Notes that a mapping of `length` bytes may now be at `start`.
    pub(crate) fn used(&mut self, start: u64, length: u64) {
        if let Fit::Inside = fits(start, length) {
            self.frontier = self.frontier.max(start + length);
        }
    }
}

/// Where a mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// Here.
    At(u64),
    /// Nowhere; it would have begun here.
    NoRoom(u64),
}

/// How a range lies to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Wholly in it.
    Inside,
    /// Beyond user space or around the end of the addresses: every kernel refuses it.
    Invalid,
    /// A range that a kernel could accept, but not in the window.
    Outside,
}

/// How `length` bytes from `start`, rounded up to pages, lie to the window.
pub(crate) fn fits(start: u64, length: u64) -> Fit {
    if !holds(start) {
        return Fit::Outside;
    }
    let end = length.checked_next_multiple_of(PAGE).and_then(|length| start.checked_add(length));
    match end {
        Some(end) if end <= WINDOW_END => Fit::Inside,
        Some(end) if end <= USER_END => Fit::Outside,
        _ => Fit::Invalid,
    }
}

/// Whether `address` is in the window.
pub(crate) fn holds(address: u64) -> bool {
    (WINDOW_START..WINDOW_END).contains(&address)
}

#[cfg(test)]
mod tests;
