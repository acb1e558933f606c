//! Demand paging of files and shared objects, in place and out of place (spec B9–B12).

use crate::cache::{Found, Mapping, Touch};
use crate::error::Refusal;
use crate::event::{Correction, Weight};
use crate::fault::{Fault, Step, page_range};
use crate::machine::{Access, Cursor, Entry, Frame, Machine};
use crate::mm::{Kind, Mm};
use crate::page::PageFlags;
use crate::rmap::family::Stores;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;

impl<M: Machine> Mm<M> {
    /// A page of the region's file, or of its device, at its place.
    pub(super) fn linear(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
    ) -> Result<Step, Refusal> {
        if let Some(device) = vma.file.as_ref().filter(|_| vma.has(VmaFlags::PFNMAP)) {
            return self.device_page(vma, fault, device);
        }
        let index = vma.index_of(fault.page);
        self.from_file(vma, fault, index, Entry::None)
    }

    /// A page of the region's file that the entry names (spec B12).
    pub(super) fn nonlinear(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        index: u64,
    ) -> Result<Step, Refusal> {
        if !vma.has(VmaFlags::NONLINEAR) {
            // The region changed under the entry, or the entry is corrupt; a live linear region
            // never has such an entry (spec I16).
            return if vma.is_alive() { Err(Refusal::OutOfMemory) } else { Ok(Step::Again) };
        }
        self.from_file(vma, fault, index, Entry::File(index))
    }

    fn from_file(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        index: u64,
        expected: Entry,
    ) -> Result<Step, Refusal> {
        let Some(mapping) = &vma.file else { return Ok(Step::Again) };
        let write = fault.access == Access::Write;
        let private = !vma.has(VmaFlags::SHARED);
        if write && private && vma.written_family().is_none() {
            self.prepare_family(vma, Stores::Begin);
            return Ok(Step::Again);
        }
        let Found { frame, weight } = mapping.page(index)?;
        if weight == Weight::Major {
            fault.weight = Weight::Major;
        }
        // Processors may still read the page that was there before.
        self.await_flushes_of(fault.page);
        let step = if write && private {
            self.copy_early(vma, fault, frame, expected)
        } else {
            self.map_file_page(vma, mapping, fault, frame, expected)
        };
        self.manager.unlock_and_put(frame);
        let step = step?;
        if matches!(step, Step::Done(_)) {
            let missed = fault.weight == Weight::Major;
            fault.weight = fault.weight.max(mapping.read_ahead(Touch {
                index,
                advised: vma.advised(),
                missed,
            }));
            if !write && expected.is_none() {
                self.map_around(vma, mapping, fault.page);
            }
        }
        Ok(match (step, expected) {
            (Step::Done(Correction::File), Entry::File(_)) => Step::Done(Correction::Nonlinear),
            (step, _) => step,
        })
    }

    /// A store to a private page that is absent: copy at once (spec B10 (3)).
    fn copy_early(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &Fault<M>,
        source: Frame,
        expected: Entry,
    ) -> Result<Step, Refusal> {
        let manager = &self.manager;
        let copy = manager.allocate()?;
        manager.machine.copy(source, copy);
        manager.page(copy).set(&*manager.machine, PageFlags::UPTODATE);
        manager.enqueue(copy, None);
        let installed = self.entries(page_range(fault.page)).map(|mut cursor| {
            let still = vma.is_alive() && cursor.entry(fault.page) == expected;
            if still {
                let protection = vma.written_protection();
                let entry = Entry::Present { frame: copy, protection, accessed: true, dirty: true };
                self.add_new_anon(&mut cursor, vma, fault.page, entry);
            }
            still
        });
        match installed {
            Ok(true) => Ok(Step::Done(Correction::CopyOnWrite)),
            Ok(false) => {
                manager.put(copy);
                Ok(Step::Again)
            }
            Err(error) => {
                manager.put(copy);
                Err(error.into())
            }
        }
    }

    /// Maps a locked page of the file itself.
    fn map_file_page(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        mapping: &Mapping<M>,
        fault: &Fault<M>,
        frame: Frame,
        expected: Entry,
    ) -> Result<Step, Refusal> {
        let manager = &self.manager;
        let page = manager.page(frame);
        let write = fault.access == Access::Write;
        if write {
            // The page is locked, so no thread is writing it back.
            mapping.first_store(frame)?;
        }
        let mut cursor = self.entries(page_range(fault.page))?;
        if !vma.is_alive() || cursor.entry(fault.page) != expected {
            return Ok(Step::Again);
        }
        let protection = if write { vma.written_protection() } else { vma.page_protection() };
        let protection = manager.honest(protection, write);
        if write {
            manager.mark_dirty(page);
        }
        page.hold(&*manager.machine);
        manager.count_mapping(page);
        self.count_rss(Kind::File, 1);
        let entry = Entry::Present { frame, protection, accessed: true, dirty: write };
        cursor.replace(fault.page, entry);
        Ok(Step::Done(Correction::File))
    }
}
