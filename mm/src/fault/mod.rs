//! Correcting a fault: look at the entry, choose one correction, commit it, or look again.
//!
//! Each attempt looks the region up, reads the entry, and dispatches on what it finds (spec B4).
//! A correction gets what it needs with no lock held but the page's own, then locks the entry and
//! commits only if the region is still alive and the entry is what it was (spec B3). If not, it
//! undoes what it did and the next attempt starts from what is true by then. An attempt can also
//! end halfway on purpose, with the page in memory and the store still to be allowed: a page that came
//! back from swap, or a copy whose owner could not be let write it at once.

mod adopt;
pub(crate) mod ahead;
mod anonymous;
mod around;
mod cow;
mod file;
mod readmit;
pub(crate) mod stack;
mod swap;

pub use adopt::Adopted;

use crate::entries::PageCursor;
use crate::error::Refusal;
use crate::event::{Correction, Event, Weight};
use crate::machine::{
    Access, Cursor, Entry, ErrorCode, Fate, Frame, Machine, PAGE_SIZE, Protection, VirtAddr,
};
use crate::mm::Mm;
use crate::swap::area::UnusedSlot;
use crate::tlb::{After, Gather};
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering;

/// After so many attempts the others are let run, before as many more.
const ATTEMPTS: u32 = 16;

/// What an attempt achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The access may be tried again.
    Done(Correction),
    /// A part of the work is done; look again.
    Partly(Correction),
    /// Something changed meanwhile, or was prepared; look again.
    Again,
}

/// Who wants a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An access, which is under way.
    Access,
    /// A guess that there will be one.
    Guess,
}

/// The state of one fault through its attempts (FreeBSD's `faultstate`).
pub(crate) struct Fault {
    /// The page's address.
    pub(crate) page: VirtAddr,
    pub(crate) access: Access,
    pub(crate) purpose: Purpose,
    pub(crate) weight: Weight,
    /// A slot that the attempt made unused under the cursor, to be freed after it.
    unused: Option<UnusedSlot>,
}

impl Fault {
    const fn at(page: VirtAddr, access: Access) -> Self {
        Self { page, access, purpose: Purpose::Access, weight: Weight::Minor, unused: None }
    }

    const fn guessed(page: VirtAddr, access: Access) -> Self {
        Self { purpose: Purpose::Guess, ..Self::at(page, access) }
    }
}

/// The range of one page.
pub(crate) fn page_range(page: VirtAddr) -> Range<VirtAddr> {
    page..page + PAGE_SIZE
}

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

    /// Brings a page in for an access that depends on its region, as the region is by then. `access_for`
    /// refuses regions from which nothing is to be brought in.
    pub(crate) fn fault_in_as<E: From<Refusal>>(
        self: &Arc<Self>,
        page: VirtAddr,
        access_for: impl Fn(&Vma<M>) -> Result<Access, E>,
    ) -> Result<(), E> {
        loop {
            let vma = self.containing(page).ok_or(Refusal::NoRegion)?;
            match self.fault_in(page, access_for(&vma)?) {
                // The region has changed since it was asked.
                Err(Refusal::Forbidden) if !vma.is_alive() => {}
                done => return Ok(done?),
            }
        }
    }

    /// Like [`fault_in`](Self::fault_in), for a caller who is engaged.
    pub(crate) fn fault_in_engaged(
        self: &Arc<Self>,
        address: VirtAddr,
        access: Access,
    ) -> Result<(), Refusal> {
        let page = address.page();
        // No processor has faulted: a page that is there needs no correction, and nothing is stale.
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

    /// Gives a private region a page of its own where it shows one that others may see, whatever
    /// it allows; the right to store is not given with it (`FAULT_FLAG_UNSHARE`, spec J6). The
    /// caller is engaged.
    pub(crate) fn unshare(self: &Arc<Self>, address: VirtAddr) -> Result<(), Refusal> {
        let mut fault = Fault::at(address.page(), Access::Write);
        let correction = self.run(&mut fault, |mm| {
            let vma = mm.region_for(address)?;
            if vma.has(VmaFlags::SHARED) { Err(Refusal::Forbidden) } else { Ok(vma) }
        })?;
        self.count(&fault, address, correction);
        Ok(())
    }

    /// Brings a page back from swap whatever its region allows (swapoff, spec F12).
    pub(crate) fn unswap(self: &Arc<Self>, address: VirtAddr) -> Result<(), Refusal> {
        let _engaged = self.manager.engage();
        match self.bring_whatever_allowed(address) {
            // Unmapped meanwhile: nothing to bring back.
            Err(Refusal::NoRegion) => Ok(()),
            done => done,
        }
    }

    /// Brings a page in whatever its region allows. The caller is engaged.
    pub(crate) fn bring_whatever_allowed(
        self: &Arc<Self>,
        address: VirtAddr,
    ) -> Result<(), Refusal> {
        let mut fault = Fault::at(address.page(), Access::Read);
        let region = |mm: &Arc<Self>| mm.containing(address).ok_or(Refusal::NoRegion);
        self.run(&mut fault, region).map(drop)
    }

    /// The fault as a loop: find the region, make an attempt, look again.
    fn run(
        self: &Arc<Self>,
        fault: &mut Fault,
        region: impl Fn(&Arc<Self>) -> Result<Arc<Vma<M>>, Refusal>,
    ) -> Result<Correction, Refusal> {
        let mut first = None;
        let mut attempts = 0_u32;
        loop {
            let vma = region(self)?;
            let step = self.attempt(&vma, fault);
            self.manager.free_slots(fault.unused.take());
            match step? {
                Step::Done(correction) => return Ok(first.unwrap_or(correction)),
                Step::Partly(correction) => first = first.or(Some(correction)),
                Step::Again => {}
            }
            attempts = attempts.wrapping_add(1);
            if attempts.is_multiple_of(ATTEMPTS) {
                // Whoever is in the way may need the processor to get out of it.
                self.manager.machine.pause();
            }
        }
    }

    /// Looks at the entry and makes one attempt at a correction (spec B4).
    ///
    /// A correction that needs nothing but the entry is made under this lock; one that has to get a
    /// page first lets go of it, and looks again under its own.
    fn attempt(self: &Arc<Self>, vma: &Arc<Vma<M>>, fault: &mut Fault) -> Result<Step, Refusal> {
        let Some(cursor) = self.existing_entries(page_range(fault.page)) else {
            return self.absent(vma, fault, None);
        };
        match cursor.entry(fault.page) {
            Entry::None => self.absent(vma, fault, Some(cursor)),
            Entry::File(index) => {
                drop(cursor);
                self.nonlinear(vma, fault, index)
            }
            Entry::Swap(slot) => {
                drop(cursor);
                self.swap_in(vma, fault, slot)
            }
            entry @ Entry::Present { frame, .. } => self.present(vma, fault, cursor, entry, frame),
        }
    }

    /// There is a page. Its entry, which is locked, may allow the access by now.
    fn present(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault,
        cursor: PageCursor<'_, M>,
        entry: Entry,
        frame: Frame,
    ) -> Result<Step, Refusal> {
        self.manager.note_use(frame);
        let is_on_standby = !entry.allows(Access::Read);
        if is_on_standby {
            self.manager.rescue(frame);
        }
        if fault.access == Access::Write && !entry.is_writable() {
            let step = self.write_protected(vma, fault, cursor, frame)?;
            // A dirty page could be stored to until it went on standby: this is no first store.
            let is_back = is_on_standby && entry.is_dirty();
            return Ok(match step {
                Step::Done(Correction::Reuse) if is_back => Step::Done(Correction::Standby),
                step => step,
            });
        }
        Ok(match is_on_standby {
            true => self.readmit(vma, fault, cursor, frame),
            false => self.spurious(vma, fault, cursor),
        })
    }

    /// There is no page yet. The entry is locked, if there is a table for it.
    #[inline]
    fn absent<'a>(
        self: &'a Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault,
        cursor: Option<PageCursor<'a, M>>,
    ) -> Result<Step, Refusal> {
        if vma.file.is_some() {
            drop(cursor);
            return self.linear(vma, fault);
        }
        if let Some(zero) = self.zero_frame_for(fault) {
            return self.map_zero_frame(vma, fault, cursor, zero);
        }
        drop(cursor);
        self.fresh_page(vma, fault)
    }

    /// The entry allows the access by now, or will once it is brought up to date with its region:
    /// the processor used an older one (spec B5).
    fn spurious(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &Fault,
        mut cursor: PageCursor<'_, M>,
    ) -> Step {
        let Entry::Present { frame, protection, dirty, .. } = cursor.entry(fault.page) else {
            return Step::Again;
        };
        if !vma.is_alive() {
            return Step::Again;
        }
        let mut gather = Gather::new(self);
        let kept = vma.written_protection() & protection & Protection::WRITE;
        let dirty = dirty || (fault.access == Access::Write);
        let wanted = self.manager.honest(vma.page_protection() | kept, dirty);
        if self.manager.machine.capabilities().dirty {
            // The access that is tried again sets the bits.
            cursor.protect(fault.page, wanted);
        } else {
            // Nobody but the holder of the cursor sets them.
            let entry = Entry::Present { frame, protection: wanted, accessed: true, dirty };
            cursor.replace(fault.page, entry);
        }
        gather.add(fault.page, frame, Fate::Narrowed, After::Keep);
        drop(cursor);
        gather.flush();
        Step::Done(Correction::Spurious)
    }

    fn count(&self, fault: &Fault, address: VirtAddr, correction: Correction) {
        let counter = match fault.weight {
            Weight::Minor => &self.usage.minor,
            Weight::Major => &self.usage.major,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let manager = &self.manager;
        manager.stats.corrected(manager.machine.context(), correction, fault.weight);
        manager.observe(|| Event::Corrected {
            space: self.id,
            address,
            access: fault.access,
            correction,
            weight: fault.weight,
        });
    }
}
