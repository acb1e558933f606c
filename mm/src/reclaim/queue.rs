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
use core::sync::atomic::{AtomicUsize, Ordering};

const SHARDS: usize = 16;

/// How many shards give the pages of a batch, so that locking them is a small part of the work.
const TURNS_OF_A_BATCH: usize = SHARDS / 2;

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

/// A value in a cache line of its own: a processor that changes it takes no neighbour from another one.
#[repr(align(64))]
struct Line<T>(T);

/// Where to begin: each call goes on where the one before it ended.
type Hand = Line<AtomicUsize>;

/// All queues.
pub(crate) struct Queues<M: Machine> {
    shards: [Line<Mutex<M, Shard>>; SHARDS],
    /// The next shard to give pages of its small or main queue.
    hand: Hand,
    /// The next shard to give pages on standby.
    ///
    /// With one hand for both, calls that take turns and visit half of the shards each would meet the same
    /// halves forever: one half would give pages to standby, and the other half would keep all of its own.
    hand_of_standby: Hand,
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
            shards: core::array::from_fn(|_| Line(shard())),
            hand: Line(AtomicUsize::new(0)),
            hand_of_standby: Line(AtomicUsize::new(0)),
        }
    }

    /// Puts a page at the new end of a queue.
    pub(crate) fn push(&self, pages: &Pages, order: &LockOrder<M>, frame: Frame, to: Queue) {
        let page = pages.of(frame);
        let mut shard = self.shard(frame.index()).lock(order);
        // Changed under the lock of the shard alone.
        let before = page.flags();
        if before.contains(PageFlags::QUEUED) {
            return;
        }
        let wrong = before.intersection(Queue::FLAGS).difference(to.flags());
        if !wrong.is_empty() {
            page.clear(order.machine(), wrong);
        }
        page.set(order.machine(), to.flags() | PageFlags::QUEUED);
        shard.list_of(to).push(pages, frame);
    }

    /// The shard of a frame with this number.
    #[inline]
    fn shard(&self, frame: usize) -> &Mutex<M, Shard> {
        &self.shards[frame % SHARDS].0
    }

    /// Moves a page that is used from standby to the main queue; returns whether it was there.
    pub(crate) fn rescue(&self, pages: &Pages, order: &LockOrder<M>, frame: Frame) -> bool {
        let page = pages.of(frame);
        let mut shard = self.shard(frame.index()).lock(order);
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
        let mut shard = self.shard(frame.index()).lock(order);
        let before = page.clear(order.machine(), PageFlags::QUEUED);
        if before.contains(PageFlags::QUEUED) {
            shard.list_of(Queue::of(before)).unlink(pages, frame);
        }
    }

    /// How a page's use is seen.
    pub(crate) const fn sight(&self) -> Sight {
        self.sight
    }

    /// Takes up to `wanted` pages that are due to leave the small or the main queue next, each with a
    /// reference, and says where they came from. Returns how many there were.
    pub(crate) fn pop(
        &self,
        pages: &Pages,
        order: &LockOrder<M>,
        wanted: usize,
        mut take: impl FnMut(Frame, Queue),
    ) -> usize {
        let who = order.machine();
        self.pop_by(&self.hand, order, wanted, |shard, most| {
            let mut popped = 0;
            while popped < most {
                let from = shard.due(who, pages, self);
                // Where use exempts pages for some rounds, the one after the oldest may not be due.
                let row = if self.sight == Sight::Bits { most - popped } else { 1 };
                let found = shard.list_of(from).pop(who, pages, row, |frame| take(frame, from));
                if found == 0 {
                    break;
                }
                popped += found;
            }
            popped
        })
    }

    /// Takes up to `wanted` of the pages that have been on standby for longest, each with a reference.
    /// Returns how many there were.
    pub(crate) fn pop_standby(
        &self,
        pages: &Pages,
        order: &LockOrder<M>,
        wanted: usize,
        mut take: impl FnMut(Frame),
    ) -> usize {
        let who = order.machine();
        let pop = |shard: &mut Shard, most| shard.standby.pop(who, pages, most, &mut take);
        self.pop_by(&self.hand_of_standby, order, wanted, pop)
    }

    /// Pops from one shard after the other, a few pages from each; `pop` takes up to so many pages, and says
    /// how many there were.
    fn pop_by(
        &self,
        hand: &Hand,
        order: &LockOrder<M>,
        wanted: usize,
        mut pop: impl FnMut(&mut Shard, usize) -> usize,
    ) -> usize {
        let together = wanted.div_ceil(TURNS_OF_A_BATCH).max(1);
        let turns = wanted.div_ceil(together);
        let mut turn = hand.0.add_by(order.machine(), turns, Ordering::Relaxed);
        let (mut found, mut in_vain) = (0, 0);
        while found < wanted && in_vain < SHARDS {
            let most = together.min(wanted - found);
            let popped = pop(&mut self.shard(turn).lock(order), most);
            turn = turn.wrapping_add(1);
            in_vain = if popped == 0 { in_vain + 1 } else { 0 };
            found += popped;
        }
        found
    }

    /// The sizes of the queues.
    pub(crate) const fn shares(&self) -> Shares {
        self.shares
    }

    /// How many pages are in each queue.
    pub(crate) fn lengths(&self, order: &LockOrder<M>) -> Lengths {
        self.shards.iter().fold(Lengths::default(), |sum, shard| {
            let shard = shard.0.lock(order);
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
            let shard = shard.0.lock(order);
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

    /// The queue whose oldest page is due.
    fn due(&mut self, who: &impl Sole, pages: &Pages, queues: &Queues<impl Machine>) -> Queue {
        if self.small.len > 0 && queues.shares.small_is_due(self.small.len, self.main.len) {
            return Queue::Small;
        }
        if queues.sight == Sight::Standby {
            self.main.turn(who, pages);
        }
        Queue::Main
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

    /// Takes the oldest pages, up to `most`, each with a reference; returns how many there were.
    #[inline]
    fn pop(
        &mut self,
        who: &impl Sole,
        pages: &Pages,
        most: usize,
        mut take: impl FnMut(Frame),
    ) -> usize {
        let mut at = self.oldest;
        let mut taken = 0;
        while at != NO_FRAME && taken < most {
            let frame = Frame(at);
            let page = pages.of(frame);
            at = page.newer.load(Ordering::Relaxed);
            // If the last reference is being dropped, that thread takes the page out.
            if page.try_hold(who) {
                page.clear(who, PageFlags::QUEUED);
                self.unlink(pages, frame);
                take(frame);
                taken += 1;
            }
        }
        taken
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

    #[inline]
    fn unlink(&mut self, pages: &Pages, frame: Frame) {
        let page = pages.of(frame);
        let newer = page.newer.load(Ordering::Relaxed);
        let older = page.older.load(Ordering::Relaxed);
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
