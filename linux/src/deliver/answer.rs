//! Answers a fault: asks our page table, then the memory manager, and fills the host page.

use crate::context;
use crate::fresh::Filled;
use crate::machine::LinuxMachine;
use crate::moves::AROUND;
use crate::place::{Refilled, permits};
use crate::probe::Delivery;
use crate::space::SpaceCore;
use crate::stats::Counter;
use alloc::sync::Arc;
use pagefault::Mm;
use pagefault::entry::{SegvCode, Signal as Verdicts, Verdict};
use pagefault::exception::ExceptionTables;
use pagefault_machine::{Access, Context, Entry, ErrorCode, PageFault, VirtAddr};
use rustix::io::Errno;

/// A fault as the host reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFault {
    /// The host address, to the byte if the host reports it.
    pub address: u64,
    /// The access of the faulting instruction.
    pub access: Access,
    /// The faulting instruction's host address; 0 if the host does not report it.
    pub ip: u64,
    /// The stack pointer; 0 if the host does not report it.
    pub sp: u64,
}

/// How to resolve a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The access may be tried again. If the host page changed, that woke the threads that wait for
    /// it.
    Resume(Refilled),
    /// The access is illegal.
    Signal(Signal),
    /// No frame is available: nothing can be evicted, or there is none for the copy of a page that
    /// processes share. The embedder makes room and tries again, or ends the program.
    Short,
    /// The manager cannot continue, for this reason: a message that ends with a newline.
    Stop(&'static str),
}

/// The memory manager's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The access may be tried again.
    Resume,
    /// The access is illegal.
    Signal(Signal),
    /// The program cannot continue: no memory is left for it.
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

const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;
const BUS_ADRERR: i32 = 2;
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;

impl Signal {
    /// The number and the `si_code`.
    pub const fn numbers(self) -> (i32, i32) {
        match self {
            Self::NotMapped => (SIGSEGV, SEGV_MAPERR),
            Self::Forbidden => (SIGSEGV, SEGV_ACCERR),
            Self::NoContent => (SIGBUS, BUS_ADRERR),
        }
    }

    #[cfg(feature = "std")]
    pub(crate) const fn from_numbers(signal: i32, code: i32) -> Self {
        match (signal, code) {
            (SIGSEGV, SEGV_MAPERR) => Self::NotMapped,
            (SIGSEGV, _) => Self::Forbidden,
            _ => Self::NoContent,
        }
    }
}

/// Answers a program's fault in an address space, for an embedder that handles the host's `SIGBUS`
/// itself.
///
/// Call it in the handler, on a stack with 32 KiB of room, with every signal blocked whose handler
/// could fault or call the memory manager.
pub fn answer(mm: &Arc<Mm<LinuxMachine>>, fault: &HostFault) -> Answer {
    answer_by(&mm.space().core, fault, |fault| correct(mm, fault))
}

/// Takes a program's fault to its memory manager. The fault's addresses are logical.
pub fn correct(mm: &Arc<Mm<LinuxMachine>>, fault: &PageFault) -> Resolution {
    // Every fault here is a program's own: no kernel code has a fix-up.
    match mm.manager().page_fault(Some(mm), fault, &ExceptionTables::default()) {
        Verdict::Resume => Resolution::Resume,
        Verdict::Signal(Verdicts::Segv(SegvCode::MapErr)) => Resolution::Signal(Signal::NotMapped),
        Verdict::Signal(Verdicts::Segv(SegvCode::AccErr)) => Resolution::Signal(Signal::Forbidden),
        Verdict::Signal(Verdicts::Bus) => Resolution::Signal(Signal::NoContent),
        // The others are verdicts on a kernel's accesses, or on errata, which the host handles.
        Verdict::Signal(Verdicts::Illegal)
        | Verdict::OutOfMemory
        | Verdict::Fixup(_)
        | Verdict::Oops(_)
        | Verdict::Corrupt => Resolution::Kill,
    }
}

/// Answers a fault in a space; asks `pager` if our page table does not allow the access.
pub(crate) fn answer_by(
    space: &SpaceCore,
    fault: &HostFault,
    pager: impl Fn(&PageFault) -> Resolution,
) -> Answer {
    let shared = &*space.shared;
    shared.counters.add(Counter::Delivered, 1);
    if shared.delivery == Delivery::Inline && !context::tells_alone() {
        shared.streak.note(context::current());
    }
    if !space.host_range().contains(&fault.address) {
        return Answer::Signal(Signal::NotMapped);
    }
    let address = space.logical(fault.address);
    let Some(page) = space.page_of(address) else { return Answer::Signal(Signal::NotMapped) };
    let entry = space.table.entry(page);
    let is_permitted = permits(entry, fault.access);
    if is_permitted {
        shared.counters.add(Counter::Absorbed, 1);
    } else {
        match pager(&page_fault(space, page, address, fault)) {
            Resolution::Resume => {}
            Resolution::Signal(signal) => return Answer::Signal(signal),
            Resolution::Kill => return Answer::Short,
        }
    }
    if entry.frame().is_some() && !is_permitted {
        // The page was in memory and got more rights: nothing was brought ahead.
        return refill(space, page, fault.access);
    }
    if fault.access != Access::Execute && shared.refill_fresh(space, page) == Filled::Run {
        return Answer::Resume(Refilled::Changed);
    }
    let filled = match fault.access {
        Access::Execute => Filled::Nothing,
        Access::Read | Access::Write => shared.refill_parked(space, page),
    };
    refill_around(space, page);
    match filled {
        Filled::Run => Answer::Resume(Refilled::Changed),
        Filled::Nothing => refill(space, page, fault.access),
    }
}

/// Fills neighbours of a faulting page that were brought ahead and are not on the host yet. This
/// happens before the faulting page itself is filled, whose waiting thread would soon fault on
/// them.
fn refill_around(space: &SpaceCore, page: usize) {
    let after = page + 1..(page + 1 + AROUND).min(space.pages());
    let before = (page.saturating_sub(AROUND)..page).rev();
    let present = |next: usize| space.table.entry(next).frame().map(|frame| (next, frame));
    let refill = |(next, frame)| space.shared.refill_unplaced(space, next, frame);
    after.map_while(present).for_each(refill);
    before.map_while(present).for_each(refill);
}

/// Fills the host page from its current entry.
fn refill(space: &SpaceCore, page: usize, access: Access) -> Answer {
    match space.shared.refill(space, page, access) {
        Ok(refilled) => Answer::Resume(refilled),
        // The program unmapped the range, or is ending: the retried access will show it.
        Err(Errno::NOENT | Errno::SRCH) => Answer::Resume(Refilled::Unchanged),
        Err(Errno::NOBUFS) => Answer::Short,
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
    // Code and stack outside the window have no logical address. Zero is below every stack, so the
    // stack rule (spec A14) lets the access pass; it cannot apply to a program outside.
    let logical = |host: u64| {
        if space.host_range().contains(&host) { space.logical(host) } else { VirtAddr::ZERO }
    };
    let (ip, sp) = (logical(fault.ip), logical(fault.sp));
    PageFault { address, code, context: Context::MaySleep, ip, sp }
}
