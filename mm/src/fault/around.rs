//! Maps cached pages around a read fault (spec J5).

use crate::cache::Mapping;
use crate::entries::PageCursor;
use crate::machine::{Cursor, Entry, Frame, Machine, PAGE_SIZE, Pages, Space, VirtAddr};
use crate::mm::{Kind, Mm};
use crate::page::PageFlags;
use crate::vma::Vma;
use alloc::sync::Arc;

impl<M: Machine> Mm<M> {
    /// Maps the pages around `page` that are in the page cache, complete and not locked, read-only
    /// and not yet used. Does no I/O and never waits.
    pub(super) fn map_around(&self, vma: &Arc<Vma<M>>, mapping: &Mapping<M>, page: VirtAddr) {
        let manager = &self.manager;
        let span = u64::from(manager.config.fault_around) * PAGE_SIZE;
        if span <= PAGE_SIZE || !manager.machine.capabilities().accessed {
            // A machine without accessed bits maps lazily, and gains nothing from entries alone.
            return;
        }
        let block = VirtAddr(page.value() & !(span - 1));
        let end = VirtAddr(block.value().saturating_add(span)).min(vma.end);
        let range = block.max(vma.start)..end;
        let Some(chunk) = Pages::new(&range, M::Space::SPAN).find(|chunk| chunk.contains(&page))
        else {
            return;
        };
        // Asked before taking the cursor, since the backing may be slow. A later truncation takes
        // the pages past the new end out again.
        let Ok(end) = mapping.pages() else { return };
        let awaited = mapping.awaited();
        let Some(mut cursor) = self.existing_entries(chunk.clone()) else { return };
        if !vma.is_alive() {
            return;
        }
        let mut mapped = 0;
        let mut address = chunk.start;
        while address < chunk.end {
            let index = vma.index_of(address);
            // Where a page was dropped a moment ago, processors may still use it. The cursor keeps others
            // from dropping one.
            if cursor.entry(address).is_none()
                && !self.pending.is_any_of(address)
                && index < end
                && Some(index) != awaited
                && let Some(frame) = mapping.cached(index)
            {
                mapped += self.map_if_ready(vma, mapping, &mut cursor, address, frame);
            }
            address = address + PAGE_SIZE;
        }
        self.count_rss(Kind::File, mapped as i64);
        drop(cursor);
        mapping.note_hits(mapped);
        manager.stats.of(&*manager.machine).around.add(&*manager.machine, mapped);
    }

    /// Maps one cached page, to which the caller has a reference, if no thread is busy with it;
    /// returns how many it mapped. The caller counts them as resident.
    fn map_if_ready(
        &self,
        vma: &Arc<Vma<M>>,
        mapping: &Mapping<M>,
        cursor: &mut PageCursor<'_, M>,
        address: VirtAddr,
        frame: Frame,
    ) -> u64 {
        let manager = &self.manager;
        let page = manager.page(frame);
        let index = vma.index_of(address);
        if !page.try_lock(&*manager.machine) {
            manager.put(frame);
            return 0;
        }
        let ready = page.has(PageFlags::UPTODATE) && mapping.holds(frame, index);
        if ready {
            // The caller's reference becomes the entry's.
            manager.count_mapping(page);
            let protection = manager.honest(vma.page_protection(), false);
            cursor.replace(
                address,
                Entry::Present { frame, protection, accessed: false, dirty: false },
            );
            manager.unlock_page(frame);
        } else {
            manager.unlock_and_put(frame);
        }
        u64::from(ready)
    }
}
