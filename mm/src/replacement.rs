//! Replacement policies: which page leaves memory first.
//!
//! Pages wait in three queues, each a FIFO. The manager provides the mechanism: it judges the oldest page of the
//! queue that is due, spares a page that was used, and evicts the others. A [`Replacement`] decides which queue a
//! page enters and how large the queues are. [`Config::replacement`](crate::Config) takes one; by default a
//! machine with accessed bits has [`S3Fifo`], any other [`SegmentedFifo`].
//!
//! ```
//! use pagefault::replacement::{Queue, Replacement, Shares};
//! use pagefault::{Config, Manager};
//! use pagefault_sim::Sim;
//! use std::sync::Arc;
//!
//! /// Evicts what was read once before anything that came back.
//! #[derive(Debug)]
//! struct Returned;
//!
//! impl Replacement for Returned {
//!     fn shares(&self) -> Shares {
//!         Shares { small: 50, ..Shares::default() }
//!     }
//!
//!     fn admit(&self, key: Option<u64>) -> Queue {
//!         if key.is_some() { Queue::Main } else { Queue::Small }
//!     }
//! }
//!
//! let sim = Sim::new(pagefault_sim::Config::default());
//! let config = Config { replacement: Some(Box::new(Returned)), ..Config::default() };
//! let manager = Manager::new(Arc::new(sim), config);
//! ```

use alloc::boxed::Box;
use alloc::sync::Arc;
use bytemuck::allocation::zeroed_slice_box;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

/// One of the queues in which pages wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Newcomers, and pages that a program declared cold (`MADV_COLD`).
    Small,
    /// Pages that proved their worth.
    Main,
    /// Pages that leave next unless they are used, on a machine without accessed bits.
    Standby,
}

/// How large the queues are, and how long a use counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The share of the small queue, in percent of both: while it is larger, its oldest page is judged
    /// next, otherwise the main queue's. 0: its pages always leave before the others. At most 100.
    pub small: u32,
    /// How many pages are on standby on a machine without accessed bits, in percent of all. 1 to 100.
    pub standby: u32,
    /// For how many rounds of the main queue a page that was used on standby is exempt; 0 to 3.
    pub rounds: u32,
}

impl Default for Shares {
    /// The small queue first, a sixteenth on standby, three rounds.
    fn default() -> Self {
        Self { small: 0, standby: 6, rounds: 3 }
    }
}

impl Shares {
    /// The most rounds that a page can be exempt.
    pub(crate) const MOST_ROUNDS: u32 = 3;

    /// Whether the small queue is larger than its share, or the main queue is empty.
    pub(crate) fn small_is_due(self, small: u32, main: u32) -> bool {
        let (of_small, of_main) = (u64::from(100 - self.small), u64::from(self.small));
        main == 0 || u64::from(small) * of_small >= u64::from(main) * of_main
    }

    /// The nearest shares that make sense.
    pub(crate) fn clamped(self) -> Self {
        Self {
            small: self.small.min(100),
            standby: self.standby.clamp(1, 100),
            rounds: self.rounds.min(Self::MOST_ROUNDS),
        }
    }
}

/// A replacement policy.
///
/// Its methods are called at page faults and evictions, from any thread. The caller may hold the lock of the
/// page, and no other lock of the manager. A method must not fault on memory that the manager manages.
pub trait Replacement: Send + Sync + fmt::Debug {
    /// The sizes of the queues. Asked once, when the manager is made; values out of range become the nearest
    /// in range.
    fn shares(&self) -> Shares;

    /// The queue that a page enters. `key` is a hash of the place in a file or in swap that its content came
    /// from; a page that is new has none. A page cannot begin on standby; it enters the main queue instead.
    fn admit(&self, key: Option<u64>) -> Queue;

    /// A page was evicted. If it comes back, `key` is the same.
    fn evicted(&self, _key: u64) {}
}

/// The embedder keeps the other handle.
impl<P: Replacement + ?Sized> Replacement for Arc<P> {
    fn shares(&self) -> Shares {
        (**self).shares()
    }

    fn admit(&self, key: Option<u64>) -> Queue {
        (**self).admit(key)
    }

    fn evicted(&self, key: u64) {
        (**self).evicted(key);
    }
}

/// S3-FIFO: a page enters a small queue, and unless it is used there, leaves before the others. The default on
/// machines with accessed bits.
///
/// A fingerprint, or *ghost*, remembers a page that left. If the page comes back soon, it enters the main queue.
/// Source: Yang, Zhang, Qiu, Yue, Rashmi, *FIFO queues are all you need for cache eviction*, SOSP 2023.
pub struct S3Fifo {
    ghosts: Box<[AtomicU32]>,
}

impl S3Fifo {
    /// The policy for a memory of this many frames, which has as many ghosts. They take 4 bytes each.
    pub fn new(frames: u32) -> Self {
        Self { ghosts: zeroed_slice_box(frames.max(1).next_power_of_two() as usize) }
    }

    fn ghost(&self, key: u64) -> &AtomicU32 {
        &self.ghosts[key as usize & (self.ghosts.len() - 1)]
    }
}

impl fmt::Debug for S3Fifo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Fifo").field("ghosts", &self.ghosts.len()).finish()
    }
}

impl Replacement for S3Fifo {
    fn shares(&self) -> Shares {
        Shares { small: 10, ..Shares::default() }
    }

    fn admit(&self, key: Option<u64>) -> Queue {
        let returns = |key| {
            let ghost = self.ghost(key);
            let hit = ghost.load(Ordering::Relaxed) == fingerprint(key);
            if hit {
                ghost.store(0, Ordering::Relaxed);
            }
            hit
        };
        if key.is_some_and(returns) { Queue::Main } else { Queue::Small }
    }

    fn evicted(&self, key: u64) {
        self.ghost(key).store(fingerprint(key), Ordering::Relaxed);
    }
}

/// The upper half of a hash, never 0.
const fn fingerprint(key: u64) -> u32 {
    (key >> 32) as u32 | 1
}

/// A segmented FIFO: pages leave in the order in which they came, but wait on standby first, where a use brings
/// them back. The default on machines without accessed bits.
///
/// With accessed bits there is no standby: it is one queue in which a page that was used gets a second chance,
/// as in CLOCK.
///
/// A larger share on standby notices more uses, and costs more faults that move no data. Source: Turner and
/// Levy, *Segmented FIFO page replacement*, SIGMETRICS 1981.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentedFifo {
    /// The share on standby, and for how long a use counts.
    pub shares: Shares,
}

impl Replacement for SegmentedFifo {
    fn shares(&self) -> Shares {
        self.shares
    }

    fn admit(&self, _key: Option<u64>) -> Queue {
        Queue::Main
    }
}
