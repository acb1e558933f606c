//! The kernel's own accesses to a program's memory (spec H2–H5).

use crate::error::Refusal;
use crate::error::UserError;
use crate::fault::page_range;
use crate::machine::{Access, Cursor, Frame, Machine, PAGE_SIZE, VirtAddr};
use crate::mm::Mm;
use alloc::sync::Arc;

impl<M: Machine> Mm<M> {
    /// Whether a range lies in the program's part of the addresses (`access_ok`); checks no page.
    pub fn access_ok(&self, address: VirtAddr, bytes: u64) -> bool {
        address.checked_add(bytes).is_some_and(|end| end <= self.layout.range.end)
    }

    /// Copies bytes into the program's memory, faulting pages in as the program's own stores would;
    /// returns how many could **not** be copied.
    pub fn copy_to_user(self: &Arc<Self>, address: VirtAddr, bytes: &[u8]) -> usize {
        bytes.len() - self.write_prefix(address, bytes).0
    }

    /// Like [`copy_to_user`](Self::copy_to_user), but returns how many bytes were copied, and why it
    /// stopped early.
    pub fn write_prefix(
        self: &Arc<Self>,
        address: VirtAddr,
        bytes: &[u8],
    ) -> (usize, Option<UserError>) {
        if !self.access_ok(address, bytes.len() as u64) {
            return (0, Some(UserError::BadAddress));
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = address + done as u64;
            let n = (bytes.len() - done).min(PAGE_SIZE as usize - at.page_offset());
            let _engaged = self.manager.engage();
            let frame = match self.grab(at, Access::Write) {
                Ok(frame) => frame,
                Err(error) => return (done, Some(error)),
            };
            let write =
                || self.manager.machine.write(frame, at.page_offset(), &bytes[done..done + n]);
            if self.manager.is_device(frame) {
                if !self.with_device(at, Access::Write, frame, write) {
                    continue;
                }
            } else {
                write();
                self.manager.mark_dirty(self.manager.page(frame));
                self.manager.unlock_and_put(frame);
            }
            done += n;
        }
        (done, None)
    }

    /// Copies bytes out of the program's memory; returns how many could **not** be copied. Those
    /// bytes become zeros.
    pub fn copy_from_user(self: &Arc<Self>, address: VirtAddr, bytes: &mut [u8]) -> usize {
        let (done, _) = self.read_prefix(address, bytes);
        bytes[done..].fill(0);
        bytes.len() - done
    }

    /// Like [`copy_from_user`](Self::copy_from_user), but returns how many bytes were copied, and why
    /// it stopped early; the other bytes stay as they are.
    pub fn read_prefix(
        self: &Arc<Self>,
        address: VirtAddr,
        bytes: &mut [u8],
    ) -> (usize, Option<UserError>) {
        if !self.access_ok(address, bytes.len() as u64) {
            return (0, Some(UserError::BadAddress));
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = address + done as u64;
            let n = (bytes.len() - done).min(PAGE_SIZE as usize - at.page_offset());
            let _engaged = self.manager.engage();
            let frame = match self.grab(at, Access::Read) {
                Ok(frame) => frame,
                Err(error) => return (done, Some(error)),
            };
            let target = &mut bytes[done..done + n];
            let mut read = || self.manager.machine.read(frame, at.page_offset(), target);
            if self.manager.is_device(frame) {
                if !self.with_device(at, Access::Read, frame, read) {
                    continue;
                }
            } else {
                read();
                if !self.manager.is_zero_frame(frame) {
                    self.manager.unlock_and_put(frame);
                }
            }
            done += n;
        }
        (done, None)
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

    /// Reads a string that ends with a zero byte, and returns its length without it
    /// (`strncpy_from_user`): the length of `buffer` if the string does not end within it.
    ///
    /// Looks at no page behind the one in which the string ends. The bytes of `buffer` behind the
    /// string are undefined.
    pub fn read_string(
        self: &Arc<Self>,
        address: VirtAddr,
        buffer: &mut [u8],
    ) -> Result<usize, UserError> {
        let mut done = 0;
        while done < buffer.len() {
            let at = address.checked_add(done as u64).ok_or(UserError::BadAddress)?;
            let n = (buffer.len() - done).min(PAGE_SIZE as usize - at.page_offset());
            let part = &mut buffer[done..done + n];
            if self.copy_from_user(at, part) != 0 {
                return Err(UserError::BadAddress);
            }
            if let Some(end) = part.iter().position(|byte| *byte == 0) {
                return Ok(done + end);
            }
            done += n;
        }
        Ok(done)
    }

    /// Calls `act` while an entry names the frame of a device. It runs under the cursor, because
    /// nothing else keeps the device from revoking the frame. Returns whether the entry still named
    /// it.
    fn with_device(
        &self,
        address: VirtAddr,
        access: Access,
        frame: Frame,
        act: impl FnOnce(),
    ) -> bool {
        let page = address.page();
        let Some(cursor) = self.existing_entries(page_range(page)) else { return false };
        let entry = cursor.entry(page);
        let is_named = entry.frame() == Some(frame) && entry.allows(access);
        if is_named {
            act();
        }
        is_named
    }

    /// Holds a page by a reference and the page lock, under which reclaim does not touch the entry;
    /// faults the page in if it is absent. The shared frame of zeros and memory of a device have
    /// neither. The caller is engaged.
    fn grab(self: &Arc<Self>, address: VirtAddr, access: Access) -> Result<Frame, UserError> {
        let page = address.page();
        loop {
            let Some(frame) = self.hold_frame_for(page, access) else {
                self.fault_in_engaged(address, access)?;
                continue;
            };
            if self.manager.is_bare(frame) {
                return Ok(frame);
            }
            self.manager.lock_page(frame);
            if self.frame_for(page, access) == Some(frame) {
                return Ok(frame);
            }
            self.manager.unlock_and_put(frame);
        }
    }

    /// The frame that the entry of a page names, if the entry allows the access.
    fn frame_for(&self, page: VirtAddr, access: Access) -> Option<Frame> {
        let entry = self.existing_entries(page_range(page))?.entry(page);
        entry.frame().filter(|_| entry.allows(access))
    }

    /// Like [`frame_for`](Self::frame_for), with a reference if it is a page's. The reference is
    /// taken while the entry is locked: afterwards the page may be freed at any moment.
    fn hold_frame_for(&self, page: VirtAddr, access: Access) -> Option<Frame> {
        let cursor = self.existing_entries(page_range(page))?;
        let entry = cursor.entry(page);
        let frame = entry.frame().filter(|_| entry.allows(access))?;
        if !self.manager.is_bare(frame) {
            self.manager.page(frame).hold(&*self.manager.machine);
        }
        Some(frame)
    }
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
