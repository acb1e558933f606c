//! What the steps of a batch have in common.

use crate::machine::{Frame, Machine, Part};
use crate::manager::Manager;
use crate::page::Page;
use crate::reclaim::spare::SpareSlots;
use crate::reclaim::stales::Stales;
use crate::replacement::Queue;
use crate::rmap::walk::Near;

/// What the steps have in common.
pub(super) struct Work<'a, M: Machine> {
    pub(super) manager: &'a Manager<M>,
    pub(super) stales: Stales<M>,
    pub(super) near: Option<Near<M>>,
    pub(super) spare: SpareSlots<M>,
    /// How many pages of files with a backing are in hand.
    pub(super) files: u32,
}

impl<'a, M: Machine> Work<'a, M> {
    /// Nothing yet; the pages are probably in the region `near`.
    pub(super) const fn new(manager: &'a Manager<M>, near: Option<Near<M>>) -> Self {
        Self { manager, stales: Stales::new(), near, spare: SpareSlots::new(), files: 0 }
    }

    /// Hints at a page's entry, and at what the machine notes about its frame.
    #[inline]
    pub(super) fn prefetch(&self, frame: Frame) {
        self.manager.machine.prefetch(frame, Part::State);
        if let Some(near) = &self.near {
            near.prefetch(self.manager.page(frame));
        }
    }

    #[inline]
    pub(super) fn unlock_and_put_back(&self, frame: Frame, page: &Page, to: Queue) {
        page.unlock(&*self.manager.machine);
        self.put_back(frame, page, to);
    }

    #[inline]
    pub(super) fn put_back(&self, frame: Frame, page: &Page, to: Queue) {
        let manager = self.manager;
        manager.queues.push(&manager.pages, &manager.order, frame, to);
        manager.put_page(frame, page);
    }

    /// Flushes the translations noted so far.
    #[inline]
    pub(super) fn flush(&mut self) {
        self.stales.flush(self.manager);
    }
}
