//! Standby: pages that leave next unless they are used, on a machine without accessed bits.
//!
//! Such a machine does not show which pages are used. So the entries of a page that is due lose
//! every right, and its content stays in its frame. The first access faults, finds the page, and
//! restores the rights ([`Mm::readmit`](crate::mm::Mm)). This fault moves no data, and shows that
//! the page is used (Babaoglu and Joy simulated reference bits on the VAX in the same way). A page
//! without a use until it is the oldest on standby is evicted.

use crate::machine::{Cursor, Entry, Fate, Frame, Machine, Protection, Stale};
use crate::manager::Manager;
use crate::reclaim::batch::{Ahead, Batch, Force, State, Subject};
use crate::reclaim::passes::Yield;
use crate::reclaim::queue::Lengths;
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
            while !batch.is_full() && missing > 0 {
                let Some((frame, from)) = self.queues.pop(&self.pages, &self.order) else {
                    missing = 0;
                    break;
                };
                missing -= 1;
                batch.consider(frame, from, force);
            }
            put += batch.len();
            batch.stand_by();
            *near = batch.near.take();
        }
        put
    }
}

impl<M: Machine> Manager<M> {
    /// Evicts what is on standby, and returns how many pages were freed.
    ///
    /// For a machine about to be duplicated, where an unmapped page would exist twice.
    pub fn evict_standby(&self) -> usize {
        let mut left = self.queues.lengths(&self.order).standby;
        self.counted(|| {
            let mut own = Yield::default();
            while left > 0 {
                let mut batch = Batch::new(self);
                while left > 0 && !batch.is_full() {
                    left -= 1;
                    let Some(frame) = self.queues.pop_standby(&self.pages, &self.order) else {
                        left = 0;
                        break;
                    };
                    batch.consider(frame, Queue::Standby, Force::Polite);
                }
                own.worked |= batch.len() > 0;
                own.freed += batch.evict();
            }
            own
        })
        .freed
    }

    /// Keeps a page that is used while its entry allows no access; the caller has locked the entry.
    pub(crate) fn rescue(&self, frame: Frame) {
        if !self.is_bare(frame) && self.queues.rescue(&self.pages, &self.order, frame) {
            self.stats.rescued.add(&*self.machine, 1);
        }
    }
}

impl<M: Machine> Batch<'_, M> {
    /// Puts the pages of the batch on standby.
    fn stand_by(&mut self) {
        self.each(Ahead::Lookup, Self::withdraw);
        self.flush();
        self.finish();
    }

    /// Takes every right from the entries of a page.
    fn withdraw(&mut self, subject: Subject) -> State {
        loop {
            let look = self.look(subject.frame);
            return State::Kept(match () {
                () if look.stays => Queue::Main,
                () if look.left => {
                    self.flush();
                    continue;
                }
                // Some entries are being moved, and were not seen.
                () if look.found != self.manager.page(subject.frame).maps() => Queue::Main,
                () => Queue::Standby,
            });
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
        look.found = manager.walk_near(&mut self.near, frame, |spot| {
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
