//! Standby: pages that leave next unless they are used, on a machine without accessed bits.
//!
//! Such a machine does not show which pages are used. So the entries of a page that is due lose
//! every right, and its content stays in its frame. The first access faults, finds the page, and
//! restores the rights ([`Mm::readmit`](crate::mm::Mm)). This fault moves no data, and shows that
//! the page is used (Babaoglu and Joy simulated reference bits on the VAX in the same way). A page
//! without a use until it is the oldest on standby is evicted.

use crate::machine::{Cursor, Entry, Fate, Frame, Machine, Protection, Stale};
use crate::manager::Manager;
use crate::reclaim::batch::Batch;
use crate::reclaim::passes::Yield;
use crate::reclaim::queue::Lengths;
use crate::reclaim::victim::{Force, State, Victim};
use crate::reclaim::work::Work;
use crate::replacement::Queue;
use crate::rmap::walk::{Near, Spot};
use crate::vma::VmaFlags;
use core::ops::RangeInclusive;

/// What the entries of a page about to go on standby showed.
#[derive(Default)]
struct Look {
    found: u32,
    /// Too many entries for the room in the batch.
    left: bool,
    /// The page is locked in memory, or pinned.
    stays: bool,
}

impl<M: Machine> Manager<M> {
    /// Keeps `wanted` pages on standby beyond its share, as far as one call puts as many pages there as
    /// `together` allows; returns how many it put.
    pub(super) fn fill_standby(
        &self,
        lengths: Lengths,
        wanted: usize,
        together: RangeInclusive<usize>,
        force: Force,
        near: &mut Option<Near<M>>,
    ) -> usize {
        let share = u64::from(lengths.all()) * u64::from(self.queues.shares().standby) / 100;
        let (share, there) = (share as usize, lengths.standby as usize);
        if there >= share + wanted {
            return 0;
        }
        let missing = share + wanted.max(*together.start()) - there;
        let mut missing = missing.min(*together.end());
        let mut put = 0;
        while missing > 0 {
            let mut batch = Batch::near(self, near.take());
            let wanted = missing.min(Batch::<M>::SIZE);
            let found = self.queues.pop(&self.pages, &self.order, wanted, |frame, from| {
                batch.add(frame, from);
            });
            missing = if found < wanted { 0 } else { missing - found };
            put += batch.stand_by(force);
            *near = batch.take_near();
        }
        put
    }
}

impl<M: Machine> Manager<M> {
    /// Evicts what is on standby, and returns how many pages were freed.
    ///
    /// For a machine about to be duplicated, where an unmapped page would exist twice.
    pub fn evict_standby(&self) -> usize {
        let mut left = self.queues.lengths(&self.order).standby as usize;
        self.counted(|| {
            let mut own = Yield::default();
            while left > 0 {
                let mut batch = Batch::new(self);
                let wanted = left.min(Batch::<M>::SIZE);
                let found = self.queues.pop_standby(&self.pages, &self.order, wanted, |frame| {
                    batch.add(frame, Queue::Standby);
                });
                left = if found < wanted { 0 } else { left - found };
                own.add(batch.evict(Force::Polite));
            }
            own
        })
        .freed
    }

    /// Puts pages on standby in place of those that were used there.
    ///
    /// Standby keeps its share so, and each page has the same time to show its use. Some pages go there
    /// together, with one flush, but no more than a fault should wait for. While nothing is evicted, nobody has to
    /// know who is used: the pages of a program that fits would fault forever.
    pub(crate) fn replace_rescued(&self) {
        let some = 2 * self.direct_batch();
        let rescued = self.stats.of(&*self.machine).rescued.read();
        if !rescued.is_multiple_of(some as u64) || !self.passes.take_refill() {
            return;
        }
        self.counted(|| {
            let lengths = self.queues.lengths(&self.order);
            let put = self.fill_standby(lengths, 0, 0..=some, Force::Polite, &mut None);
            Yield { freed: 0, worked: put > 0 }
        });
    }

    /// Keeps a page that is used while its entry allows no access; the caller has locked the entry.
    pub(crate) fn rescue(&self, frame: Frame) {
        if !self.is_bare(frame) && self.queues.rescue(&self.pages, &self.order, frame) {
            self.stats.of(&*self.machine).rescued.add(&*self.machine, 1);
        }
    }
}

impl<M: Machine> Batch<'_, M> {
    /// Puts the pages of the batch on standby; returns how many it could lock.
    fn stand_by(&mut self, force: Force) -> usize {
        let in_hand = self.judge(force, Work::withdraw);
        self.work.flush();
        self.finish();
        in_hand
    }
}

impl<M: Machine> Work<'_, M> {
    /// Takes every right from the entries of a page.
    fn withdraw(&mut self, victim: &mut Victim<'_, M>) {
        loop {
            let look = self.look(victim.frame);
            let to = match () {
                () if look.stays => Queue::Main,
                () if look.left => {
                    self.flush();
                    continue;
                }
                // Some entries are being moved, and were not seen.
                () if look.found != victim.page.maps() => Queue::Main,
                () => Queue::Standby,
            };
            victim.state = State::Kept(to);
            return;
        }
    }

    fn look(&mut self, frame: Frame) -> Look {
        let manager = self.manager;
        let page = manager.page(frame);
        // A page that could be kept unmapped only in further memory goes on standby with its
        // rights, and leaves unseen.
        let is_kept = manager.machine.keeps_unmapped(frame);
        let mut look = Look::default();
        let stales = &mut self.stales;
        look.found = manager.walk_near(&mut self.near, page, frame, |spot| {
            if page.is_pinned() || spot.vma.has(VmaFlags::LOCKED) {
                look.stays = true;
            } else if !is_kept {
                spot.cursor.clear_accessed(spot.address);
            } else if let Some(place) = stales.room_for(spot.mm) {
                if let Some(stale) = take_rights(spot) {
                    stales.note(place, spot.mm, stale);
                }
            } else {
                look.left = true;
            }
        });
        look
    }
}

/// Makes an entry allow no access, and marks it unused; `None` if it allowed none.
fn take_rights<M: Machine>(spot: &mut Spot<'_, M>) -> Option<Stale> {
    let old = spot.cursor.replace(spot.address, Entry::None);
    let Entry::Present { frame, protection, dirty, .. } = old else { return None };
    let nothing = Protection::empty();
    let entry = Entry::Present { frame, protection: nothing, accessed: false, dirty };
    spot.cursor.replace(spot.address, entry);
    let allowed = !protection.is_empty();
    allowed.then_some(Stale { address: spot.address, frame, fate: Fate::Narrowed })
}
