//! Decides which pages of a file to read ahead, by the program's advice and its recent faults.

use core::ops::Range;

/// With this many more misses than hits, reading around does not help.
const MANY_MISSES: u32 = 100;

/// A program's advice on the order of its accesses (`MADV_NORMAL` and its like).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advised {
    Nothing,
    Sequential,
    Random,
}

/// A fault on a page of a file, as its read-ahead sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touch {
    pub(crate) index: u64,
    pub(crate) advised: Advised,
    /// Whether the page had to be read.
    pub(crate) missed: bool,
}

/// What recent faults on a file found, and how far reading went for them.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// How many more of the faults missed than hit.
    misses: u32,
    window: Window,
}

/// The last window read for sequential access; empty if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    start: u64,
    pages: u32,
    /// How many of its last pages were read ahead of need.
    ahead: u32,
}

impl Reading {
    /// The pages to read after a fault, at most about `most`.
    pub(super) fn wanted(&mut self, touch: Touch, most: u32) -> Option<Range<u64>> {
        let Touch { index, advised, missed } = touch;
        match advised {
            Advised::Random => None,
            Advised::Nothing if missed => {
                self.misses = self.misses.saturating_add(1);
                let start = index.saturating_sub(u64::from(most / 2));
                (self.misses <= MANY_MISSES).then(|| start..start.saturating_add(most.into()))
            }
            Advised::Nothing => {
                self.hits(1);
                None
            }
            Advised::Sequential => {
                let goes_on = self.window.pages > 0
                    && (self.window.marker() == Some(index) || self.window.end() == index);
                if !goes_on && !missed {
                    return None;
                }
                self.window = match goes_on {
                    true => self.window.next(most),
                    false => Window::first(index, most),
                };
                Some(self.window.start..self.window.end())
            }
        }
    }

    /// Notes that this many pages were already cached.
    pub(super) fn hits(&mut self, pages: u32) {
        self.misses = self.misses.saturating_sub(pages);
    }

    /// The marker page, whose touch makes the next window due.
    pub(super) fn marker(&self) -> Option<u64> {
        self.window.marker()
    }
}

impl Window {
    const fn end(&self) -> u64 {
        self.start.saturating_add(self.pages as u64)
    }

    /// The marker page, whose touch makes the next window due.
    fn marker(&self) -> Option<u64> {
        (self.pages > 0).then(|| self.end() - u64::from(self.ahead))
    }

    /// The first window, after a page that has been read already.
    fn first(index: u64, most: u32) -> Self {
        let pages = match most {
            most if 1 <= most / 32 => 4,
            most if 1 <= most / 4 => 2,
            most => most,
        };
        Self { start: index, pages, ahead: pages.saturating_sub(1) }
    }

    /// The window after this one.
    fn next(&self, most: u32) -> Self {
        let factor = if self.pages < most / 16 { 4 } else { 2 };
        let pages = self.pages.saturating_mul(factor).min(most);
        Self { start: self.end(), pages, ahead: pages }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn touch(index: u64, advised: Advised, missed: bool) -> Touch {
        Touch { index, advised, missed }
    }

    #[test]
    fn a_miss_reads_around_itself_until_misses_prevail() {
        let mut reading = Reading::default();
        assert_eq!(reading.wanted(touch(40, Advised::Nothing, true), 32), Some(24..56));
        assert_eq!(reading.wanted(touch(3, Advised::Nothing, true), 32), Some(0..32));
        assert_eq!(reading.wanted(touch(4, Advised::Nothing, false), 32), None);
        let scattered = (0..200)
            .filter(|n| reading.wanted(touch(n * 1000, Advised::Nothing, true), 32).is_some());
        assert_eq!(scattered.count(), 99);
        reading.hits(1);
        assert_eq!(reading.wanted(touch(9, Advised::Nothing, true), 32), None);
        reading.hits(1000);
        assert_eq!(reading.misses, 0);
        assert!(reading.wanted(touch(9, Advised::Nothing, true), 32).is_some());
    }

    #[test]
    fn accesses_in_order_push_a_window_before_them_that_grows() {
        let mut reading = Reading::default();
        let mut windows = Vec::new();
        let mut read_to = 0;
        for index in 0..100 {
            let missed = index >= read_to;
            if let Some(range) = reading.wanted(touch(index, Advised::Sequential, missed), 32) {
                read_to = range.end;
                windows.push((index, range));
            }
        }
        assert_eq!(
            windows,
            [
                (0, 0..4),
                (1, 4..12),
                (4, 12..28),
                (12, 28..60),
                (28, 60..92),
                (60, 92..124),
                (92, 124..156)
            ]
        );
    }

    #[test]
    fn a_window_grows_fourfold_while_it_is_far_from_the_most() {
        let window = Window { start: 0, pages: 4, ahead: 3 };
        assert_eq!(window.next(128).pages, 16);
        assert_eq!(window.next(128).next(128).pages, 32);
        assert_eq!(window.next(6).pages, 6);
    }

    #[test]
    fn who_said_that_accesses_are_random_gets_nothing_else() {
        let mut reading = Reading::default();
        assert_eq!(reading.wanted(touch(7, Advised::Random, true), 32), None);
        assert_eq!(reading.misses, 0);
    }

    #[test]
    fn no_room_is_no_read() {
        let mut reading = Reading::default();
        for advised in [Advised::Nothing, Advised::Sequential] {
            let wanted = reading.wanted(touch(7, advised, true), 0);
            assert!(wanted.is_none_or(|range| range.is_empty()), "{advised:?}");
        }
    }
}
