//! Corrects a fault: reads the entry, chooses one correction, commits it, or starts over.
//!
//! Each attempt looks the region up, reads the entry, and dispatches on its content (spec B4). A
//! correction allocates and reads with at most the page's own lock held. Then it locks the entry,
//! and commits only if the region is still alive and the entry unchanged (spec B3). Otherwise it
//! undoes its work, and the next attempt starts from the new state. An attempt can also end halfway
//! on purpose, with the page in memory and the store not yet allowed: after a page came back from
//! swap, or when a copy could not become writable at once.

mod adopt;
pub(crate) mod ahead;
mod alone;
mod anonymous;
mod around;
mod attempt;
mod cow;
mod device;
mod file;
mod readmit;
pub(crate) mod stack;
mod step;
mod swap;

pub use adopt::Adopted;

pub(crate) use step::{Fault, Purpose, Step, page_range};

use crate::error::Refusal;
use crate::event::Correction;
use crate::machine::{Access, Cursor, ErrorCode, Machine, VirtAddr};
use crate::mm::Mm;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;

impl<M: Machine> Mm<M> {
    /// Corrects a fault of the processor and counts it (spec A13–A19).
    pub(crate) fn correct(
        self: &Arc<Self>,
        address: VirtAddr,
        access: Access,
        code: ErrorCode,
    ) -> Result<(), Refusal> {
        let mut fault = Fault::at(address.page(), access);
        let _engaged = self.manager.engage();
        let correction = self.run(&mut fault, |mm| {
            let vma = mm.region_for(address)?;
            if vma.allows_fault(access, code) { Ok(vma) } else { Err(Refusal::Forbidden) }
        })?;
        self.count(&fault, address, correction);
        self.bring_ahead(&fault, correction);
        if correction == Correction::Standby {
            self.manager.replace_rescued();
        }
        Ok(())
    }

    /// Brings a page in as an access by the program would (`get_user_pages`, spec B20).
    pub(crate) fn fault_in(
        self: &Arc<Self>,
        address: VirtAddr,
        access: Access,
    ) -> Result<(), Refusal> {
        let _engaged = self.manager.engage();
        self.fault_in_engaged(address, access)
    }

    /// Brings a page in for an access that depends on the region found. `access_for` refuses
    /// regions that have nothing to bring in.
    pub(crate) fn fault_in_as<E: From<Refusal>>(
        self: &Arc<Self>,
        page: VirtAddr,
        access_for: impl Fn(&Vma<M>) -> Result<Access, E>,
    ) -> Result<(), E> {
        loop {
            let vma = self.containing(page).ok_or(Refusal::NoRegion)?;
            match self.fault_in(page, access_for(&vma)?) {
                // The region has changed since `access_for` saw it.
                Err(Refusal::Forbidden) if !vma.is_alive() => {}
                done => return Ok(done?),
            }
        }
    }

    /// Like [`fault_in`](Self::fault_in), for an engaged caller.
    pub(crate) fn fault_in_engaged(
        self: &Arc<Self>,
        address: VirtAddr,
        access: Access,
    ) -> Result<(), Refusal> {
        let page = address.page();
        // No processor has faulted: a present page needs no correction, and nothing is stale.
        if let Some(cursor) = self.existing_entries(page_range(page)) {
            let entry = cursor.entry(page);
            if entry.allows(access) {
                entry.frame().inspect(|frame| self.manager.note_use(*frame));
                return Ok(());
            }
        }
        let mut fault = Fault::at(page, access);
        let correction = self.run(&mut fault, |mm| {
            let vma = mm.region_for(address)?;
            if vma.allows(access) { Ok(vma) } else { Err(Refusal::Forbidden) }
        })?;
        if correction != Correction::Spurious {
            self.count(&fault, address, correction);
        }
        Ok(())
    }

    /// Replaces a page that others may see by the private region's own copy, whatever the region
    /// allows; gives no right to store (`FAULT_FLAG_UNSHARE`, spec J6). The caller is engaged.
    pub(crate) fn unshare(self: &Arc<Self>, address: VirtAddr) -> Result<(), Refusal> {
        let mut fault = Fault::at(address.page(), Access::Write);
        let correction = self.run(&mut fault, |mm| {
            let vma = mm.region_for(address)?;
            if vma.has(VmaFlags::SHARED) { Err(Refusal::Forbidden) } else { Ok(vma) }
        })?;
        self.count(&fault, address, correction);
        Ok(())
    }

    /// Brings a page back from swap, whatever its region allows (swapoff, spec F12).
    pub(crate) fn unswap(self: &Arc<Self>, address: VirtAddr) -> Result<(), Refusal> {
        let _engaged = self.manager.engage();
        match self.bring_whatever_allowed(address) {
            // Unmapped meanwhile: nothing to bring back.
            Err(Refusal::NoRegion) => Ok(()),
            done => done,
        }
    }

    /// Brings a page in, whatever its region allows. The caller is engaged.
    pub(crate) fn bring_whatever_allowed(
        self: &Arc<Self>,
        address: VirtAddr,
    ) -> Result<(), Refusal> {
        let mut fault = Fault::at(address.page(), Access::Read);
        let region = |mm: &Arc<Self>| mm.containing(address).ok_or(Refusal::NoRegion);
        self.run(&mut fault, region).map(drop)
    }
}
