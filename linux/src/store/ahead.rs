//! Reads pages from a file in clusters when the reads are sequential.
//!
//! A device reads sixteen pages almost as fast as one. A read of the position after the last one
//! also reads the following pages into a buffer, which serves later reads.

use super::Mutex;
use crate::host::PAGE;
use crate::reserve::{Reservation, ReserveError};
use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU32, AtomicU64, fence};
use pagefault_machine::IoError;
use pagefault_machine::store::PageBytes;

/// The pages of a cluster: 64 KiB.
const CLUSTER: usize = 16;

/// The number of clusters, and so of concurrent reads.
const CLUSTERS: usize = 4;

/// The clusters of an area.
pub(super) struct Ahead {
    /// Aligned, as direct I/O wants it.
    memory: Reservation,
    clusters: [Mutex<Cluster>; CLUSTERS],
    /// The positions that each cluster may hold, encoded by [`to_word`]; read without its lock.
    ranges: [AtomicU64; CLUSTERS],
    /// The position after the last one read.
    next: AtomicU32,
}

/// Which pages are in a cluster's buffer, one bit each. The first position is the one of its range.
struct Cluster {
    held: u32,
}

impl Ahead {
    pub fn new() -> Result<Self, ReserveError> {
        Ok(Self {
            memory: Reservation::own(CLUSTERS * CLUSTER * PAGE)?,
            clusters: [const { Mutex::new(Cluster { held: 0 }) }; CLUSTERS],
            ranges: [const { AtomicU64::new(0) }; CLUSTERS],
            next: AtomicU32::new(0),
        })
    }

    /// Reads the page at a position. `is_there` tells whether a position has a page; `read` fills a
    /// buffer with consecutive pages.
    pub fn read(
        &self,
        position: u32,
        page: &mut PageBytes,
        is_there: impl Fn(u32) -> bool,
        read: impl Fn(u32, &mut [u8]) -> Result<(), IoError>,
    ) -> Result<(), IoError> {
        let follows = self.next.swap(position + 1, Relaxed) == position;
        if self.take(position, page) {
            return Ok(());
        }
        let (index, mut cluster) = self.free_cluster(position);
        let wanted = if follows { CLUSTER as u32 } else { 1 };
        // From now on, a writer of one of these positions waits for the read, and then forgets the
        // page.
        self.ranges[index].store(to_word(&(position..position + wanted)), Relaxed);
        fence(SeqCst);
        let count = 1
            + (position + 1..position + wanted).take_while(|position| is_there(*position)).count();
        cluster.held = 0;
        // SAFETY: the buffer is this cluster's, and nobody else uses it under the lock.
        let buffer = unsafe {
            let start = self.memory.start().add(index * CLUSTER * PAGE);
            core::slice::from_raw_parts_mut(start, CLUSTER * PAGE)
        };
        match read(position, &mut buffer[..count * PAGE]) {
            Ok(()) => {
                cluster.held = ((1_u64 << count) - 1) as u32 & !1;
            }
            // The error may concern one of the extra pages.
            Err(_) if count > 1 => read(position, &mut buffer[..PAGE])?,
            Err(error) => return Err(error),
        }
        page.copy_from_slice(&buffer[..PAGE]);
        Ok(())
    }

    /// Forgets the page of a position that is about to be rewritten.
    pub fn forget(&self, position: u32) {
        // Either this sees the range of a current read, or that read sees that the position has no
        // page.
        fence(SeqCst);
        for (index, range) in self.ranges.iter().enumerate() {
            let range = from_word(range.load(Relaxed));
            if range.contains(&position) {
                let mut cluster = self.clusters[index].lock();
                let range = from_word(self.ranges[index].load(Relaxed));
                if range.contains(&position) {
                    cluster.held &= !(1 << (position - range.start));
                }
            }
        }
    }

    /// Takes a page that was read before.
    fn take(&self, position: u32, page: &mut PageBytes) -> bool {
        (0..CLUSTERS).any(|index| {
            if !from_word(self.ranges[index].load(Relaxed)).contains(&position) {
                return false;
            }
            let mut cluster = self.clusters[index].lock();
            let range = from_word(self.ranges[index].load(Relaxed));
            let place = position.wrapping_sub(range.start);
            if !range.contains(&position) || cluster.held & 1 << place == 0 {
                return false;
            }
            cluster.held &= !(1 << place);
            // SAFETY: the place is in this cluster's buffer, and nobody writes it under the lock.
            unsafe {
                let start = self.memory.start().add((index * CLUSTER + place as usize) * PAGE);
                start.copy_to_nonoverlapping(page.as_mut_ptr(), PAGE);
            }
            true
        })
    }

    /// An unused cluster; waits for one if there is none.
    fn free_cluster(
        &self,
        position: u32,
    ) -> (usize, lock_api::MutexGuard<'_, crate::lock::SoleMutex, Cluster>) {
        // Prefers one whose pages were all taken, so that threads do not discard each other's
        // pages.
        let free = (0..CLUSTERS)
            .filter_map(|index| Some((index, self.clusters[index].try_lock()?)))
            .find(|(_, cluster)| cluster.held == 0);
        free.unwrap_or_else(|| {
            let index = position as usize / CLUSTER % CLUSTERS;
            (index, self.clusters[index].lock())
        })
    }
}

fn to_word(range: &Range<u32>) -> u64 {
    u64::from(range.start) << 32 | u64::from(range.end)
}

fn from_word(word: u64) -> Range<u32> {
    (word >> 32) as u32..word as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::vec::Vec;

    /// The pages of a file, and which were read at once.
    struct File {
        reads: RefCell<Vec<(u32, usize)>>,
        round: u8,
    }

    impl File {
        fn page(&self, position: u32) -> PageBytes {
            let mut page = [self.round; PAGE];
            page[..4].copy_from_slice(&position.to_ne_bytes());
            page
        }

        fn read(&self, ahead: &Ahead, position: u32) -> Result<(), IoError> {
            let mut page = [0; PAGE];
            let read = |first: u32, bytes: &mut [u8]| {
                self.reads.borrow_mut().push((first, bytes.len() / PAGE));
                if (first..).zip(bytes.chunks_mut(PAGE)).any(|(position, bytes)| {
                    bytes.copy_from_slice(&self.page(position));
                    position == 200
                }) {
                    return Err(IoError::Device);
                }
                Ok(())
            };
            ahead.read(position, &mut page, |position| position != 105, read)?;
            assert!(page == self.page(position), "position {position}");
            Ok(())
        }
    }

    #[test]
    fn reads_in_order_bring_what_follows() {
        let ahead = Ahead::new().unwrap();
        let file = File { reads: RefCell::default(), round: 0 };
        for position in [7, 50, 51, 52, 53, 66, 67, 9] {
            file.read(&ahead, position).unwrap();
        }
        assert_eq!(*file.reads.borrow(), [(7, 1), (50, 1), (51, 16), (67, 16), (9, 1)]);
    }

    #[test]
    fn what_is_written_meanwhile_is_read_anew() {
        let ahead = Ahead::new().unwrap();
        let mut file = File { reads: RefCell::default(), round: 0 };
        (10..13).for_each(|position| file.read(&ahead, position).unwrap());
        file.round = 1;
        (10..30).for_each(|position| ahead.forget(position));
        (13..20).for_each(|position| file.read(&ahead, position).unwrap());
        assert_eq!(*file.reads.borrow(), [(10, 1), (11, 16), (13, 16)]);
    }

    #[test]
    fn only_a_page_that_was_asked_for_fails_a_read() {
        let ahead = Ahead::new().unwrap();
        let file = File { reads: RefCell::default(), round: 0 };
        // Nothing is at position 105, so that a cluster ends before it.
        (102..105).for_each(|position| file.read(&ahead, position).unwrap());
        (197..200).for_each(|position| file.read(&ahead, position).unwrap());
        assert_eq!(file.read(&ahead, 200), Err(IoError::Device));
        let reads = file.reads.borrow();
        assert_eq!(reads[..3], [(102, 1), (103, 2), (197, 1)]);
        assert_eq!(reads[3..5], [(198, 16), (198, 1)]);
        assert_eq!(reads.last(), Some(&(200, 1)));
    }
}
