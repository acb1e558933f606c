//! Pagers answer the faults that the machine itself takes.

use super::answer::{Answer, HostFault, Resolution, Signal, answer_by};
use super::{signal, thread};
use crate::machine::{LinuxMachine, Shared};
use crate::probe::Delivery;
use crate::space::{Layout, SpaceCore};
use crate::visit::Visitors;
use pagefault_machine::PageFault;
use rustix::io::Errno;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, SeqCst};

/// Answers page faults: the memory manager.
///
/// Under inline delivery it runs in a signal handler: it must not use the program's heap, touch
/// managed memory, or take a lock that interrupted code could hold.
pub trait Pager: Send + Sync {
    /// Answers a fault in the space with this number; its addresses are logical.
    fn fault(&self, space: u32, fault: &PageFault) -> Resolution;

    /// Runs first in every thread that the machine starts.
    fn thread_started(&self) {}
}

/// Faults are answered as long as this lives. Dropping it stops the machine's threads and waits for
/// faults in progress. The pager itself must not drop it.
#[must_use]
pub struct Answering {
    shared: Arc<Shared>,
}

/// The pager and its threads.
pub(crate) struct Pagers {
    /// A boxed `Arc`, or null.
    current: AtomicPtr<Arc<dyn Pager>>,
    visitors: Visitors,
    pub threads: thread::Threads,
}

impl LinuxMachine {
    /// Makes `pager` answer the faults of all spaces of the machine.
    ///
    /// `EBUSY`: the machine already has a pager.
    pub fn answer_with(&self, pager: Arc<dyn Pager>) -> Result<Answering, Errno> {
        let shared = &self.shared;
        let boxed = Box::into_raw(Box::new(pager));
        let pagers = &shared.pagers;
        if pagers.current.compare_exchange(null_mut(), boxed, AcqRel, Acquire).is_err() {
            // SAFETY: just made by `into_raw` and not published.
            drop(unsafe { Box::from_raw(boxed) });
            return Err(Errno::BUSY);
        }
        // From here on dropping `answering` undoes everything.
        let answering = Answering { shared: shared.clone() };
        if shared.layout != Layout::Identity || shared.delivery == Delivery::Inline {
            signal::install()?;
        }
        if let Delivery::Threads(count) = shared.delivery {
            thread::start(shared, count.max(1))?;
        }
        Ok(answering)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let pagers = &self.shared.pagers;
        let pager = pagers.current.swap(null_mut(), SeqCst);
        if !self.shared.descriptor.is_ours() {
            // A forked child: threads that may have been inside do not exist here.
            pagers.threads.forget();
            return;
        }
        pagers.threads.stop();
        pagers.visitors.wait_until_gone();
        // SAFETY: `answer_with` stored it from `into_raw`, the exchange makes it ours alone, and
        // nobody who found it before is still inside.
        drop(unsafe { Box::from_raw(pager) });
    }
}

impl Pagers {
    pub fn new() -> Self {
        Self {
            current: AtomicPtr::new(null_mut()),
            visitors: Visitors::new(),
            threads: thread::Threads::new(),
        }
    }

    /// Runs `f` with the pager, which stays meanwhile; `None` if there is none.
    pub(super) fn with_current<R>(&self, f: impl FnOnce(&dyn Pager) -> R) -> Option<R> {
        let _visit = self.visitors.enter();
        // SAFETY: null, or a box that `Answering` frees after the visit.
        let pager = unsafe { self.current.load(SeqCst).as_ref() }?;
        Some(f(&**pager))
    }
}

/// Answers a fault in a space by the machine's pager.
pub(super) fn answer(space: &SpaceCore, fault: &HostFault) -> Answer {
    answer_by(space, fault, |fault| {
        let resolution = space.shared.pagers.with_current(|pager| pager.fault(space.id, fault));
        resolution.unwrap_or(Resolution::Signal(Signal::NotMapped))
    })
}
