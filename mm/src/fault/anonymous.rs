//! Demand-zero memory (spec B7, B8).

use crate::entries::PageCursor;
use crate::error::Refusal;
use crate::event::{Ahead, Correction};
use crate::fault::{Fault, Purpose, Step, page_range};
use crate::machine::{Access, Cursor, Entry, Frame, Machine, VirtAddr};
use crate::manager::ZeroPolicy;
use crate::mm::{Kind, Mm};
use crate::page::{Owner, PageFlags};
use crate::rmap::family::Stores;
use crate::vma::Vma;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

impl<M: Machine> Mm<M> {
    /// The shared frame of zeros, if it can answer the access.
    #[inline]
    pub(super) fn zero_frame_for(&self, fault: &Fault<M>) -> Option<Frame> {
        if self.awaits_store(fault) { self.manager.machine.zero_frame() } else { None }
    }

    /// Whether the access only reads a page of zeros, which then must not count as stored to.
    fn awaits_store(&self, fault: &Fault<M>) -> bool {
        fault.access != Access::Write && self.manager.config.zero == ZeroPolicy::Shared
    }

    /// Gives the region a page of zeros of its own.
    pub(super) fn fresh_page(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
    ) -> Result<Step, Refusal> {
        let manager = &self.manager;
        let unwritten = self.awaits_store(fault);
        let ready = if unwritten { vma.anon.is_some() } else { vma.written_family().is_some() };
        if !ready {
            self.prepare_family(vma, if unwritten { Stores::Awaited } else { Stores::Begin });
            return Ok(Step::Again);
        }
        let frame = manager.allocate()?;
        // Processors may still read a page that was dropped. A drop after this wait changes the
        // count.
        let dropped = self.dropped.load(Ordering::SeqCst);
        self.await_flushes_of(fault.page);
        manager.machine.zero(frame);
        manager.page(frame).set(&*manager.machine, PageFlags::UPTODATE);
        if fault.purpose == Purpose::Guess {
            manager.mark_guessed(frame, Ahead::Fresh);
        }
        // Queued before it is mapped: afterwards another thread may free it at any moment.
        manager.enqueue(frame, None);
        if unwritten {
            // Reclaim may drop the page without writing it, as if it had never existed.
            manager.page(frame).set(&*manager.machine, PageFlags::LAZY_FREE);
        }
        if !self.install_new_anon(vma, fault, frame, dropped)? {
            manager.put(frame);
            return Ok(Step::Again);
        }
        Ok(Step::Done(if unwritten { Correction::Zero } else { Correction::Anonymous }))
    }

    /// Maps the frame of zeros that all share. The entry is locked, if there is a table for it.
    #[inline]
    pub(super) fn map_zero_frame<'a>(
        &'a self,
        vma: &Arc<Vma<M>>,
        fault: &Fault<M>,
        cursor: Option<PageCursor<'a, M>>,
        zero: Frame,
    ) -> Result<Step, Refusal> {
        let mut cursor = match cursor {
            Some(cursor) => cursor,
            None => self.entries(page_range(fault.page))?,
        };
        if !vma.is_alive() || !cursor.entry(fault.page).is_none() {
            return Ok(Step::Again);
        }
        let protection = vma.page_protection().read_only();
        let entry = Entry::Present { frame: zero, protection, accessed: true, dirty: false };
        cursor.replace(fault.page, entry);
        Ok(Step::Done(Correction::Zero))
    }

    /// Enters a new anonymous page where there is none, if no page was dropped since `dropped` was read;
    /// the caller's reference becomes the entry's.
    fn install_new_anon(
        &self,
        vma: &Arc<Vma<M>>,
        fault: &Fault<M>,
        frame: Frame,
        dropped: u64,
    ) -> Result<bool, Refusal> {
        let mut cursor = match self.entries(page_range(fault.page)) {
            Ok(cursor) => cursor,
            Err(error) => {
                self.manager.put(frame);
                return Err(error.into());
            }
        };
        let is_settled = self.dropped.load(Ordering::SeqCst) == dropped;
        if !vma.is_alive() || !cursor.entry(fault.page).is_none() || !is_settled {
            return Ok(false);
        }
        let accessed = fault.purpose == Purpose::Access;
        let entry = if self.manager.page(frame).has(PageFlags::LAZY_FREE) {
            // The first store must fault, as with the shared frame of zeros.
            let protection = vma.page_protection().read_only();
            Entry::Present { frame, protection, accessed, dirty: false }
        } else {
            // Writable even after a read: no other entry names the page (spec B7).
            let protection = vma.written_protection();
            Entry::Present { frame, protection, accessed, dirty: true }
        };
        self.add_new_anon(&mut cursor, vma, fault.page, entry);
        Ok(true)
    }

    /// Enters a page that only the caller knows as the region's own anonymous page.
    #[inline(always)]
    pub(crate) fn add_new_anon(
        &self,
        cursor: &mut PageCursor<'_, M>,
        vma: &Vma<M>,
        address: VirtAddr,
        entry: Entry,
    ) {
        let (Some(frame), Some(family)) = (entry.frame(), &vma.anon) else { return };
        let page = self.manager.page(frame);
        page.set_owner(Owner::Anon(family.id), vma.index_of(address));
        self.manager.count_mapping(page);
        self.count_rss(Kind::Anon, 1);
        cursor.replace(address, entry);
    }
}
