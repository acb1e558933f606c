//! Taking over pages that the machine has already.
//!
//! A machine that lives inside of a program may find pages in a range that it is only now told to
//! manage: the kernel stored to them when it started the program, or another thread did before the
//! range was the manager's. Their content counts, although no fault of ours made them.

use crate::error::AdoptError;
use crate::fault::page_range;
use crate::machine::{Cursor, Entry, Frame, Machine, VirtAddr};
use crate::mm::Mm;
use crate::page::PageFlags;
use crate::rmap::family::Stores;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;

/// What became of a page that was to be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It is an anonymous page of its region from here on, dirty, as if it had been stored to.
    Taken,
    /// The memory manager knew the page already.
    Known,
}

/// What became of an attempt.
enum Attempt {
    Done(Adopted),
    Again,
}

impl<M: Machine> Mm<M> {
    /// Makes the page at `address`, which the machine holds with its content, the own page of the
    /// private anonymous region there. Where the region allows no access, the machine must not need
    /// one to read the content later.
    ///
    /// `claim` has the machine take what stands at the address as the content of a frame. It is
    /// called with the entry locked, before the entry is written, and so must not sleep; it returns
    /// false if the machine has somebody else at work there, and is called again then.
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
