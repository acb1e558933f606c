//! Forced accesses to another program's memory, as a debugger makes them (`access_remote_vm` with
//! `FOLL_FORCE`, spec B20, H6).
//!
//! What a region does not allow now but might be made to allow is allowed here: a load from any private
//! memory, and a store to a private region that is read-only, which gets a copy of its own. No entry
//! gains a right by it: the program itself is refused afterwards as before.

use crate::error::UserError;
use crate::fault::page_range;
use crate::machine::{Access, Cursor, Entry, Frame, Machine, PAGE_SIZE, VirtAddr};
use crate::mm::Mm;
use crate::page::PageFlags;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;

/// A page that is held for a forced access.
struct Forced {
    frame: Frame,
    /// Whether the page is locked and referenced: the shared frame of zeros is not.
    locked: bool,
}

impl<M: Machine> Mm<M> {
    /// Copies bytes out of the memory, whatever its regions allow; returns how many were copied.
    ///
    /// Stops at what is not mapped, or cannot be had.
    pub fn read_forced(self: &Arc<Self>, address: VirtAddr, bytes: &mut [u8]) -> usize {
        let manager = &self.manager;
        self.force(address, bytes.len(), Access::Read, |forced, at, part| {
            manager.machine.read(forced.frame, at.page_offset(), &mut bytes[part]);
        })
    }

    /// Copies bytes into the memory, though its regions be read-only; returns how many were copied.
    ///
    /// Stops at what is not mapped, cannot be had, or is shared and read-only.
    pub fn write_forced(self: &Arc<Self>, address: VirtAddr, bytes: &[u8]) -> usize {
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
    ) -> usize {
        let within = address.checked_add(bytes as u64).map(|end| end.min(self.layout.range.end));
        let whole = within.unwrap_or(self.layout.range.end);
        let bytes = bytes.min(whole.value().saturating_sub(address.value()) as usize);
        let _engaged = self.manager.engage();
        let mut done = 0;
        while done < bytes {
            let at = address + done as u64;
            let n = (bytes - done).min(PAGE_SIZE as usize - at.page_offset());
            let Ok(forced) = self.grab_forced(at.page(), access) else { break };
            copy(&forced, at, done..done + n);
            if forced.locked {
                self.manager.unlock_and_put(forced.frame);
            }
            done += n;
        }
        done
    }

    /// Takes hold of a page: what its region refuses now, but might be made to allow, is no obstacle.
    /// The caller is engaged.
    fn grab_forced(self: &Arc<Self>, page: VirtAddr, access: Access) -> Result<Forced, UserError> {
        loop {
            let vma = self.region_for(page)?;
            let breaks_copy = breaks_copy(&vma, access)?;
            let Some(frame) = self.hold_present(page) else {
                self.bring_forced(page, access)?;
                continue;
            };
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

    /// Faults a page in, for a store as one that the region may show to nobody else.
    fn bring_forced(self: &Arc<Self>, page: VirtAddr, access: Access) -> Result<(), UserError> {
        let vma = self.containing(page).ok_or(UserError::BadAddress)?;
        match access {
            Access::Write if vma.has(VmaFlags::SHARED) => self.fault_in_engaged(page, access)?,
            Access::Write => self.unshare(page)?,
            _ => self.bring_whatever_allowed(page)?,
        }
        Ok(())
    }

    /// Whether a locked page is still what the entry names, and may be accessed: for a store, whether
    /// it is the region's own, which the entry then says is dirty.
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
        // A region that nobody has stored to yet is first to be told that its pages are not all zeros.
        let is_told = vma.written_family().is_some();
        let is_own = breaks_copy && is_told && page.is_anon() && self.manager.entries_of(page) == 1;
        if is_own {
            page.clear(&*self.manager.machine, PageFlags::LAZY_FREE);
            let entry = Entry::Present { frame, protection, accessed: true, dirty: true };
            cursor.replace(address, entry);
        }
        is_own
    }

    /// The frame that the entry of a page names whatever it allows, with a reference unless it is the
    /// shared frame of zeros.
    fn hold_present(&self, page: VirtAddr) -> Option<Frame> {
        let frame = self.existing_entries(page_range(page))?.entry(page).frame()?;
        if !self.manager.is_zero_frame(frame) {
            self.manager.page(frame).hold(&*self.manager.machine);
        }
        Some(frame)
    }
}

/// Whether a store goes to a copy that the region does not allow stores to itself; refuses what cannot be
/// forced.
fn breaks_copy<M: Machine>(vma: &Vma<M>, access: Access) -> Result<bool, UserError> {
    let allowed = match access {
        Access::Write => vma.has(VmaFlags::WRITE) || vma.is_cow(),
        _ => vma.has(VmaFlags::READ.union(VmaFlags::MAYREAD)),
    };
    if allowed { Ok(!vma.has(VmaFlags::SHARED)) } else { Err(UserError::BadAddress) }
}
