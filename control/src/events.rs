//! Events for `--report` and `--trace`.
//!
//! Each slot has a ring, behind the columns of the shares in the same file. The threads of a
//! process write it, one reader drains it. A full ring drops new events and counts them, so a slow
//! reader costs the program nothing. A writer that is killed halfway leaves an incomplete record,
//! which the reader skips.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// The records of a ring.
pub const RECORDS: usize = 1 << 15;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A fault gave a page of zeros to anonymous memory.
    Anonymous,
    /// The same for a load, which reads only zeros.
    Zero,
    /// A fault gave a page of a file.
    File,
    /// A fault read a page back from swap.
    SwapIn,
    /// A fault copied a shared page for its writer.
    CopyOnWrite,
    /// The first store to a page that its sole owner may write.
    FirstStore,
    /// A fault restored the rights that an entry had lost to show whether its page is used.
    Standby,
    /// A fault found nothing to correct.
    Spurious,
    /// A fault on an access that the page table already allowed: the host's page was filled.
    Refill,
    /// A page came back from swap before it was touched.
    ReadAhead,
    /// Memory got a page of zeros before it was touched.
    PopulatedAhead,
    /// A page was evicted.
    Evicted,
    /// The process began, as a fork of another.
    Fork,
    /// The process's pages were taken over from the host.
    Takeover,
}

impl Kind {
    /// All kinds, each at the index of its number.
    pub const ALL: [Self; 14] = [
        Self::Anonymous,
        Self::Zero,
        Self::File,
        Self::SwapIn,
        Self::CopyOnWrite,
        Self::FirstStore,
        Self::Standby,
        Self::Spurious,
        Self::Refill,
        Self::ReadAhead,
        Self::PopulatedAhead,
        Self::Evicted,
        Self::Fork,
        Self::Takeover,
    ];

    /// Whether it corrected a fault, or an access of a system call.
    pub const fn is_fault(self) -> bool {
        self as u8 <= Self::Refill as u8
    }

    /// Whether pages came or went by it without a fault of their own; one event may tell of several.
    pub const fn is_move(self) -> bool {
        matches!(self, Self::ReadAhead | Self::PopulatedAhead | Self::Evicted)
    }

    /// Its name in JSON and, with hyphens, in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Zero => "zero",
            Self::File => "file",
            Self::SwapIn => "swap_in",
            Self::CopyOnWrite => "copy_on_write",
            Self::FirstStore => "first_store",
            Self::Standby => "standby",
            Self::Spurious => "spurious",
            Self::Refill => "refill",
            Self::ReadAhead => "read_ahead",
            Self::PopulatedAhead => "populated_ahead",
            Self::Evicted => "evicted",
            Self::Fork => "fork",
            Self::Takeover => "takeover",
        }
    }
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happening {
    /// What happened.
    pub kind: Kind,
    /// Whether the access was a store.
    pub write: bool,
    /// Whether a page was read from a store.
    pub major: bool,
    /// Whether this was an access that a system call was about to make, and not a fault of the
    /// program.
    pub in_call: bool,
    /// When it began: `CLOCK_MONOTONIC`, in nanoseconds.
    pub time: u64,
    /// Its duration in nanoseconds; 0 if not measured.
    pub took: u64,
    /// The address of the page; 0 if it concerns none. Of a move, the first page of its block.
    pub page: u64,
    /// Of a move, which pages of the block moved: the lowest bit stands for the first. 0 otherwise.
    pub pages: u64,
    /// The instruction that faulted; 0 if none did.
    pub ip: u64,
    /// The process's number in its own namespace.
    pub process: u32,
    /// The thread's number in its own namespace.
    pub thread: u32,
}

const KIND: u64 = 0x1f;
const WRITE: u64 = 1 << 5;
const MAJOR: u64 = 1 << 6;
const IN_CALL: u64 = 1 << 7;
const PAGE: u64 = !(Happening::PAGE - 1);

impl Happening {
    /// Bytes of a page.
    pub const PAGE: u64 = 4096;
    /// The pages of a block, which one event can tell of.
    pub const BLOCK: u64 = 64;

    /// The addresses of the pages that moved.
    pub fn moved(&self) -> impl Iterator<Item = u64> + use<> {
        let (first, pages) = (self.page, self.pages);
        let moved = (0..Self::BLOCK).filter(move |page| pages >> page & 1 != 0);
        moved.map(move |page| first + page * Self::PAGE)
    }

    fn place(&self) -> u64 {
        let flag = |is: bool, bit: u64| if is { bit } else { 0 };
        (self.page & PAGE)
            | self.kind as u64
            | flag(self.write, WRITE)
            | flag(self.major, MAJOR)
            | flag(self.in_call, IN_CALL)
    }

    fn who(&self) -> u64 {
        u64::from(self.process) << 32 | u64::from(self.thread)
    }
}

/// An event in a ring.
#[repr(C)]
#[derive(Default)]
struct Record {
    /// The number of the event that it holds, plus one: written last.
    number: AtomicU64,
    time: AtomicU64,
    took: AtomicU64,
    /// The page's address; in its low bits what happened.
    place: AtomicU64,
    /// The instruction, or the pages that moved.
    detail: AtomicU64,
    /// Process and thread.
    who: AtomicU64,
}

impl Record {
    fn write(&self, event: &Happening, number: u64) {
        self.time.store(event.time, Relaxed);
        self.took.store(event.took, Relaxed);
        self.place.store(event.place(), Relaxed);
        self.detail.store(if event.kind.is_move() { event.pages } else { event.ip }, Relaxed);
        self.who.store(event.who(), Relaxed);
        self.number.store(number + 1, Release);
    }

    /// The event, or `None` if there is no such kind.
    fn read(&self) -> Option<Happening> {
        let (place, who) = (self.place.load(Relaxed), self.who.load(Relaxed));
        let kind = *Kind::ALL.get((place & KIND) as usize)?;
        let detail = self.detail.load(Relaxed);
        let (ip, pages) = if kind.is_move() { (0, detail) } else { (detail, 0) };
        Some(Happening {
            kind,
            write: place & WRITE != 0,
            major: place & MAJOR != 0,
            in_call: place & IN_CALL != 0,
            time: self.time.load(Relaxed),
            took: self.took.load(Relaxed),
            page: place & PAGE,
            pages,
            ip,
            process: (who >> 32) as u32,
            thread: who as u32,
        })
    }
}

/// The events of one slot's process.
#[repr(C)]
pub struct Ring {
    /// The number of the next event.
    head: AtomicU64,
    apart: [AtomicU64; 7],
    /// The number of the next event to read.
    tail: AtomicU64,
    /// The number of lost events.
    lost: AtomicU64,
    apart_too: [AtomicU64; 6],
    records: [Record; RECORDS],
}

/// The record at the reader's place in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// An event, now read.
    Event(Happening),
    /// Nothing yet.
    Nothing,
    /// A record that is being written, or whose writer was killed.
    Unfinished,
}

impl Ring {
    /// Keeps an event, or counts it as lost if the ring is full.
    pub fn write(&self, event: &Happening) {
        let mut head = self.head.load(Relaxed);
        loop {
            if head.wrapping_sub(self.tail.load(Acquire)) >= RECORDS as u64 {
                self.lost.fetch_add(1, Relaxed);
                return;
            }
            match self.head.compare_exchange_weak(head, head + 1, Relaxed, Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        self.records[head as usize % RECORDS].write(event, head);
    }

    /// Reads the next event. There is one reader.
    pub fn read(&self) -> Next {
        let tail = self.tail.load(Relaxed);
        if self.head.load(Relaxed) == tail {
            return Next::Nothing;
        }
        let record = &self.records[tail as usize % RECORDS];
        if record.number.load(Acquire) != tail.wrapping_add(1) {
            return Next::Unfinished;
        }
        let event = record.read();
        self.tail.store(tail.wrapping_add(1), Release);
        event.map_or(Next::Unfinished, Next::Event)
    }

    /// Skips the record at the reader's place, whose writer has died.
    pub fn skip(&self) {
        self.tail.fetch_add(1, Release);
        self.lost.fetch_add(1, Relaxed);
    }

    /// How many events were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::{Control, MappedRing, Plan};
    use std::vec::Vec;

    fn event(number: u64) -> Happening {
        let kind = Kind::ALL[number as usize % Kind::ALL.len()];
        let (ip, pages) = if kind.is_move() { (0, number + 1) } else { (number * 7, 0) };
        Happening {
            kind,
            write: number.is_multiple_of(2),
            major: number.is_multiple_of(3),
            in_call: number.is_multiple_of(5),
            time: number,
            took: number + 1,
            page: number << 12,
            pages,
            ip,
            process: 12,
            thread: 13,
        }
    }

    fn ring() -> MappedRing {
        let (file, _control) =
            Control::create_observed(Plan::new(1 << 20, 1 << 20, [0; crate::MOST_AREAS])).unwrap();
        MappedRing::new(&file, Plan::new(1 << 20, 1 << 20, [0; crate::MOST_AREAS]), 3).unwrap()
    }

    #[test]
    fn kinds_are_at_their_numbers() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn the_pages_that_moved_have_their_addresses() {
        let moves = Happening { page: 0x40_0000, pages: 1 << 63 | 0b101, ..event(0) };
        let pages: Vec<u64> = moves.moved().collect();
        assert_eq!(pages, [0x40_0000, 0x40_2000, 0x43_f000]);
    }

    #[test]
    fn what_is_written_is_read_in_order_and_a_full_ring_loses_what_is_new() {
        let ring = ring();
        assert_eq!(ring.read(), Next::Nothing);
        let some = RECORDS as u64 + 10;
        (0..some).for_each(|number| ring.write(&event(number)));
        assert_eq!(ring.lost(), 10);
        for number in 0..RECORDS as u64 {
            assert_eq!(ring.read(), Next::Event(event(number)));
        }
        assert_eq!(ring.read(), Next::Nothing);
        ring.write(&event(99));
        assert_eq!(ring.read(), Next::Event(event(99)));
    }

    #[test]
    fn a_writer_that_was_killed_halfway_is_skipped() {
        let ring = ring();
        // The writer took its place and wrote nothing.
        ring.head.fetch_add(1, Relaxed);
        ring.write(&event(1));
        assert_eq!(ring.read(), Next::Unfinished);
        assert_eq!(ring.read(), Next::Unfinished);
        ring.skip();
        assert_eq!(ring.read(), Next::Event(event(1)));
        assert_eq!(ring.lost(), 1);
    }

    #[test]
    fn threads_write_at_once_and_nothing_is_lost_in_silence() {
        let ring = ring();
        let each = RECORDS as u64;
        let mut times = Vec::new();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let ring = &ring;
                scope.spawn(move || {
                    (0..each).for_each(|number| ring.write(&event(number * 3 + thread)));
                });
            }
            while times.len() as u64 + ring.lost() < 3 * each {
                match ring.read() {
                    Next::Event(seen) => {
                        assert_eq!(seen, event(seen.time));
                        times.push(seen.time);
                    }
                    Next::Nothing | Next::Unfinished => std::thread::yield_now(),
                }
            }
        });
        let all = times.len();
        times.sort_unstable();
        times.dedup();
        assert_eq!(times.len(), all);
    }
}
