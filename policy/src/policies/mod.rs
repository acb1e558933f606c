//! Which page leaves first: the policies that are compared.
//!
//! A policy sees the use of a mapped page only by accessed bits. Without them it sees pages that
//! come back from swap, and uses of pages that it had unmapped and kept.

mod bits;
mod blind;
mod optimal;

use crate::list::{Fifo, Links};
pub use bits::{Clock, Lru, TwoQueues};
pub use blind::{Plain, S3Fifo, Segmented};
pub use optimal::Optimal;

/// How a page comes into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It holds zeros.
    Fresh,
    /// It is needed and comes back from swap.
    Back,
    /// It comes back from swap ahead of need.
    Guess,
}

/// The cost of a use of a page in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Nothing.
    Free,
    /// A fault that maps a page that was unmapped and kept.
    Rescue,
}

/// Decides which page leaves. `next` is the step at which the page's content is needed again; only
/// the bound may use it.
pub trait Policy {
    /// A page comes in. There is a frame for it.
    fn insert(&mut self, page: u32, origin: Origin, next: u32);
    /// A page in memory is used.
    fn touch(&mut self, page: u32, next: u32) -> Touch;
    /// Memory is full: the page that leaves.
    fn evict(&mut self) -> Option<u32>;
    /// The program gives up a page in memory.
    fn remove(&mut self, page: u32);
}

/// Makes a policy for the numbers of pages and of frames.
pub type Make = fn(pages: usize, frames: usize) -> Box<dyn Policy>;

/// All policies, with their names.
pub const ALL: &[(&str, Make)] = &[
    ("OPT (bound)", |pages, _| Box::new(Optimal::new(pages))),
    ("LRU, every use seen", |pages, _| Box::new(Lru::new(pages))),
    ("CLOCK, accessed bits", |pages, _| Box::new(Clock::new(pages))),
    ("2Q, accessed bits", |pages, frames| Box::new(TwoQueues::new(pages, frames))),
    ("S3-FIFO, accessed bits", |pages, frames| Box::new(S3Fifo::with_bits(pages, frames))),
    ("S3-FIFO", |pages, frames| Box::new(S3Fifo::blind(pages, frames))),
    ("S3-FIFO, ghosts without age", |pages, _| Box::new(S3Fifo::blind(pages, pages))),
    ("FIFO", |pages, _| Box::new(Plain::new(pages))),
    ("FIFO, standby 5 %", |pages, frames| Box::new(Segmented::new(pages, frames / 20))),
    ("FIFO, standby 10 %", |pages, frames| Box::new(Segmented::new(pages, frames / 10))),
    ("FIFO, standby 20 %", |pages, frames| Box::new(Segmented::new(pages, frames / 5))),
    ("FIFO, standby 30 %", |pages, frames| Box::new(Segmented::new(pages, frames * 3 / 10))),
    ("FIFO, standby 50 %", |pages, frames| Box::new(Segmented::new(pages, frames / 2))),
    ("S3-FIFO, standby 5 %", |p, f| Box::new(S3Fifo::blind(p, f).with_standby(f / 20))),
    ("S3-FIFO, standby 10 %", |p, f| Box::new(S3Fifo::blind(p, f).with_standby(f / 10))),
    ("S3-FIFO, standby 20 %", |p, f| Box::new(S3Fifo::blind(p, f).with_standby(f / 5))),
    ("S3-FIFO, standby 30 %", |p, f| Box::new(S3Fifo::blind(p, f).with_standby(f * 3 / 10))),
    ("FIFO, standby 5 %, trust 3", |p, f| Box::new(Segmented::new(p, f / 20).with_trust(3))),
    ("FIFO, standby 10 %, trust 3", |p, f| Box::new(Segmented::new(p, f / 10).with_trust(3))),
    ("FIFO, standby 20 %, trust 3", |p, f| Box::new(Segmented::new(p, f / 5).with_trust(3))),
];

/// Ghosts: the pages that left most recently, up to a number.
struct Ghosts {
    left: Vec<u64>,
    clock: u64,
    most: u64,
}

impl Ghosts {
    fn new(pages: usize, most: usize) -> Self {
        Self { left: vec![0; pages], clock: most as u64 + 1, most: most as u64 }
    }

    fn remember(&mut self, page: u32) {
        self.clock += 1;
        self.left[page as usize] = self.clock;
    }

    fn recall(&mut self, page: u32) -> bool {
        let left = std::mem::take(&mut self.left[page as usize]);
        left != 0 && self.clock - left < self.most
    }
}
