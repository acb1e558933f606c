//! Pagers: who answers the faults that the machine itself takes.

use super::answer::{Answer, HostFault, Resolution, Signal, answer_by};
use super::{signal, thread};
use crate::machine::{LinuxMachine, Shared};
use crate::probe::Delivery;
use crate::space::{Layout, SpaceCore};
use pagefault_machine::PageFault;
use rustix::io::Errno;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

/// Whoever answers page faults: the memory manager.
///
/// Called in a signal handler under inline delivery: it must not use the program's heap, touch
/// managed memory, or take a lock that interrupted code could hold.
pub trait Pager: Send + Sync {
    /// Answers a fault in the space with this number; its addresses are logical.
    fn fault(&self, space: u32, fault: &PageFault) -> Resolution;

    /// Called first in every thread that the machine starts.
    fn thread_started(&self) {}
}

/// Faults are answered as long as this lives; dropping it stops the machine's threads.
#[must_use]
pub struct Answering {
    shared: Arc<Shared>,
}

/// Who answers, and with what threads.
pub(crate) struct Pagers {
    /// A boxed `Arc`, or null.
    current: AtomicPtr<Arc<dyn Pager>>,
    pub threads: thread::Threads,
}

impl LinuxMachine {
    /// Lets `pager` answer the faults of all spaces of the machine from now on.
    ///
    /// `EBUSY`: somebody does already.
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
        if self.shared.descriptor.is_ours() {
            self.shared.pagers.threads.stop();
        } else {
            self.shared.pagers.threads.forget();
        }
        let pager = self.shared.pagers.current.swap(null_mut(), AcqRel);
        // SAFETY: `answer_with` stored it from `into_raw`, and the exchange makes it ours alone;
        // no thread of the machine runs any more, and faulting in a space whose pager goes away
        // is the program's error, as is using its memory after that.
        drop(unsafe { Box::from_raw(pager) });
    }
}

impl Pagers {
    pub fn new() -> Self {
        Self { current: AtomicPtr::new(null_mut()), threads: thread::Threads::new() }
    }

    pub(super) fn current(&self) -> Option<&dyn Pager> {
        // SAFETY: null, or a box that lives until `Answering` is dropped.
        unsafe { self.current.load(Acquire).as_ref() }.map(|pager| &**pager)
    }
}

/// Answers a fault in a space by the machine's pager.
pub(super) fn answer(space: &SpaceCore, fault: &HostFault) -> Answer {
    answer_by(space, fault, |fault| match space.shared.pagers.current() {
        Some(pager) => pager.fault(space.id, fault),
        None => Resolution::Signal(Signal::NotMapped),
    })
}
