//! The kernel's own accesses to a program's memory (spec H2–H5), and a device's (spec B20).

use crate::error::UserError;
use crate::fault::{Refusal, page_range};
use crate::machine::{Access, Cursor, Entry, Frame, Machine, PAGE_SIZE, VirtAddr};
use crate::mm::Mm;
use crate::page::PageFlags;
use crate::vma::VmaFlags;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

impl<M: Machine> Mm<M> {
    /// Whether a range lies in the program's part of the addresses (`access_ok`); looks at no page.
    pub fn access_ok(&self, address: VirtAddr, bytes: u64) -> bool {
        address.checked_add(bytes).is_some_and(|end| end <= self.layout.range.end)
    }

    /// Copies bytes into the program's memory, faulting pages in as the program's own stores would;
    /// returns how many could **not** be copied.
    pub fn copy_to_user(self: &Arc<Self>, address: VirtAddr, bytes: &[u8]) -> usize {
        if !self.access_ok(address, bytes.len() as u64) {
            return bytes.len();
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = address + done as u64;
            let n = (bytes.len() - done).min(PAGE_SIZE as usize - at.page_offset());
            let _engaged = self.manager.engage();
            let Ok(frame) = self.grab(at, Access::Write) else { break };
            self.manager.machine.write(frame, at.page_offset(), &bytes[done..done + n]);
            self.manager.page(frame).set(PageFlags::DIRTY);
            self.manager.unlock_and_put(frame);
            done += n;
        }
        bytes.len() - done
    }

    /// Copies bytes out of the program's memory; returns how many could **not** be copied. The rest
    /// of `bytes` is filled with zeros then.
    pub fn copy_from_user(self: &Arc<Self>, address: VirtAddr, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        if self.access_ok(address, bytes.len() as u64) {
            while done < bytes.len() {
                let at = address + done as u64;
                let n = (bytes.len() - done).min(PAGE_SIZE as usize - at.page_offset());
                let _engaged = self.manager.engage();
                let Ok(frame) = self.grab(at, Access::Read) else { break };
                let target = &mut bytes[done..done + n];
                self.manager.machine.read(frame, at.page_offset(), target);
                if !self.manager.is_zero_frame(frame) {
                    self.manager.unlock_and_put(frame);
                }
                done += n;
            }
        }
        bytes[done..].fill(0);
        bytes.len() - done
    }

    /// Fills a range of the program's memory with zeros (`clear_user`); returns how many bytes
    /// could not be.
    pub fn clear_user(self: &Arc<Self>, address: VirtAddr, bytes: usize) -> usize {
        let zeros = [0; PAGE_SIZE as usize];
        let mut done = 0;
        while done < bytes {
            let n = (bytes - done).min(zeros.len());
            let left = self.copy_to_user(address + done as u64, &zeros[..n]);
            done += n - left;
            if left > 0 {
                break;
            }
        }
        bytes - done
    }

    /// Reads a string that ends with a zero byte, without it (`strncpy_from_user`).
    pub fn read_string(
        self: &Arc<Self>,
        address: VirtAddr,
        buffer: &mut [u8],
    ) -> Result<usize, UserError> {
        for (i, byte) in buffer.iter_mut().enumerate() {
            let at = address.checked_add(i as u64).ok_or(UserError::BadAddress)?;
            if self.copy_from_user(at, core::slice::from_mut(byte)) != 0 {
                return Err(UserError::BadAddress);
            }
            if *byte == 0 {
                return Ok(i);
            }
        }
        Ok(buffer.len())
    }

    /// Keeps the pages of a range in memory where they are until the pin is dropped, for a device
    /// that uses them behind the processor's back (`pin_user_pages`, spec B20).
    ///
    /// As long as a page stays mapped, the program and the device see each other's stores: a
    /// private page is the region's own from here on, and a fork copies it at once (spec E3, J6).
    /// A pin for [`Access::Write`] counts as a store when it is dropped.
    pub fn pin(
        self: &Arc<Self>,
        range: Range<VirtAddr>,
        access: Access,
    ) -> Result<Pin<M>, UserError> {
        let mut pin = Pin { mm: self.clone(), access, frames: Vec::new() };
        let mut page = range.start.page();
        while page < range.end {
            pin.frames.push(self.pin_page(page, access)?);
            page = page + PAGE_SIZE;
        }
        Ok(pin)
    }

    fn pin_page(self: &Arc<Self>, page: VirtAddr, access: Access) -> Result<Frame, UserError> {
        let manager = &self.manager;
        let _engaged = manager.engage();
        loop {
            let frame = self.grab(page, access)?;
            let attempt = self.pin_grabbed(page, access, frame);
            if !manager.is_zero_frame(frame) {
                manager.unlock_page(frame);
                if attempt == Attempt::Pinned {
                    return Ok(frame);
                }
                manager.put(frame);
            }
            match attempt {
                // Whatever else may be the matter will be met again.
                Attempt::Shared if self.unshare(page) == Err(Refusal::OutOfMemory) => {
                    return Err(UserError::OutOfMemory);
                }
                Attempt::TooOften => return Err(UserError::OutOfMemory),
                Attempt::Pinned | Attempt::Changed | Attempt::Shared => {}
            }
        }
    }

    /// Pins a page that was grabbed, if the region has it alone. From here on no fork shares it.
    fn pin_grabbed(&self, page: VirtAddr, access: Access, frame: Frame) -> Attempt {
        let manager = &self.manager;
        let Some(vma) = self.containing(page) else { return Attempt::Changed };
        let Some(cursor) = self.existing_entries(page_range(page)) else {
            return Attempt::Changed;
        };
        let entry = cursor.entry(page);
        let allowed = access != Access::Write || entry.is_writable();
        if !vma.is_alive() || entry.frame() != Some(frame) || !allowed {
            return Attempt::Changed;
        }
        let page = manager.page(frame);
        if !vma.has(VmaFlags::SHARED) {
            let own = !manager.is_zero_frame(frame) && page.is_anon();
            if !own || manager.entries_of(page) != 1 {
                return Attempt::Shared;
            }
        }
        if page.pin() { Attempt::Pinned } else { Attempt::TooOften }
    }

    /// Faults a page in and takes hold of it: a reference and, unless it is the shared frame of
    /// zeros, the page lock, under which reclaim leaves the entry as it is. The caller is engaged.
    fn grab(self: &Arc<Self>, address: VirtAddr, access: Access) -> Result<Frame, UserError> {
        let page = address.page();
        loop {
            self.fault_in_engaged(address, access)?;
            let Some(frame) = self.hold_frame_for(page, access) else { continue };
            if self.manager.is_zero_frame(frame) {
                return Ok(frame);
            }
            self.manager.lock_page(frame);
            if self.frame_for(page, access) == Some(frame) {
                return Ok(frame);
            }
            self.manager.unlock_and_put(frame);
        }
    }

    fn frame_for(&self, page: VirtAddr, access: Access) -> Option<Frame> {
        let cursor = self.existing_entries(page..page + PAGE_SIZE)?;
        frame_allowing(cursor.entry(page), access)
    }

    /// Like [`frame_for`](Self::frame_for), with a reference unless it is the shared frame of zeros:
    /// taken while the entry is locked, since afterwards the page may be freed at any moment.
    fn hold_frame_for(&self, page: VirtAddr, access: Access) -> Option<Frame> {
        let cursor = self.existing_entries(page..page + PAGE_SIZE)?;
        let frame = frame_allowing(cursor.entry(page), access)?;
        if !self.manager.is_zero_frame(frame) {
            self.manager.page(frame).hold();
        }
        Some(frame)
    }
}

/// The frame that an entry names, if the entry allows the access.
fn frame_allowing(entry: Entry, access: Access) -> Option<Frame> {
    let allowed = access != Access::Write || entry.is_writable();
    entry.frame().filter(|_| allowed)
}

/// What became of an attempt to pin a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// The page is pinned.
    Pinned,
    /// The entry is not what it was.
    Changed,
    /// The region shows a page that others may see.
    Shared,
    /// The page is pinned so often that no more can be counted.
    TooOften,
}

impl From<Refusal> for UserError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OutOfMemory => Self::OutOfMemory,
            Refusal::NoRegion | Refusal::Forbidden | Refusal::Bus | Refusal::Guard => {
                Self::BadAddress
            }
        }
    }
}

/// Pages held in memory; dropping it lets them go.
pub struct Pin<M: Machine> {
    mm: Arc<Mm<M>>,
    access: Access,
    frames: Vec<Frame>,
}

impl<M: Machine> Pin<M> {
    /// The frames of the pinned pages, in the order of their addresses.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }
}

impl<M: Machine> Drop for Pin<M> {
    fn drop(&mut self) {
        for frame in &self.frames {
            let page = self.mm.manager.page(*frame);
            if self.access == Access::Write {
                // The device may have stored after the page was written back.
                page.set(PageFlags::DIRTY);
            }
            page.unpin();
            self.mm.manager.put(*frame);
        }
    }
}
