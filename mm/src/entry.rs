//! The processor's fault entry: from an error code to a verdict (spec A4–A23).
//!
//! ```text
//! address ≥ TASK_SIZE ─── kernel-mode, not present, not reserved ── synchronised? ──► Resume
//!        │                                                             └── no ─┐
//!        │ user address                                                        ▼
//!        ├── reserved bit ─────────────────────────────────────────► Corrupt   bad area, MAPERR
//!        ├── may not sleep, or no address space ───────────────────► bad area, MAPERR
//!        ├── no region, and no stack that may grow ────────────────► bad area, MAPERR
//!        ├── the region forbids the access ────────────────────────► bad area, ACCERR
//!        └── corrected ────────────────────────────────────────────► Resume
//!              ├── no memory ──────────────────────────────────────► OutOfMemory
//!              └── past the end of the file, or unreadable ────────► SIGBUS
//!
//! bad area: an erratum of the processor's → Resume, or what it stands for
//!           user mode → SIGSEGV · kernel mode → exception table → Fixup, else Oops
//! ```
//!
//! Linux takes the lock on the address space here, but does not wait for it in a kernel fault
//! without a fixup (spec A12). This path has no such lock: it looks regions up and verifies them
//! later (see `mm.rs`).

use crate::error::Refusal;
use crate::exception::ExceptionTables;
use crate::machine::{Context, Erratum, ErrorCode, Machine, Mode, PAGE_SIZE, PageFault};
use crate::manager::Manager;
use crate::mm::Mm;
use alloc::sync::Arc;

pub use crate::verdict::{Oops, SegvCode, Signal, Verdict};

impl<M: Machine> Manager<M> {
    /// Decides a page fault, and corrects it if possible.
    ///
    /// `mm` is the address space of the running task, or `None` in a kernel thread. The machine has
    /// read the fault address before anything else could fault (spec A1), and has interrupts as the
    /// interrupted code had them (A9). Takes no lock for a kernel address (A4).
    pub fn page_fault(
        &self,
        mm: Option<&Arc<Mm<M>>>,
        fault: &PageFault,
        exceptions: &ExceptionTables,
    ) -> Verdict {
        let verdict = self.decide(mm, fault, exceptions);
        if verdict != Verdict::Resume {
            self.stats.of(&*self.machine).refused.add(&*self.machine, 1);
            self.observe(|| crate::event::Event::Refused {
                space: mm.map_or(0, |mm| mm.id),
                address: fault.address,
                verdict,
            });
        }
        verdict
    }

    fn decide(
        &self,
        mm: Option<&Arc<Mm<M>>>,
        fault: &PageFault,
        exceptions: &ExceptionTables,
    ) -> Verdict {
        let bad_area = |code| match self.machine.erratum(fault) {
            None => bad_area(fault, code, exceptions),
            Some(Erratum::Stray) => Verdict::Resume,
            Some(Erratum::IllegalInstruction) => Verdict::Signal(Signal::Illegal),
            Some(Erratum::LostHalf(whole)) => Verdict::Fixup(whole),
        };
        if fault.address >= self.machine.capabilities().task_size {
            let absent = ErrorCode::PROTECTION | ErrorCode::USER | ErrorCode::RESERVED;
            if !fault.code.intersects(absent) && self.machine.synchronise(fault.address) {
                return Verdict::Resume;
            }
            return bad_area(SegvCode::MapErr);
        }
        if fault.code.contains(ErrorCode::RESERVED) {
            return Verdict::Corrupt;
        }
        let Some(mm) = mm else { return bad_area(SegvCode::MapErr) };
        if fault.context == Context::Atomic {
            return bad_area(SegvCode::MapErr);
        }
        match mm.correct(fault.address, fault.access(), fault.code) {
            Ok(()) => Verdict::Resume,
            Err(Refusal::NoRegion | Refusal::Guard) => bad_area(SegvCode::MapErr),
            Err(Refusal::Forbidden) => bad_area(SegvCode::AccErr),
            Err(Refusal::Bus) => match fault.mode() {
                Mode::User => Verdict::Signal(Signal::Bus),
                Mode::Kernel => fixup_or(fault, exceptions, Oops::PagingRequest),
            },
            Err(Refusal::OutOfMemory) => match fault.mode() {
                Mode::User => Verdict::OutOfMemory,
                Mode::Kernel => fixup_or(fault, exceptions, Oops::OutOfMemory),
            },
        }
    }
}

/// A fault that cannot be corrected (spec A20, A21).
fn bad_area(fault: &PageFault, code: SegvCode, exceptions: &ExceptionTables) -> Verdict {
    match fault.mode() {
        Mode::User => Verdict::Signal(Signal::Segv(code)),
        Mode::Kernel if fault.address.value() < PAGE_SIZE => {
            fixup_or(fault, exceptions, Oops::NullPointer)
        }
        Mode::Kernel => fixup_or(fault, exceptions, Oops::PagingRequest),
    }
}

fn fixup_or(fault: &PageFault, exceptions: &ExceptionTables, oops: Oops) -> Verdict {
    exceptions.fixup(fault.ip).map_or(Verdict::Oops(oops), Verdict::Fixup)
}
