//! Memory of devices: frames that are not the manager's pages (spec B13).

use crate::cache::{Mapping, Shown};
use crate::entries::PageCursor;
use crate::event::Correction;
use crate::fault::{Fault, Refusal, Step, page_range};
use crate::machine::{Access, Cursor, Entry, Frame, Machine};
use crate::mm::Mm;
use crate::vma::{Vma, VmaFlags};

impl<M: Machine> Mm<M> {
    /// Maps a page of a device. A store in a private region first gets it read-only, and then a
    /// copy, as of any other page.
    pub(super) fn device_page(
        &self,
        vma: &Vma<M>,
        fault: &Fault<M>,
        device: &Mapping<M>,
    ) -> Result<Step, Refusal> {
        match device.device_frame(vma.index_of(fault.page))? {
            Shown::Again => {
                // The instruction runs again, and faults again if the device is still busy.
                self.manager.machine.pause();
                Ok(Step::Done(Correction::Device))
            }
            Shown::Frame(frame, before) => self.map_device(vma, fault, device, (frame, before)),
        }
    }

    /// Enters a device's frame: no reference, no reverse map, no resident page.
    fn map_device(
        &self,
        vma: &Vma<M>,
        fault: &Fault<M>,
        device: &Mapping<M>,
        (frame, before): (Frame, u64),
    ) -> Result<Step, Refusal> {
        // Processors may still use the page that was there before.
        self.await_flushes_of(fault.page);
        let mut cursor = self.entries(page_range(fault.page))?;
        let is_empty = cursor.entry(fault.page).is_none();
        if !vma.is_alive() || !is_empty || !device.still_shows(before) {
            return Ok(Step::Again);
        }
        let is_store = fault.access == Access::Write;
        let dirty = is_store && vma.has(VmaFlags::SHARED);
        let protection = self.manager.honest(vma.page_protection(), dirty);
        let entry = Entry::Present { frame, protection, accessed: true, dirty };
        cursor.replace(fault.page, entry);
        Ok(if is_store && !dirty { Step::Again } else { Step::Done(Correction::Device) })
    }

    /// Makes a shared region's read-only entry of a device's frame writable: a first store needs no
    /// notice (Linux: `wp_pfn_shared`).
    pub(super) fn reuse_device(
        vma: &Vma<M>,
        fault: &Fault<M>,
        cursor: &mut PageCursor<'_, M>,
        frame: Frame,
    ) {
        let protection = vma.written_protection();
        let entry = Entry::Present { frame, protection, accessed: true, dirty: true };
        cursor.replace(fault.page, entry);
    }
}
