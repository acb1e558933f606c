//! The swap cache: pages in memory whose content is also in a slot (spec F6–F11).

use crate::cache::Key;
use crate::error::Refusal;
use crate::event::Event;
use crate::machine::{Frame, IoError, Machine, SwapSlot};
use crate::manager::Manager;
use crate::page::PageFlags;
use pagefault_machine::store::PageBytes;

impl<M: Machine> Manager<M> {
    /// The page of a slot, with a reference: from the swap cache or read now. `None`: the slot was
    /// freed, look again.
    pub(crate) fn find_or_read(&self, slot: SwapSlot) -> Result<Option<Frame>, Refusal> {
        match self.cache.find(&self.pages, &self.order, Key::Swap(slot)) {
            Some(frame) => Ok(Some(frame)),
            None => self.read_into_swap_cache(slot),
        }
    }

    /// Reads a slot into a new page of the swap cache (spec F8); the page is returned with a
    /// reference, unlocked. `None`: the slot was freed, look again.
    pub(crate) fn read_into_swap_cache(&self, slot: SwapSlot) -> Result<Option<Frame>, Refusal> {
        let frame = self.allocate()?;
        self.lock_page(frame);
        if self.swap.duplicate(slot).is_err() {
            self.unlock_and_put(frame);
            return Ok(None);
        }
        let key = Key::Swap(slot);
        if let Err(there) = self.cache.insert(&self.counts, &self.pages, &self.order, key, frame) {
            self.free_slots(self.release_slot(slot));
            self.unlock_and_put(frame);
            return Ok(Some(there));
        }
        // An error leaves the page in the cache without its content: a fault that maps it gets
        // SIGBUS.
        match self.read_slot(frame, slot, |bytes| self.swap.read(slot, bytes)) {
            Ok(()) => self.page(frame).set(&*self.machine, PageFlags::UPTODATE),
            Err(_) => self.page(frame).set(&*self.machine, PageFlags::ERROR),
        };
        self.enqueue(frame, Some(key.hash()));
        self.unlock_page(frame);
        Ok(Some(frame))
    }

    /// Reads a slot's content by `read` into a page that is locked, or that only the caller knows.
    pub(crate) fn read_slot(
        &self,
        frame: Frame,
        slot: SwapSlot,
        read: impl FnOnce(&mut PageBytes) -> Result<(), IoError>,
    ) -> Result<(), IoError> {
        self.order.assert_may_sleep();
        self.stats.of(&*self.machine).swap_reads.add(&*self.machine, 1);
        let read = self.machine.fill(frame, read);
        match read {
            Ok(()) => self.observe(|| Event::SwapRead { frame, slot }),
            Err(_) => self.stats.of(&*self.machine).io_errors.add(&*self.machine, 1),
        }
        read
    }
}
