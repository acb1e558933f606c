//! How a fault travels up: from the host, through our page table, to the memory manager.
//!
//! A host fault is first looked up in our own page table, as a processor walks its tables on a
//! miss of its look-aside buffer: if the entry allows the access, the host page is filled and the
//! memory manager never hears of it. Otherwise the [`Pager`] is asked, *inline* in the faulting
//! thread (`signal`) or on a *thread* of the machine's (`thread`).

pub(crate) mod guard;
pub(crate) mod signal;
mod stack;
pub(crate) mod thread;

use crate::machine::{LinuxMachine, Shared};
use crate::place::{Refilled, permits};
use crate::probe::Delivery;
use crate::space::{Layout, SpaceCore};
use crate::stats::Counter;
use pagefault_machine::{Access, Context, Entry, ErrorCode, PageFault, VirtAddr};
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

/// A pager's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The access may be tried again.
    Resume,
    /// The access is illegal.
    Signal(Signal),
    /// The program cannot go on: no memory is left for it.
    Kill,
}

/// The signal that an illegal access raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `SIGSEGV`, `SEGV_MAPERR`: there is no region.
    NotMapped,
    /// `SIGSEGV`, `SEGV_ACCERR`: the region forbids it.
    Forbidden,
    /// `SIGBUS`, `BUS_ADRERR`: the region has no content there.
    NoContent,
}

impl Signal {
    /// The number and the `si_code`.
    pub const fn numbers(self) -> (i32, i32) {
        match self {
            Self::NotMapped => (libc::SIGSEGV, 1),
            Self::Forbidden => (libc::SIGSEGV, 2),
            Self::NoContent => (libc::SIGBUS, libc::BUS_ADRERR),
        }
    }

    pub(crate) const fn from_numbers(signal: i32, code: i32) -> Self {
        match (signal, code) {
            (libc::SIGSEGV, 1) => Self::NotMapped,
            (libc::SIGSEGV, _) => Self::Forbidden,
            _ => Self::NoContent,
        }
    }
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

    fn current(&self) -> Option<&dyn Pager> {
        // SAFETY: null, or a box that lives until `Answering` is dropped.
        unsafe { self.current.load(Acquire).as_ref() }.map(|pager| &**pager)
    }
}

/// A fault as the host tells it.
pub(crate) struct HostFault {
    /// The host address, to the byte where the host tells it.
    pub address: u64,
    pub access: Access,
    pub ip: u64,
    pub sp: u64,
}

/// What is to be done about a fault.
pub(crate) enum Answer {
    /// The host page was filled, which woke the waiting threads.
    Resume(Refilled),
    Signal(Signal),
    /// The manager cannot go on, and why.
    Stop(&'static str),
}

/// Answers a fault in a space.
pub(crate) fn answer(space: &SpaceCore, fault: &HostFault) -> Answer {
    let shared = &*space.shared;
    shared.counters.add(Counter::Delivered, 1);
    let address = space.logical(fault.address);
    let Some(page) = space.page_of(address) else { return Answer::Signal(Signal::NotMapped) };
    if permits(space.table.entry(page), fault.access) {
        shared.counters.add(Counter::Absorbed, 1);
    } else {
        let Some(pager) = shared.pagers.current() else {
            return Answer::Signal(Signal::NotMapped);
        };
        match pager.fault(space.id, &page_fault(space, page, address, fault)) {
            Resolution::Resume => {}
            Resolution::Signal(signal) => return Answer::Signal(signal),
            Resolution::Kill => return Answer::Stop("pagefault: out of memory\n"),
        }
    }
    refill_around(space, page);
    refill(space, page, fault.access)
}

/// How far around a fault host pages are filled that our page table allows already.
const AROUND: usize = 16;

/// Fills the host pages next to a faulting one whose frames stand nowhere yet: pages brought ahead.
/// It comes before the faulting page itself, whose waiting thread would soon be here again.
fn refill_around(space: &SpaceCore, page: usize) {
    let after = page + 1..(page + 1 + AROUND).min(space.pages());
    let before = (page.saturating_sub(AROUND)..page).rev();
    let present = |next: usize| space.table.entry(next).frame().map(|frame| (next, frame));
    let refill = |(next, frame)| space.shared.refill_homeless(space, next, frame);
    after.map_while(present).for_each(refill);
    before.map_while(present).for_each(refill);
}

/// Fills the host page from the entry that is there now.
pub(crate) fn refill(space: &SpaceCore, page: usize, access: Access) -> Answer {
    match space.shared.refill(space, page, access) {
        Ok(refilled) => Answer::Resume(refilled),
        // The program unmapped the range, or is ending: the access finds out by itself.
        Err(Errno::NOENT | Errno::SRCH) => Answer::Resume(Refilled::Unchanged),
        Err(Errno::NOMEM) => Answer::Stop("pagefault: the host has no memory left\n"),
        Err(Errno::EXIST) => {
            Answer::Stop("pagefault: a managed page was filled by somebody else\n")
        }
        Err(_) => Answer::Stop("pagefault: the host refused to map a page\n"),
    }
}

/// The fault as a processor walking our page table would report it.
fn page_fault(space: &SpaceCore, page: usize, address: VirtAddr, fault: &HostFault) -> PageFault {
    let mut code = ErrorCode::USER;
    code.set(ErrorCode::WRITE, fault.access == Access::Write);
    code.set(ErrorCode::FETCH, fault.access == Access::Execute);
    if let Entry::Present { protection, .. } = space.table.entry(page) {
        code.set(ErrorCode::PROTECTION, !protection.is_empty());
    }
    // Code and stack outside of the window have no logical address. Zero is below every stack, so
    // the stack rule (spec A14), which no program outside can be held to, lets the access pass.
    let logical = |host: u64| {
        if space.host_range().contains(&host) { space.logical(host) } else { VirtAddr::ZERO }
    };
    let (ip, sp) = (logical(fault.ip), logical(fault.sp));
    PageFault { address, code, context: Context::MaySleep, ip, sp }
}

/// Ends the process with a message. Used where going on would mean a wrong byte or a hang.
pub(crate) fn stop(message: &str) -> ! {
    let stderr = rustix::stdio::stderr();
    let _ = rustix::io::write(stderr, message.as_bytes());
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        rustix::thread::sched_yield();
    }
}
