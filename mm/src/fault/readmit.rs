//! An access to a page on standby (see [`standby`](crate::reclaim::standby)).

use crate::entries::PageCursor;
use crate::event::Correction;
use crate::fault::{Fault, Step};
use crate::machine::{Cursor, Entry, Frame, Machine};
use crate::mm::Mm;
use crate::page::Page;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;

impl<M: Machine> Mm<M> {
    /// Gives an entry without rights the rights of its region, and marks it used, which keeps the
    /// page. A first store is handled elsewhere.
    pub(super) fn readmit(
        &self,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        mut cursor: PageCursor<'_, M>,
        frame: Frame,
    ) -> Step {
        let Entry::Present { dirty, .. } = cursor.entry(fault.page) else { return Step::Again };
        if !vma.is_alive() {
            return Step::Again;
        }
        // A dirty page's copy in swap is out of date, so its owner may store to it at once.
        let stores = dirty && vma.has(VmaFlags::WRITE) && !vma.has(VmaFlags::SHARED);
        if stores
            && self.manager.normal_page(frame).is_some_and(Page::is_anon)
            && vma.written_family().is_some()
            && self.reuse_if_sole(vma, fault, &mut cursor, frame)
        {
            return Step::Done(Correction::Standby);
        }
        let protection = self.manager.honest(vma.page_protection(), dirty);
        let entry = Entry::Present { frame, protection, accessed: true, dirty };
        // Wider rights need no flush: a processor with the old translation faults again.
        cursor.replace(fault.page, entry);
        Step::Done(Correction::Standby)
    }
}
