//! Writes evicted pages to their stores (spec F7, F9, F20).

use crate::cache::Store;
use crate::event::Event;
use crate::machine::{Frame, IoError, Machine, SwapSlot};
use crate::manager::Manager;
use crate::page::{Owner, Page, PageFlags};
use crate::reclaim::foresight::Outcome;
use crate::reclaim::spare::SpareSlots;
use crate::swap::area::AreaSet;

impl<M: Machine> Manager<M> {
    /// Ensures that a locked page's store has its content; no thread can store to the page.
    ///
    /// If this wrote the page to a new slot, it returns the slot with its first reference. The
    /// caller gives it to the entries of an anonymous page, or notes its owner for a page of shared
    /// memory. Until then no entry names the slot, though a thread that saw an older entry may read it. The
    /// new slot is a spare one, if there is any.
    pub(super) fn launder(
        &self,
        frame: Frame,
        page: &Page,
        spare: &mut SpareSlots<M>,
    ) -> Result<Option<SwapSlot>, ()> {
        match page.owner() {
            // The page was read from its slot but never mapped: the slot still has the content.
            Owner::None if page.slot().is_some() => Ok(None),
            Owner::None => Err(()),
            Owner::Anon(_) => self.launder_anon(frame, page, spare),
            Owner::File(_) if !page.has(PageFlags::DIRTY) => Ok(None),
            Owner::File(id) => {
                let mapping = self.mappings.find(&self.order, id).ok_or(())?;
                match &mapping.store {
                    Store::Backing(backing) => mapping
                        .write_page(mapping.calling(backing), frame)
                        .map(|()| None)
                        .map_err(drop),
                    // Pages of devices are in no queue.
                    Store::Device(_) => Err(()),
                    Store::Shared(_) => {
                        let slot = self.write_to_new_slot(frame, spare)?;
                        self.mark_clean(page);
                        Ok(Some(slot))
                    }
                }
            }
        }
    }

    #[inline]
    fn launder_anon(
        &self,
        frame: Frame,
        page: &Page,
        spare: &mut SpareSlots<M>,
    ) -> Result<Option<SwapSlot>, ()> {
        if page.maps() == 0 && self.entries_of(page) == 0 {
            // It was unmapped after it was chosen (spec F9). Without an entry, nobody can
            // map it again.
            self.mark_clean(page);
            return Ok(None);
        }
        let Some(slot) = page.slot() else {
            let slot = self.write_to_new_slot(frame, spare)?;
            self.mark_clean(page);
            return Ok(Some(slot));
        };
        self.foresight.learn(slot, Outcome::Kept);
        if page.has(PageFlags::DIRTY) {
            self.write_slot(frame, slot, spare).map_err(drop)?;
            self.mark_clean(page);
        }
        if page.has(PageFlags::UPTODATE) { Ok(None) } else { Err(()) }
    }

    /// Writes a page to a slot of the best area that has room for it.
    fn write_to_new_slot(&self, frame: Frame, spare: &mut SpareSlots<M>) -> Result<SwapSlot, ()> {
        let mut full = AreaSet::default();
        loop {
            let slot = spare.take().or_else(|| self.swap.reserve(full)).ok_or(())?;
            match self.write_slot(frame, slot, spare) {
                Ok(()) => {
                    if let Some(area) = spare.area_of(slot, &self.swap) {
                        area.publish(slot.offset);
                    }
                    self.foresight.learn(slot, Outcome::Stored);
                    return Ok(slot);
                }
                Err(error) => {
                    self.release_and_free(slot);
                    if error != IoError::Full {
                        self.stats.of(&*self.machine).io_errors.add(&*self.machine, 1);
                    }
                    full.insert(slot.area);
                    // They are probably of the same area.
                    self.give_back(spare);
                }
            }
        }
    }

    /// Writes a page to a slot. A slot that no area has fails as a device does.
    #[inline]
    fn write_slot(
        &self,
        frame: Frame,
        slot: SwapSlot,
        spare: &mut SpareSlots<M>,
    ) -> Result<(), IoError> {
        self.order.assert_may_sleep();
        let area = spare.area_of(slot, &self.swap).ok_or(IoError::Device)?;
        self.machine.drain(frame, |bytes| area.write(slot.offset, bytes))?;
        self.stats.of(&*self.machine).swap_writes.add(&*self.machine, 1);
        self.observe(|| Event::SwapOut { frame, slot });
        Ok(())
    }

    /// Counts one page less of an object in the page cache.
    pub(super) fn uncount_cached(&self, mapping: u64) {
        if let Some(mapping) = self.mappings.find(&self.order, mapping) {
            mapping.count_cached(-1);
        }
    }
}
