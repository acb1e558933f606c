//! Passes: take pages from the queues and evict them.

use crate::machine::{Frame, Machine};
use crate::manager::Manager;
use crate::page::PageFlags;
use crate::reclaim::batch::Batch;
use crate::reclaim::passes::Yield;
use crate::reclaim::queue::{Lengths, Sight};
use crate::reclaim::victim::Force;
use crate::replacement::Queue;
use core::ops::RangeInclusive;

impl<M: Machine> Manager<M> {
    /// A pass of a thread that needs a frame.
    ///
    /// On a machine with standby the batch is put there with one flush. Its pages leave from there without a
    /// flush, so nothing is gained if they all do so while this thread waits. Where most pages on standby are
    /// used again, because the program nearly fits, the share is not restored at each fault: that costs more
    /// than it tells.
    pub(super) fn direct_pass(&self, force: Force) -> Yield {
        let batch = self.direct_batch();
        match self.queues.sight() {
            Sight::Standby => self.pass(batch.div_ceil(2), batch..=2 * batch, force),
            Sight::Bits => self.pass(batch, batch..=batch, force),
        }
    }

    /// How many pages a thread that needs a frame unmaps with one flush, whatever the machine says.
    pub(super) fn direct_batch(&self) -> usize {
        self.machine.direct_batch().clamp(1, Batch::<M>::SIZE)
    }

    /// Takes pages from the queues and evicts up to `pages` of them. If pages have to go on standby, it puts
    /// as many there as `together` allows.
    pub(super) fn pass(
        &self,
        pages: usize,
        together: RangeInclusive<usize>,
        force: Force,
    ) -> Yield {
        let lengths = self.queues.lengths(&self.order);
        // Two rounds: a used page is spared once.
        let mut budget = 2 * lengths.all() as usize + 2;
        let mut own = Yield::default();
        let mut near = None;
        if self.queues.sight() == Sight::Standby {
            own.worked |= self.fill_standby(lengths, pages, together, force, &mut near) > 0;
        }
        while own.freed < pages && budget > 0 {
            let mut batch = Batch::near(self, near.take());
            let wanted = (pages - own.freed).min(budget).min(Batch::<M>::SIZE);
            // Pages that the batch spares go back into a queue.
            let found = self.next_victims(wanted, force, &mut own, &mut batch);
            if found == 0 {
                break;
            }
            budget -= found;
            self.stats.of(&*self.machine).scanned.add(&*self.machine, found as u64);
            own.add(batch.evict(force));
            near = batch.take_near();
        }
        if own.freed > 0 {
            self.passes.allow_refills();
        }
        own
    }

    /// Takes the next pages to leave out of their queue, up to `wanted`; returns how many there were.
    fn next_victims(
        &self,
        wanted: usize,
        force: Force,
        own: &mut Yield,
        batch: &mut Batch<'_, M>,
    ) -> usize {
        let (pages, order) = (&self.pages, &self.order);
        if self.queues.sight() == Sight::Bits {
            return self.queues.pop(pages, order, wanted, |frame, from| batch.add(frame, from));
        }
        let mut standby = || {
            let add = |frame| batch.add(frame, Queue::Standby);
            self.queues.pop_standby(pages, order, wanted, add)
        };
        match standby() {
            0 => {
                // The pages on standby were used.
                let some = self.direct_batch();
                let lengths = Lengths::default();
                let put = self.fill_standby(lengths, some, some..=some, force, &mut None);
                own.worked |= put > 0;
                standby()
            }
            found => found,
        }
    }

    /// Evicts one page now, if possible (`MADV_PAGEOUT`). The caller has a reference.
    pub(crate) fn evict(&self, frame: Frame) {
        self.take_from_queue(frame, |manager| {
            let mut batch = Batch::new(manager);
            // The caller's reference is dropped and taken again around the attempt.
            batch.add(frame, Queue::Small);
            batch.evict(Force::Regardless);
        });
    }

    /// Lets a page leave before others (`MADV_COLD`). The caller has a reference.
    pub(crate) fn make_cold(&self, frame: Frame) {
        let page = self.page(frame);
        page.clear(&*self.machine, PageFlags::REFERENCED);
        if page.has(PageFlags::QUEUED) {
            self.queues.remove(&self.pages, &self.order, frame);
            self.queues.push(&self.pages, &self.order, frame, Queue::Small);
        }
    }

    fn take_from_queue(&self, frame: Frame, f: impl FnOnce(&Self)) {
        let page = self.page(frame);
        if !page.has(PageFlags::QUEUED) {
            return;
        }
        self.queues.remove(&self.pages, &self.order, frame);
        page.hold(&*self.machine);
        f(self);
    }
}
