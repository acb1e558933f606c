//! Telling every CPU that translations have changed: the protocol of spec G3.

use crate::arch::Architecture;
use crate::cpu::{CpuState, local_cpu};
use crate::hardware::Hardware;
use crate::stats::count;
use crate::table::Table;
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// What the receiver of an interrupt is to forget.
#[derive(Clone, Copy)]
pub(crate) enum Flush<'a> {
    /// The translations of some pages, by number.
    Pages(&'a [u64]),
    /// Nothing: the sender only waits until no walk is under way.
    Walks,
    /// The space as a whole, which is about to go away.
    Leave,
}

impl<A: Architecture> Hardware<A> {
    /// Interrupts every CPU that may hold translations of a space and waits for all of them;
    /// returns how many other CPUs that were.
    ///
    /// The interrupt handler of another CPU runs on the sender's thread, with that CPU's state
    /// locked, so that it falls between two of its instructions.
    pub(crate) fn shoot_down(&self, table: &Table, flush: Flush<'_>) -> u64 {
        // Translations of the kernel's own part are in every TLB, whatever space is loaded.
        let everywhere = table.id == self.reference.id;
        let local = local_cpu(self.cpus.len() as u32);
        let mut interrupts = 0;
        for (cpu, state) in (0..).zip(&self.cpus) {
            if !everywhere && table.cpus.load(Ordering::SeqCst) & (1 << cpu) == 0 {
                continue;
            }
            self.receive(&mut state.lock(), table, flush);
            interrupts += u64::from(cpu != local);
        }
        interrupts
    }

    /// Makes the sender's CPU forget a page, if no other may hold translations of the space; returns
    /// whether that was so. A CPU that loads the space later walks its table again.
    pub(crate) fn forget_here(&self, table: &Table, page: u64) -> bool {
        let local = local_cpu(self.cpus.len() as u32);
        let is_alone = table.cpus.load(Ordering::SeqCst) & !(1 << local) == 0;
        if is_alone {
            let mut state = self.cpus[local as usize].lock();
            self.receive(&mut state, table, Flush::Pages(&[page]));
        }
        is_alone
    }

    /// The interrupt handler.
    fn receive(&self, state: &mut CpuState, table: &Table, flush: Flush<'_>) {
        let is_loaded = state.loaded.id == table.id;
        match flush {
            Flush::Pages(pages) if table.id == self.reference.id => {
                self.forget(state, pages);
            }
            Flush::Pages(pages) if is_loaded && !state.is_lazy => self.forget(state, pages),
            Flush::Pages(_) if is_loaded => self.leave_lazily(state),
            Flush::Leave if is_loaded => self.leave(state),
            // Another space is loaded: the acknowledgement is all that is wanted.
            Flush::Pages(_) | Flush::Leave | Flush::Walks => {}
        }
    }

    fn forget(&self, state: &mut CpuState, pages: &[u64]) {
        for page in pages {
            state.tlb.remove(*page, &self.frames);
        }
    }

    fn leave_lazily(&self, state: &mut CpuState) {
        count(&self.counters.lazy_leaves, 1);
        self.leave(state);
    }

    /// Clears the CPU's own bit and loads the kernel's own root.
    fn leave(&self, state: &mut CpuState) {
        state.loaded.cpus.fetch_and(!(1 << state.number), Ordering::SeqCst);
        state.loaded = self.reference.clone();
        state.is_lazy = true;
        state.tlb.flush(&self.frames);
    }

    /// Makes a space the CPU's own, in the order of spec G3.
    pub(crate) fn switch(&self, state: &mut CpuState, table: &Arc<Table>) {
        let bit = 1 << state.number;
        if state.loaded.id == table.id {
            state.is_lazy = false;
            // Its bit is set, or a flush would have made this CPU leave.
            table.cpus.fetch_or(bit, Ordering::SeqCst);
            return;
        }
        state.loaded.cpus.fetch_and(!bit, Ordering::SeqCst);
        state.is_lazy = false;
        state.loaded = table.clone();
        table.cpus.fetch_or(bit, Ordering::SeqCst);
        state.tlb.flush(&self.frames);
        count(&self.counters.switches, 1);
    }
}
