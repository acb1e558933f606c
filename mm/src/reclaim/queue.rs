//! The replacement queues: the mechanism of a [replacement policy](crate::replacement).
//!
//! The *small* and the *main* queue are FIFOs. Reclaim judges the oldest page of one of them: a page that was
//! used goes to the new end of the main queue, any other leaves. This takes the place of the two-list clock of
//! Linux 2.6.24 (spec F14–F18).
//!
//! Without accessed bits, faults must show use. A page that is due first goes on *standby*, where its entries
//! allow no access (see [`standby`](crate::reclaim::standby)). An access faults, and the page goes back to the
//! main queue; unused pages leave in order. A page that was used on standby stays mapped for some rounds before
//! it goes on standby again, so hot pages cost few faults. The small queue then only holds pages that leave
//! before others.
//!
//! The queues are cut into shards by frame number, so that concurrent faults rarely contend.

use crate::machine::{Frame, Machine};
use crate::page::{NO_FRAME, PageFlags, Pages};
use crate::replacement::{Queue, Shares};
use crate::sync::{LockOrder, Mutex, Rank};
use crate::word::{Sole, Word};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicUsize, Ordering};

const SHARDS: usize = 16;

/// The most pages that go around when one is taken.
const TURNS: usize = 32;

/// How a page's use is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// By accessed bits.
    Bits,
    /// By faults on pages on standby.
    Standby,
}

/// How many pages are in the queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) small: u32,
    pub(crate) main: u32,
    pub(crate) standby: u32,
}

impl Lengths {
    pub(crate) const fn all(&self) -> u32 {
        self.small + self.main + self.standby
    }
}

struct List {
    newest: u32,
    oldest: u32,
    len: u32,
}

struct Shard {
    small: List,
    main: List,
    standby: List,
}

/// All queues.
pub(crate) struct Queues<M: Machine> {
    shards: Box<[Mutex<M, Shard>]>,
    hand: AtomicUsize,
    sight: Sight,
    shares: Shares,
}

impl<M: Machine> Queues<M> {
    pub(crate) fn new(sight: Sight, shares: Shares) -> Self {
        let empty = || List { newest: NO_FRAME, oldest: NO_FRAME, len: 0 };
        let lists = || Shard { small: empty(), main: empty(), standby: empty() };
        let shard = || Mutex::new(Rank::Queue, lists());
        Self {
            sight,
            shares: shares.clamped(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hand: AtomicUsize::new(0),
        }
    }

    /// Puts a page at the new end of a queue.
    pub(crate) fn push(&self, pages: &Pages, order: &LockOrder<M>, frame: Frame, to: Queue) {
        let page = pages.of(frame);
        let mut shard = self.shards[frame.index() % SHARDS].lock(order);
        let before = page.set(order.machine(), PageFlags::QUEUED);
        if before.contains(PageFlags::QUEUED) {
            return;
        }
        let (was, is) = (before.intersection(Queue::FLAGS), to.flags());
        if was != is {
            page.clear(order.machine(), was);
            page.set(order.machine(), is);
        }
        shard.list_of(to).push(pages, frame);
    }

    /// Moves a page that is used from standby to the main queue; returns whether it was there.
    pub(crate) fn rescue(&self, pages: &Pages, order: &LockOrder<M>, frame: Frame) -> bool {
        let page = pages.of(frame);
        let mut shard = self.shards[frame.index() % SHARDS].lock(order);
        let flags = page.flags();
        if !flags.contains(PageFlags::QUEUED | PageFlags::STANDBY) {
            // The page is in a batch, which sees that it is used.
            return false;
        }
        shard.standby.unlink(pages, frame);
        page.clear(order.machine(), PageFlags::STANDBY | PageFlags::ROUNDS);
        page.set(order.machine(), PageFlags::MAIN | PageFlags::rounds(self.shares.rounds));
        shard.main.push(pages, frame);
        true
    }

    /// Takes a page out of whatever queue it is in.
    pub(crate) fn remove(&self, pages: &Pages, order: &LockOrder<M>, frame: Frame) {
        let page = pages.of(frame);
        if !page.has(PageFlags::QUEUED) {
            return;
        }
        let mut shard = self.shards[frame.index() % SHARDS].lock(order);
        let before = page.clear(order.machine(), PageFlags::QUEUED);
        if before.contains(PageFlags::QUEUED) {
            shard.list_of(Queue::of(before)).unlink(pages, frame);
        }
    }

    /// How a page's use is seen.
    pub(crate) const fn sight(&self) -> Sight {
        self.sight
    }

    /// Takes the page that is due to leave the small or the main queue next, with a reference, and
    /// says where it came from.
    pub(crate) fn pop(&self, pages: &Pages, order: &LockOrder<M>) -> Option<(Frame, Queue)> {
        self.pop_by(order, |shard| shard.pop(order.machine(), pages, self))
    }

    /// Takes the page that has been on standby for longest, with a reference.
    pub(crate) fn pop_standby(&self, pages: &Pages, order: &LockOrder<M>) -> Option<Frame> {
        self.pop_by(order, |shard| shard.standby.pop(order.machine(), pages))
    }

    fn pop_by<R>(&self, order: &LockOrder<M>, pop: impl Fn(&mut Shard) -> Option<R>) -> Option<R> {
        for _ in 0..SHARDS {
            let turn = self.hand.add_by(order.machine(), 1, Ordering::Relaxed) % SHARDS;
            let mut shard = self.shards[turn].lock(order);
            if let Some(found) = pop(&mut shard) {
                return Some(found);
            }
        }
        None
    }

    /// The sizes of the queues.
    pub(crate) const fn shares(&self) -> Shares {
        self.shares
    }

    /// How many pages are in each queue.
    pub(crate) fn lengths(&self, order: &LockOrder<M>) -> Lengths {
        self.shards.iter().fold(Lengths::default(), |sum, shard| {
            let shard = shard.lock(order);
            Lengths {
                small: sum.small + shard.small.len,
                main: sum.main + shard.main.len,
                standby: sum.standby + shard.standby.len,
            }
        })
    }

    /// Walks every queue; used by the invariant check (spec I20).
    pub(crate) fn visit(
        &self,
        pages: &Pages,
        order: &LockOrder<M>,
        mut f: impl FnMut(Frame, Queue),
    ) {
        for shard in &self.shards {
            let shard = shard.lock(order);
            let lists = [
                (&shard.small, Queue::Small),
                (&shard.main, Queue::Main),
                (&shard.standby, Queue::Standby),
            ];
            for (list, which) in lists {
                let mut at = list.oldest;
                while at != NO_FRAME {
                    f(Frame(at), which);
                    at = pages.of(Frame(at)).newer.load(Ordering::Relaxed);
                }
            }
        }
    }
}

impl Shard {
    fn list_of(&mut self, which: Queue) -> &mut List {
        match which {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
            Queue::Standby => &mut self.standby,
        }
    }

    fn pop(
        &mut self,
        who: &impl Sole,
        pages: &Pages,
        queues: &Queues<impl Machine>,
    ) -> Option<(Frame, Queue)> {
        let is_small =
            self.small.len > 0 && queues.shares.small_is_due(self.small.len, self.main.len);
        let which = if is_small { Queue::Small } else { Queue::Main };
        if which == Queue::Main && queues.sight == Sight::Standby {
            self.main.turn(who, pages);
        }
        self.list_of(which).pop(who, pages).map(|frame| (frame, which))
    }
}

impl Queue {
    /// The flags that tell the queues apart.
    const FLAGS: PageFlags = PageFlags::MAIN.union(PageFlags::STANDBY);

    /// Those of a page in this queue.
    pub(crate) const fn flags(self) -> PageFlags {
        match self {
            Self::Small => PageFlags::empty(),
            Self::Main => PageFlags::MAIN,
            Self::Standby => PageFlags::STANDBY,
        }
    }

    /// The queue of a page with these flags.
    pub(crate) const fn of(flags: PageFlags) -> Self {
        if flags.contains(PageFlags::STANDBY) {
            Self::Standby
        } else if flags.contains(PageFlags::MAIN) {
            Self::Main
        } else {
            Self::Small
        }
    }
}

impl List {
    /// Moves pages that stay for another round to the new end, a few at most, since the lock is
    /// held. They are adjacent, so only the ends of their run are relinked.
    fn turn(&mut self, who: &impl Sole, pages: &Pages) {
        let (first, mut next, mut last) = (self.oldest, self.oldest, NO_FRAME);
        for _ in 0..TURNS {
            if next == NO_FRAME || !pages.of(Frame(next)).spend_round(who) {
                break;
            }
            last = next;
            next = pages.of(Frame(next)).newer.load(Ordering::Relaxed);
        }
        if last == NO_FRAME || next == NO_FRAME {
            // None stays, or all do: the order is already right.
            return;
        }
        self.oldest = next;
        pages.of(Frame(next)).older.store(NO_FRAME, Ordering::Relaxed);
        pages.of(Frame(last)).newer.store(NO_FRAME, Ordering::Relaxed);
        pages.of(Frame(first)).older.store(self.newest, Ordering::Relaxed);
        pages.of(Frame(self.newest)).newer.store(first, Ordering::Relaxed);
        self.newest = last;
    }

    /// Takes the oldest page, with a reference.
    fn pop(&mut self, who: &impl Sole, pages: &Pages) -> Option<Frame> {
        let mut at = self.oldest;
        while at != NO_FRAME {
            let frame = Frame(at);
            let page = pages.of(frame);
            at = page.newer.load(Ordering::Relaxed);
            // If the last reference is being dropped, that thread takes the page out.
            let refs = &page.refs;
            let held = refs
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n > 0).then_some(n + 1));
            if held.is_ok() {
                page.clear(who, PageFlags::QUEUED);
                self.unlink(pages, frame);
                return Some(frame);
            }
        }
        None
    }

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
        let newer = page.newer.load(Ordering::Relaxed);
        let older = page.older.load(Ordering::Relaxed);
        page.newer.store(NO_FRAME, Ordering::Relaxed);
        page.older.store(NO_FRAME, Ordering::Relaxed);
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

#[cfg(test)]
mod tests;
