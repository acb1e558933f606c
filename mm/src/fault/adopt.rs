//! Takes over pages that the machine already holds.
//!
//! A machine inside a program may find pages in a range that it only now begins to manage: the
//! kernel stored to them when it started the program, or another thread did before the range was
//! the manager's. Their content counts, although no fault of ours made them.

use crate::error::AdoptError;
use crate::fault::page_range;
use crate::machine::{Cursor, Entry, Frame, Machine, VirtAddr};
use crate::mm::Mm;
use crate::page::PageFlags;
use crate::rmap::family::Stores;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;

/// The outcome of an adoption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// The page is now a dirty anonymous page of its region, as if it had been stored to.
    Taken,
    /// The memory manager already knew the page.
    Known,
}

/// The outcome of one attempt.
enum Attempt {
    Done(Adopted),
    Again,
}

impl<M: Machine> Mm<M> {
    /// Turns the page at `address`, whose content the machine holds, into a page of the private
    /// anonymous region there. If the region allows no access, the machine must be able to read the
    /// content without one.
    ///
    /// `claim` makes the content at the address that of a frame. It runs with the entry locked,
    /// before the entry is written, so it must not sleep. It returns false if another thread is at
    /// work there, and is then called again.
    pub fn adopt(
        self: &Arc<Self>,
        address: VirtAddr,
        claim: impl Fn(Frame) -> bool,
    ) -> Result<Adopted, AdoptError> {
        let page = address.page();
        let _engaged = self.manager.engage();
        loop {
            let vma = self.containing(page).ok_or(AdoptError::Unmapped)?;
            if vma.file.is_some() || vma.has(VmaFlags::SHARED) {
                return Err(AdoptError::NotAnonymous);
            }
            if let Attempt::Done(adopted) = self.try_adopt(&vma, page, &claim)? {
                return Ok(adopted);
            }
            self.manager.machine.pause();
        }
    }

    fn try_adopt(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        page: VirtAddr,
        claim: &impl Fn(Frame) -> bool,
    ) -> Result<Attempt, AdoptError> {
        let manager = &self.manager;
        if vma.written_family().is_none() {
            self.prepare_family(vma, Stores::Begin);
            return Ok(Attempt::Again);
        }
        let frame = manager.allocate().map_err(|_| AdoptError::OutOfMemory)?;
        manager.machine.zero(frame);
        manager.page(frame).set(&*manager.machine, PageFlags::UPTODATE);
        // Queued before it is mapped, as any new page.
        manager.enqueue(frame, None);
        let attempt = self.install_adopted(vma, page, frame, claim);
        if !matches!(attempt, Ok(Attempt::Done(Adopted::Taken))) {
            manager.put(frame);
        }
        attempt
    }

    fn install_adopted(
        &self,
        vma: &Arc<Vma<M>>,
        page: VirtAddr,
        frame: Frame,
        claim: &impl Fn(Frame) -> bool,
    ) -> Result<Attempt, AdoptError> {
        let mut cursor = self.entries(page_range(page)).map_err(|_| AdoptError::OutOfMemory)?;
        if !vma.is_alive() {
            return Ok(Attempt::Again);
        }
        if !cursor.entry(page).is_none() {
            return Ok(Attempt::Done(Adopted::Known));
        }
        if !claim(frame) {
            return Ok(Attempt::Again);
        }
        let protection = vma.written_protection();
        let entry = Entry::Present { frame, protection, accessed: true, dirty: true };
        self.add_new_anon(&mut cursor, vma, page, entry);
        Ok(Attempt::Done(Adopted::Taken))
    }
}
