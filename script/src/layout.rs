//! The addresses of mappings that the script does not place: the same on every machine.

use crate::ast::{Arch, PAGE};

/// The first byte of the scripts' window.
pub const WINDOW_START: u64 = 0x10_0000_0000;

/// The byte after the window's last one: 64 GiB.
pub const WINDOW_END: u64 = WINDOW_START + (64 << 30);

/// The end of user space on x86-64, which no mapping passes (spec A3).
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// The pages of a mapping below the table boundary that it crosses.
const BELOW: u64 = 4;

/// Free pages before a mapping: 1,024 stay free even if the lower neighbour grows into half of
/// them.
const ROOM: u64 = 2048;

/// The addresses of a script on one kind of processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first byte.
    pub start: u64,
    /// The byte after the last one.
    pub end: u64,
    /// The end of user space, which no mapping passes (spec A3).
    pub user_end: u64,
    /// The first address of the kernel's own mappings.
    pub kernel: u64,
    /// The bytes of a page.
    pub page: u64,
    /// The bytes that one leaf table translates.
    pub table: u64,
}

impl Window {
    /// The window on a kind of processor.
    pub const fn of(arch: Arch) -> Self {
        let narrow = Self {
            start: 0x1000_0000,
            end: 0xb000_0000,
            user_end: 0xc000_0000,
            kernel: 0xd000_0000,
            page: PAGE,
            table: 512 * PAGE,
        };
        match arch {
            Arch::X86_64 => Self {
                start: WINDOW_START,
                end: WINDOW_END,
                user_end: USER_END,
                kernel: 0xffff_c200_0000_0000,
                ..narrow
            },
            Arch::Ia32 => Self { table: 1024 * PAGE, ..narrow },
            Arch::Pae => narrow,
            Arch::Alpha => Self {
                start: 0x1_2000_0000,
                end: 0x11_2000_0000,
                user_end: 1 << 42,
                kernel: 0xffff_fe00_0000_0000,
                page: Arch::Alpha.page(),
                table: 1024 * Arch::Alpha.page(),
            },
        }
    }

    /// Where `length` bytes from `start`, rounded up to pages, lie relative to the window.
    pub(crate) fn fits(&self, start: u64, length: u64) -> Fit {
        if !self.holds(start) {
            return Fit::Outside;
        }
        let length = length.checked_next_multiple_of(self.page);
        match length.and_then(|length| start.checked_add(length)) {
            Some(end) if end <= self.end => Fit::Inside,
            Some(end) if end <= self.user_end => Fit::Outside,
            _ => Fit::Invalid,
        }
    }

    /// Whether `address` is in the window.
    pub(crate) fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// Gives out ascending addresses, each only once.
///
/// Each mapping starts four pages below the boundary of a leaf table: whatever is longer than that
/// crosses from one page table to the next.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) window: Window,
    /// Above every address that was ever used.
    frontier: u64,
    /// Above every address that the kernel ever used for itself.
    kernel: u64,
}

impl Layout {
    pub(crate) fn over(window: Window) -> Self {
        Self { window, frontier: window.start, kernel: window.kernel }
    }

    /// Room for `length` bytes, or its start if the window has no room.
    pub(crate) fn place(&mut self, length: u64) -> Placed {
        let Window { page, table, .. } = self.window;
        let below = BELOW * page;
        let start = (self.frontier + ROOM * page + below).next_multiple_of(table) - below;
        match self.window.fits(start, length) {
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
        if let Fit::Inside = self.window.fits(start, length) {
            self.frontier = self.frontier.max(start + length);
        }
    }

    /// Room for `length` bytes of the kernel, a page above the last.
    pub(crate) fn place_kernel(&mut self, length: u64) -> Option<u64> {
        const MOST: u64 = 1 << 24;
        let start = self.kernel;
        let pages = length.checked_next_multiple_of(self.window.page).filter(|n| *n <= MOST)?;
        self.kernel = start + pages + self.window.page;
        Some(start).filter(|_| length > 0 && self.kernel - self.window.kernel <= MOST)
    }
}

/// The place of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// At this address.
    At(u64),
    /// No room; it would have started here.
    NoRoom(u64),
}

/// The position of a range relative to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Entirely inside.
    Inside,
    /// Beyond user space, or wrapping around: every kernel refuses it.
    Invalid,
    /// Outside the window, but a kernel could accept it.
    Outside,
}

#[cfg(test)]
mod tests;
