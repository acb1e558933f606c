//! Gathers pages on their way to a file, and writes them in long runs. A page's name is its place
//! in the file.
//!
//! One write of many pages costs a device little more than a write of one. So pages wait in a
//! buffer until it is full. A page that is read back or discarded meanwhile never reaches the file.

use super::Mutex;
use crate::host::PAGE;
use crate::reserve::{Reservation, ReserveError};
use core::ops::Range;
use pagefault_machine::IoError;
use pagefault_machine::store::PageBytes;

/// The most pages that wait: 128 KiB.
pub(super) const MOST: usize = 32;

/// The value of an empty place in the buffer.
const NONE: u32 = 0;

/// The pages that wait.
pub(super) struct Behind {
    /// Aligned, as direct I/O wants it.
    memory: Reservation,
    waiting: Mutex<Waiting>,
}

/// The waiting pages and their places, in order of arrival.
struct Waiting {
    positions: [u32; MOST],
    count: usize,
}

/// Consecutive pages of the file.
pub(super) struct Run<'a> {
    pub pages: Range<u32>,
    pub bytes: &'a [u8],
}

impl Behind {
    pub fn new() -> Result<Self, ReserveError> {
        Ok(Self {
            memory: Reservation::own(MOST * PAGE)?,
            waiting: Mutex::new(Waiting { positions: [NONE; MOST], count: 0 }),
        })
    }

    /// Adds a waiting page; without room, writes the others first. No other page waits for this
    /// position.
    ///
    /// An error of `write` is passed on, and the page does not wait.
    pub fn add(
        &self,
        position: u32,
        page: &PageBytes,
        write: impl FnMut(Run<'_>) -> Result<(), IoError>,
    ) -> Result<(), IoError> {
        let mut waiting = self.waiting.lock();
        if waiting.count == MOST {
            self.write_all(&mut waiting, write)?;
        }
        let place = waiting.count;
        // SAFETY: the place is in the buffer, and nobody else uses it under the lock.
        unsafe { self.place(place).copy_from_nonoverlapping(page.as_ptr(), PAGE) };
        waiting.positions[place] = position;
        waiting.count += 1;
        Ok(())
    }

    /// Copies the page of a position; false if none waits.
    pub fn read(&self, position: u32, page: &mut PageBytes) -> bool {
        let waiting = self.waiting.lock();
        let Some(place) = waiting.place_of(position) else { return false };
        // SAFETY: as in `add`.
        unsafe { self.place(place).copy_to_nonoverlapping(page.as_mut_ptr(), PAGE) };
        true
    }

    /// Forgets the page of a position; false if none waits.
    pub fn forget(&self, position: u32) -> bool {
        let mut waiting = self.waiting.lock();
        let Some(place) = waiting.place_of(position) else { return false };
        waiting.positions[place] = NONE;
        while waiting.count > 0 && waiting.positions[waiting.count - 1] == NONE {
            waiting.count -= 1;
        }
        true
    }

    /// Writes the waiting pages. Pages that `write` refuses keep waiting.
    pub fn flush(&self, write: impl FnMut(Run<'_>) -> Result<(), IoError>) -> Result<(), IoError> {
        self.write_all(&mut self.waiting.lock(), write)
    }

    fn write_all(
        &self,
        waiting: &mut Waiting,
        mut write: impl FnMut(Run<'_>) -> Result<(), IoError>,
    ) -> Result<(), IoError> {
        let mut at = 0;
        while at < waiting.count {
            let len = waiting.run_at(at);
            let first = waiting.positions[at];
            if first != NONE {
                // SAFETY: the run is in the buffer, and nobody else uses it under the lock.
                let bytes = unsafe { core::slice::from_raw_parts(self.place(at), len * PAGE) };
                write(Run { pages: first..first + len as u32, bytes })?;
                waiting.positions[at..at + len].fill(NONE);
            }
            at += len;
        }
        waiting.count = 0;
        Ok(())
    }

    fn place(&self, place: usize) -> *mut u8 {
        self.memory.start().wrapping_add(place * PAGE)
    }
}

impl Waiting {
    fn place_of(&self, position: u32) -> Option<usize> {
        self.positions[..self.count].iter().position(|waiting| *waiting == position)
    }

    /// How many places from this one on hold consecutive positions.
    fn run_at(&self, at: usize) -> usize {
        let first = self.positions[at];
        let follows = |step: usize| match first {
            NONE => false,
            first => self.positions[at + step] == first + step as u32,
        };
        1 + (1..self.count - at).take_while(|step| follows(*step)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn page(position: u32) -> PageBytes {
        [position as u8; PAGE]
    }

    #[test]
    fn pages_are_written_in_runs_once_there_is_no_room() {
        let behind = Behind::new().unwrap();
        let mut runs = Vec::new();
        let positions = (10..20).chain(30..52).chain([7]);
        for position in positions {
            let write = |run: Run<'_>| {
                assert!(
                    run.bytes
                        .chunks(PAGE)
                        .zip(run.pages.clone())
                        .all(|(bytes, position)| bytes == page(position))
                );
                assert!(run.bytes.as_ptr().addr().is_multiple_of(PAGE));
                runs.push(run.pages);
                Ok(())
            };
            behind.add(position, &page(position), write).unwrap();
        }
        assert_eq!(runs, [10..20, 30..52]);
        let mut back = page(0);
        assert!(!behind.read(10, &mut back));
        assert!(behind.read(7, &mut back));
        assert_eq!(back, page(7));
    }

    #[test]
    fn a_page_that_is_forgotten_is_not_written_and_one_that_is_refused_waits_on() {
        let behind = Behind::new().unwrap();
        for position in 1..=MOST as u32 {
            behind.add(position, &page(position), |_| unreachable!("there is room")).unwrap();
        }
        assert!(behind.forget(5));
        assert!(!behind.forget(5));
        let mut runs = Vec::new();
        let refuse_the_second = |run: Run<'_>| {
            runs.push(run.pages);
            if runs.len() == 2 { Err(IoError::Full) } else { Ok(()) }
        };
        assert_eq!(behind.add(100, &page(100), refuse_the_second), Err(IoError::Full));
        assert_eq!(runs, [1..5, 6..33]);
        let mut back = page(0);
        assert!(!behind.read(4, &mut back) && !behind.read(100, &mut back));
        assert!(behind.read(6, &mut back));
        assert_eq!(back, page(6));
        let mut again = Vec::new();
        let write = |run: Run<'_>| {
            again.push((run.pages.start, run.pages.end));
            Ok(())
        };
        behind.flush(write).unwrap();
        assert_eq!(again, [(6, 33)]);
    }
}
