//! The loop of a fault: look at the entry, make one attempt, look again.

use crate::entries::PageCursor;
use crate::error::Refusal;
use crate::event::{Correction, Event, Weight};
use crate::fault::{Fault, Step, page_range};
use crate::machine::{Access, Cursor, Entry, Fate, Frame, Machine, Protection, VirtAddr};
use crate::mm::Mm;
use crate::tlb::{After, Gather};
use crate::vma::Vma;
use crate::word::Word;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// After this many attempts, a retry yields the CPU, and again after as many more.
const ATTEMPTS: u32 = 16;

impl<M: Machine> Mm<M> {
    /// The fault as a loop: find the region, make an attempt, look again.
    pub(super) fn run(
        self: &Arc<Self>,
        fault: &mut Fault<M>,
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
                // The thread that holds the page may need this processor to release it.
                self.manager.machine.pause();
            }
        }
    }

    /// Reads the entry and makes one attempt at a correction (spec B4).
    ///
    /// A correction that needs only the entry happens under this lock. A correction that must first
    /// get a page releases the lock, and looks again under its own.
    fn attempt(self: &Arc<Self>, vma: &Arc<Vma<M>>, fault: &mut Fault<M>) -> Result<Step, Refusal> {
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

    /// The entry names a page and is locked. It may allow the access already.
    fn present(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
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
            // A dirty page was writable until it went on standby: this is no first store.
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
    pub(super) fn absent<'a>(
        self: &'a Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
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

    /// The entry allows the access already, or does once it is brought up to date with its region:
    /// the processor used an older translation (spec B5).
    fn spurious(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &Fault<M>,
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
            // The retried access sets the bits.
            cursor.protect(fault.page, wanted);
        } else {
            // Only the holder of the cursor sets them.
            let entry = Entry::Present { frame, protection: wanted, accessed: true, dirty };
            cursor.replace(fault.page, entry);
        }
        gather.add(fault.page, frame, Fate::Narrowed, After::Keep);
        drop(cursor);
        gather.flush();
        Step::Done(Correction::Spurious)
    }

    pub(super) fn count(&self, fault: &Fault<M>, address: VirtAddr, correction: Correction) {
        let counter = match fault.weight {
            Weight::Minor => &self.usage.minor,
            Weight::Major => &self.usage.major,
        };
        let manager = &self.manager;
        counter.add_by(&*manager.machine, 1, Ordering::Relaxed);
        manager.stats.of(&*manager.machine).corrected(&*manager.machine, correction, fault.weight);
        manager.observe(|| Event::Corrected {
            space: self.id,
            address,
            access: fault.access,
            correction,
            weight: fault.weight,
        });
    }
}
