//! Reclaim: making room by evicting pages (spec F14–F24).
//!
//! A pass takes pages from the replacement queues in batches. Each page of a batch is *cleaned*:
//! its entries lose the right to store, and one flush makes that true everywhere. Then it is
//! *written*, if its store has not the same content already, while it can still be read through
//! its entries. Then it is *unmapped*, unless someone wrote or used it meanwhile, and freed after a
//! second flush. This is the order of BSD's laundry rather than that of Linux, which unmaps first:
//! nobody faults on a page while it is being written, and a machine need not keep the content of a
//! page anywhere but where it is mapped.

pub(crate) mod batch;
pub(crate) mod foresight;
pub(crate) mod queue;
pub(crate) mod room;
mod stales;
mod standby;
pub(crate) mod watermarks;
mod write;

use crate::machine::{Frame, Machine};
use crate::manager::Manager;
use crate::page::PageFlags;
use crate::reclaim::batch::{Batch, Force};
use crate::reclaim::queue::{Lengths, Sight, Which};
use crate::reclaim::room::Yield;
use core::sync::atomic::{AtomicBool, Ordering};

impl<M: Machine> Manager<M> {
    /// Takes pages from the queues and evicts up to `pages` of them.
    fn pass(&self, pages: usize, force: Force) -> Yield {
        let lengths = self.queues.lengths(&self.order);
        // Twice around: a page that was used is spared once.
        let mut budget = 2 * lengths.all() as usize + 2;
        let mut own = Yield::default();
        if self.queues.sight() == Sight::Standby {
            own.worked |= self.fill_standby(lengths, pages, force) > 0;
        }
        while own.freed < pages && budget > 0 {
            let mut batch = Batch::new(self);
            let mut scanned = 0;
            while !batch.is_full() && batch.len() < pages - own.freed && budget > 0 {
                // Those that the batch spares are in a queue again afterwards.
                let Some((frame, from)) = self.next_victim(force, &mut own) else { break };
                budget -= 1;
                scanned += 1;
                batch.consider(frame, from, force);
            }
            if scanned == 0 {
                break;
            }
            self.stats.scanned.add(self.machine.context(), scanned);
            own.worked |= batch.len() > 0;
            own.freed += batch.evict();
        }
        own
    }

    /// Takes the page that is to leave next out of its queue.
    fn next_victim(&self, force: Force, own: &mut Yield) -> Option<(Frame, Which)> {
        if self.queues.sight() == Sight::Bits {
            return self.queues.pop(&self.pages, &self.order);
        }
        let standby = || {
            let frame = self.queues.pop_standby(&self.pages, &self.order)?;
            Some((frame, Which::Standby))
        };
        standby().or_else(|| {
            // Those that were there were used.
            let put = self.fill_standby(Lengths::default(), Batch::<M>::SIZE, force);
            own.worked |= put > 0;
            standby()
        })
    }

    /// Whether the pages of files that are left are those that programs run from.
    ///
    /// Without room in swap, memory that programs fill leaves reclaim nothing but their own code.
    /// Each page of it that goes comes back with the next instruction, so that reclaim always frees
    /// something, nobody gets on, and nobody is told that memory is out (Linux: reclaim stops where
    /// what is reclaimable is below the minimum watermark).
    pub(crate) fn keeps_files(&self) -> bool {
        self.file_pages.load(Ordering::Relaxed) <= self.watermarks.files && self.swap.free() == 0
    }

    /// Keeps frames free ahead of need until `stop` is set (Linux: `kswapd`, spec F24). A thread of
    /// the embedder runs this; set `stop` and call [`Manager::wake_background`] to end it.
    pub fn background(&self, stop: &AtomicBool) {
        self.background_threads.fetch_add(1, Ordering::SeqCst);
        let mut seen = self.background.load(Ordering::Acquire);
        while !stop.load(Ordering::Acquire) {
            while self.machine.free_frames() < self.watermarks.high && !stop.load(Ordering::Acquire)
            {
                self.stats.background_passes.add(self.machine.context(), 1);
                if self.reclaim(Batch::<M>::SIZE) == 0 {
                    break;
                }
            }
            self.machine.wait(&self.background, seen);
            seen = self.background.load(Ordering::Acquire);
        }
        self.background_threads.fetch_sub(1, Ordering::SeqCst);
    }

    /// Has frames kept free by the background thread, if there is one and it is time.
    pub(crate) fn keep_ahead(&self) {
        if self.background_threads.load(Ordering::SeqCst) > 0
            && self.machine.free_frames() < self.watermarks.low
        {
            self.wake_background();
        }
    }

    /// Asks the background thread to look for work.
    pub fn wake_background(&self) {
        self.background.fetch_add(1, Ordering::AcqRel);
        self.machine.wake(&self.background);
    }

    /// Evicts one page now if it can be (`MADV_PAGEOUT`). The caller has a reference.
    pub(crate) fn evict(&self, frame: Frame) {
        self.take_from_queue(frame, |manager| {
            let mut batch = Batch::new(manager);
            // The caller's reference is dropped and taken again around the attempt.
            batch.consider(frame, Which::Small, Force::Regardless);
            batch.evict();
        });
    }

    /// Lets a page leave before others (`MADV_COLD`). The caller has a reference.
    pub(crate) fn make_cold(&self, frame: Frame) {
        let page = self.page(frame);
        page.clear(PageFlags::REFERENCED);
        if page.has(PageFlags::QUEUED) {
            self.queues.remove(&self.pages, &self.order, frame);
            self.queues.push(&self.pages, &self.order, frame, Which::Small);
        }
    }

    fn take_from_queue(&self, frame: Frame, f: impl FnOnce(&Self)) {
        let page = self.page(frame);
        if !page.has(PageFlags::QUEUED) {
            return;
        }
        self.queues.remove(&self.pages, &self.order, frame);
        page.hold();
        f(self);
    }
}
