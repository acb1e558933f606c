//! Owning an address space: it is made, and its memory is given back at its end.

use crate::error::ForkError;
use crate::heap::Heap;
use crate::limits::Limits;
use crate::machine::{Machine, Space};
use crate::manager::Manager;
use crate::mm::{Layout, Mm, Usage};
use crate::pending::Pending;
use crate::runs::Runs;
use crate::sync::{Rank, RwLock, SleepLock};
use crate::tree::RegionTree;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Owns an address space; dropping it releases the memory (`exit_mmap`, spec E5–E7). Threads that
/// still hold the shared part then find nothing mapped, and can map nothing. It dereferences to that part, [`Mm`],
/// which has the verbs: `mmap`, `munmap` and so on.
pub struct AddressSpace<M: Machine> {
    mm: Arc<Mm<M>>,
}

impl<M: Machine> AddressSpace<M> {
    /// Makes an empty address space.
    pub fn new(manager: &Arc<Manager<M>>, layout: Layout) -> Result<Self, ForkError> {
        let space = manager.new_space()?;
        Ok(Self::with_space(manager, layout, Limits::default(), space))
    }

    /// Makes an empty address space over a page table that the machine made. Addresses of `layout`
    /// that the table does not cover are left out.
    pub fn with_space(
        manager: &Arc<Manager<M>>,
        layout: Layout,
        limits: Limits,
        space: M::Space,
    ) -> Self {
        let layout = layout.within(&space.covers());
        let mm = manager.spaces.add(&manager.order, |id| Mm {
            manager: manager.clone(),
            id,
            space,
            regions: RwLock::new(Rank::Regions, RegionTree::new()),
            layout,
            limits,
            usage: Usage::default(),
            heap: Heap::default(),
            exclusive: SleepLock::new(),
            locks_new: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            moves: AtomicU32::new(0),
            runs: Runs::new(),
            pending: Pending::default(),
            dropped: AtomicU64::new(0),
        });
        Self { mm }
    }

    /// The shared part, for handing to threads that fault.
    pub fn mm(&self) -> &Arc<Mm<M>> {
        &self.mm
    }
}

impl<M: Machine> fmt::Debug for AddressSpace<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressSpace({})", self.mm.id)
    }
}

impl<M: Machine> Deref for AddressSpace<M> {
    type Target = Arc<Mm<M>>;
    fn deref(&self) -> &Arc<Mm<M>> {
        &self.mm
    }
}

impl<M: Machine> Drop for AddressSpace<M> {
    fn drop(&mut self) {
        self.mm.release();
    }
}

impl<M: Machine> Mm<M> {
    /// Ends the address space: every page is given back, every region leaves the reverse maps.
    fn release(self: &Arc<Self>) {
        let exclusive = self.exclusive();
        self.ended.store(true, Ordering::Relaxed);
        exclusive.unmap(&self.layout.range);
    }
}
