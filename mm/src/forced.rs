//! Forced accesses to another program's memory, as a debugger makes them (`access_remote_vm` with
//! `FOLL_FORCE`, spec B20, H6).
//!
//! A forced access may do what mprotect could allow: load from any private memory, and store to a
//! read-only private region, which gets a copy of its own. No entry gains a right: the program
//! itself is refused afterwards as before.

use crate::error::UserError;
use crate::fault::page_range;
use crate::machine::{Access, Cursor, Entry, Frame, Machine, PAGE_SIZE, VirtAddr};
use crate::mm::Mm;
use crate::page::PageFlags;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;

/// A page held for a forced access.
struct Forced {
    frame: Frame,
    /// Whether the page is locked and referenced; the shared frame of zeros is not.
    locked: bool,
}

impl<M: Machine> Mm<M> {
    /// Copies bytes out of the memory, whatever its regions allow; returns how many were copied, and
    /// why it stopped early.
    ///
    /// Stops at an address that is not mapped, or whose page is not available.
    pub fn read_forced(
        self: &Arc<Self>,
        address: VirtAddr,
        bytes: &mut [u8],
    ) -> (usize, Option<UserError>) {
        let manager = &self.manager;
        self.force(address, bytes.len(), Access::Read, |forced, at, part| {
            manager.machine.read(forced.frame, at.page_offset(), &mut bytes[part]);
        })
    }

    /// Copies bytes into the memory, even into read-only regions; returns how many were copied, and
    /// why it stopped early.
    ///
    /// Stops at an address that is not mapped, whose page is not available, or that is shared and
    /// read-only.
    pub fn write_forced(
        self: &Arc<Self>,
        address: VirtAddr,
        bytes: &[u8],
    ) -> (usize, Option<UserError>) {
        let manager = &self.manager;
        self.force(address, bytes.len(), Access::Write, |forced, at, part| {
            manager.machine.write(forced.frame, at.page_offset(), &bytes[part]);
            manager.mark_dirty(manager.page(forced.frame));
        })
    }

    /// Goes through a range page by page, with each page held.
    fn force(
        self: &Arc<Self>,
        address: VirtAddr,
        bytes: usize,
        access: Access,
        mut copy: impl FnMut(&Forced, VirtAddr, core::ops::Range<usize>),
    ) -> (usize, Option<UserError>) {
        let within = address.checked_add(bytes as u64).map(|end| end.min(self.layout.range.end));
        let whole = within.unwrap_or(self.layout.range.end);
        let asked = bytes;
        let bytes = asked.min(whole.value().saturating_sub(address.value()) as usize);
        let _engaged = self.manager.engage();
        let mut done = 0;
        while done < bytes {
            let at = address + done as u64;
            let n = (bytes - done).min(PAGE_SIZE as usize - at.page_offset());
            let forced = match self.grab_forced(at.page(), access) {
                Ok(forced) => forced,
                Err(error) => return (done, Some(error)),
            };
            copy(&forced, at, done..done + n);
            if forced.locked {
                self.manager.unlock_and_put(forced.frame);
            }
            done += n;
        }
        (done, (done < asked).then_some(UserError::BadAddress))
    }

    /// Holds a page, even one that its region refuses now but that mprotect could allow. The caller
    /// is engaged.
    fn grab_forced(self: &Arc<Self>, page: VirtAddr, access: Access) -> Result<Forced, UserError> {
        loop {
            let vma = self.region_for(page)?;
            let breaks_copy = breaks_copy(&vma, access)?;
            let Some(frame) = self.hold_present(page) else {
                self.bring_forced(page, access)?;
                continue;
            };
            if self.manager.is_device(frame) {
                // The region has changed.
                continue;
            }
            if self.manager.is_zero_frame(frame) {
                if access == Access::Read {
                    return Ok(Forced { frame, locked: false });
                }
                self.bring_forced(page, access)?;
                continue;
            }
            self.manager.lock_page(frame);
            if self.is_ready(&vma, page, frame, access, breaks_copy) {
                return Ok(Forced { frame, locked: true });
            }
            self.manager.unlock_and_put(frame);
            if access == Access::Write {
                self.bring_forced(page, access)?;
            }
        }
    }

    /// Faults a page in; for a store, as a page that no other region may show.
    fn bring_forced(self: &Arc<Self>, page: VirtAddr, access: Access) -> Result<(), UserError> {
        let vma = self.containing(page).ok_or(UserError::BadAddress)?;
        match access {
            Access::Write if vma.has(VmaFlags::SHARED) => self.fault_in_engaged(page, access)?,
            Access::Write => self.unshare(page)?,
            _ => self.bring_whatever_allowed(page)?,
        }
        Ok(())
    }

    /// Whether the entry still names a locked page, and the access may go on. For a store, the page
    /// must be the region's own, and the entry becomes dirty.
    fn is_ready(
        &self,
        vma: &Vma<M>,
        address: VirtAddr,
        frame: Frame,
        access: Access,
        breaks_copy: bool,
    ) -> bool {
        let Some(mut cursor) = self.existing_entries(page_range(address)) else { return false };
        let entry = cursor.entry(address);
        let Entry::Present { protection, .. } = entry else { return false };
        if !vma.is_alive() || entry.frame() != Some(frame) {
            return false;
        }
        if access != Access::Write || entry.is_writable() {
            return true;
        }
        let page = self.manager.page(frame);
        // A region without stores so far must first learn that its pages are not all zeros.
        let is_told = vma.written_family().is_some();
        let is_own = breaks_copy && is_told && page.is_anon() && self.manager.entries_of(page) == 1;
        if is_own {
            page.clear(&*self.manager.machine, PageFlags::LAZY_FREE);
            let entry = Entry::Present { frame, protection, accessed: true, dirty: true };
            cursor.replace(address, entry);
        }
        is_own
    }

    /// The frame that the entry of a page names, whatever the entry allows; with a reference if it
    /// is a page's.
    fn hold_present(&self, page: VirtAddr) -> Option<Frame> {
        let frame = self.existing_entries(page_range(page))?.entry(page).frame()?;
        if !self.manager.is_bare(frame) {
            self.manager.page(frame).hold(&*self.manager.machine);
        }
        Some(frame)
    }
}

/// Whether a store goes to a private copy although the region forbids stores; refuses accesses that
/// cannot be forced.
fn breaks_copy<M: Machine>(vma: &Vma<M>, access: Access) -> Result<bool, UserError> {
    if vma.has(VmaFlags::IO) {
        // A device could react to the access.
        return Err(UserError::BadAddress);
    }
    let allowed = match access {
        Access::Write => vma.has(VmaFlags::WRITE) || vma.is_cow(),
        _ => vma.has(VmaFlags::READ.union(VmaFlags::MAYREAD)),
    };
    if allowed { Ok(!vma.has(VmaFlags::SHARED)) } else { Err(UserError::BadAddress) }
}
