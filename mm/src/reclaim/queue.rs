//! The replacement queues: which page leaves first.
//!
//! The policy is S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache
//! eviction", SOSP 2023), in the place of the two-list clock of Linux 2.6.24 (spec F14–F18). A new
//! page enters the *small* queue, about a tenth of memory. At its end a page that was used since
//! goes to the *main* queue, another leaves and is remembered by a fingerprint among the *ghosts*;
//! a page that comes back while its ghost is remembered enters the main queue at once. The main
//! queue is a FIFO with reinsertion of used pages. Where a machine keeps no accessed bits, nothing
//! is seen to be used, and the ghosts alone tell what is worth keeping.
//!
//! The queues are cut into shards by frame number, so that threads faulting at once seldom meet.

use crate::machine::{Frame, Machine};
use crate::page::{NO_FRAME, PageFlags, Pages};
use crate::sync::{LockOrder, Mutex, Rank};
use alloc::boxed::Box;
use bytemuck::allocation::zeroed_slice_box;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

const SHARDS: usize = 16;

/// Which queue a page is put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The queue of newcomers.
    Small,
    /// The queue of pages that proved their worth.
    Main,
}

struct List {
    newest: u32,
    oldest: u32,
    len: u32,
}

struct Shard {
    small: List,
    main: List,
}

/// All queues.
pub(crate) struct Queues<M: Machine> {
    shards: Box<[Mutex<M, Shard>]>,
    hand: AtomicUsize,
    ghosts: Box<[AtomicU32]>,
}

impl<M: Machine> Queues<M> {
    pub(crate) fn new(frames: u32) -> Self {
        let empty = || List { newest: NO_FRAME, oldest: NO_FRAME, len: 0 };
        let shard = || Mutex::new(Rank::Queue, Shard { small: empty(), main: empty() });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hand: AtomicUsize::new(0),
            ghosts: zeroed_slice_box(frames.next_power_of_two() as usize),
        }
    }

    /// Puts a page at the new end of a queue.
    pub(crate) fn push(&self, pages: &Pages, order: &LockOrder<M>, frame: Frame, to: Which) {
        let page = pages.of(frame);
        let mut shard = self.shards[frame.index() % SHARDS].lock(order);
        let before = page.set(PageFlags::QUEUED);
        if before.contains(PageFlags::QUEUED) {
            return;
        }
        let was_main = before.contains(PageFlags::MAIN);
        match to {
            Which::Small if was_main => page.clear(PageFlags::MAIN),
            Which::Main if !was_main => page.set(PageFlags::MAIN),
            _ => before,
        };
        shard.list_of(to).push(pages, frame);
    }

    /// Takes a page out of whatever queue it is in.
    pub(crate) fn remove(&self, pages: &Pages, order: &LockOrder<M>, frame: Frame) {
        let page = pages.of(frame);
        if !page.has(PageFlags::QUEUED) {
            return;
        }
        let mut shard = self.shards[frame.index() % SHARDS].lock(order);
        let before = page.clear(PageFlags::QUEUED);
        if before.contains(PageFlags::QUEUED) {
            shard.list(before).unlink(pages, frame);
        }
    }

    /// Takes the page that is due to leave next, with a reference, and says where it came from.
    pub(crate) fn pop(&self, pages: &Pages, order: &LockOrder<M>) -> Option<(Frame, Which)> {
        for _ in 0..SHARDS {
            let turn = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let mut shard = self.shards[turn].lock(order);
            if let Some(found) = shard.pop(pages) {
                return Some(found);
            }
        }
        None
    }

    /// Remembers that a page with this hash was evicted.
    pub(crate) fn remember(&self, hash: u64) {
        self.ghost(hash).store(fingerprint(hash), Ordering::Relaxed);
    }

    /// Whether a page with this hash was evicted not long ago; forgets it.
    pub(crate) fn recall(&self, hash: u64) -> bool {
        let ghost = self.ghost(hash);
        let hit = ghost.load(Ordering::Relaxed) == fingerprint(hash);
        if hit {
            ghost.store(0, Ordering::Relaxed);
        }
        hit
    }

    /// How many pages are in the small and in the main queues.
    pub(crate) fn lengths(&self, order: &LockOrder<M>) -> (u32, u32) {
        self.shards.iter().fold((0, 0), |(small, main), shard| {
            let shard = shard.lock(order);
            (small + shard.small.len, main + shard.main.len)
        })
    }

    /// Walks every queue; used by the invariant check (spec I20).
    pub(crate) fn visit(
        &self,
        pages: &Pages,
        order: &LockOrder<M>,
        mut f: impl FnMut(Frame, Which),
    ) {
        for shard in &self.shards {
            let shard = shard.lock(order);
            for (list, which) in [(&shard.small, Which::Small), (&shard.main, Which::Main)] {
                let mut at = list.oldest;
                while at != NO_FRAME {
                    f(Frame(at), which);
                    at = pages.of(Frame(at)).newer.load(Ordering::Relaxed);
                }
            }
        }
    }

    fn ghost(&self, hash: u64) -> &AtomicU32 {
        &self.ghosts[hash as usize & (self.ghosts.len() - 1)]
    }
}

/// The upper half of a hash, never 0.
const fn fingerprint(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

impl Shard {
    fn list_of(&mut self, which: Which) -> &mut List {
        match which {
            Which::Small => &mut self.small,
            Which::Main => &mut self.main,
        }
    }

    fn list(&mut self, flags: PageFlags) -> &mut List {
        if flags.contains(PageFlags::MAIN) { &mut self.main } else { &mut self.small }
    }

    fn pop(&mut self, pages: &Pages) -> Option<(Frame, Which)> {
        let small_is_due = self.small.len * 9 >= self.main.len;
        let (list, which) = if self.small.len > 0 && (small_is_due || self.main.len == 0) {
            (&mut self.small, Which::Small)
        } else {
            (&mut self.main, Which::Main)
        };
        let mut at = list.oldest;
        while at != NO_FRAME {
            let frame = Frame(at);
            let page = pages.of(frame);
            at = page.newer.load(Ordering::Relaxed);
            // A page whose last reference is being dropped is its dropper's to take out.
            let refs = &page.refs;
            let held = refs
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n > 0).then_some(n + 1));
            if held.is_ok() {
                page.clear(PageFlags::QUEUED);
                list.unlink(pages, frame);
                return Some((frame, which));
            }
        }
        None
    }
}

impl List {
    fn push(&mut self, pages: &Pages, frame: Frame) {
        let page = pages.of(frame);
        page.newer.store(NO_FRAME, Ordering::Relaxed);
        page.older.store(self.newest, Ordering::Relaxed);
        match self.newest {
            NO_FRAME => self.oldest = frame.0,
            newest => pages.of(Frame(newest)).newer.store(frame.0, Ordering::Relaxed),
        }
        self.newest = frame.0;
        self.len += 1;
    }

    fn unlink(&mut self, pages: &Pages, frame: Frame) {
        let page = pages.of(frame);
        let newer = page.newer.swap(NO_FRAME, Ordering::Relaxed);
        let older = page.older.swap(NO_FRAME, Ordering::Relaxed);
        match newer {
            NO_FRAME => self.newest = older,
            newer => pages.of(Frame(newer)).older.store(older, Ordering::Relaxed),
        }
        match older {
            NO_FRAME => self.oldest = newer,
            older => pages.of(Frame(older)).newer.store(newer, Ordering::Relaxed),
        }
        self.len -= 1;
    }
}
