//! References to pages, their locks, and the queues that they enter.

use crate::machine::{Frame, Machine};
use crate::manager::Manager;
use crate::page::{Owner, Page, PageFlags};
use crate::replacement::Queue;
use crate::word::Word;
use core::sync::atomic::Ordering;

impl<M: Machine> Manager<M> {
    /// Drops a reference; the last one frees the frame.
    pub(crate) fn put(&self, frame: Frame) {
        self.put_page(frame, self.page(frame));
    }

    /// Like [`put`](Self::put), if the frame's page is at hand.
    #[inline]
    pub(crate) fn put_page(&self, frame: Frame, page: &Page) {
        let before = page.refs.sub_by(&*self.machine, 1, Ordering::AcqRel);
        debug_assert!(before > 0, "{frame:?} has no reference to drop");
        if before == 1 {
            self.release(frame, page);
        }
    }

    fn release(&self, frame: Frame, page: &Page) {
        if page.has(PageFlags::QUEUED) {
            self.queues.remove(&self.pages, &self.order, frame);
        }
        debug_assert_eq!(page.maps(), 0, "{frame:?} freed while mapped");
        debug_assert!(!page.has(PageFlags::SWAP_CACHE | PageFlags::PAGE_CACHE | PageFlags::LOCKED));
        page.flags.store(0, Ordering::Release);
        page.set_owner(Owner::None, 0);
        self.machine.free(frame);
        // Counted afterwards: a thread that sees the count finds the frame.
        self.stats.of(&*self.machine).freed.add(&*self.machine, 1);
    }

    /// Locks a page, waiting while another thread has it. The caller has a reference, and is
    /// engaged.
    pub(crate) fn lock_page(&self, frame: Frame) {
        self.order.assert_may_sleep();
        self.order.assert_engaged();
        if !self.page(frame).try_lock(&*self.machine) {
            let _blocked = self.block();
            self.pages.lock(&*self.machine, frame);
        }
    }

    pub(crate) fn unlock_page(&self, frame: Frame) {
        self.page(frame).unlock(&*self.machine);
    }

    /// Unlocks and drops the caller's reference.
    pub(crate) fn unlock_and_put(&self, frame: Frame) {
        self.unlock_page(frame);
        self.put(frame);
    }

    /// Puts a new page into the queue that the policy names.
    pub(crate) fn enqueue(&self, frame: Frame, hash: Option<u64>) {
        let to = match self.replacement.admit(hash) {
            Queue::Small => Queue::Small,
            Queue::Main | Queue::Standby => Queue::Main,
        };
        self.queues.push(&self.pages, &self.order, frame, to);
    }
}
