//! Why a thread was trapped the last time, as its handlers are told (spec A20), and which signal that is.

use crate::entry::TrapFrame;
use crate::layout::TASK_SIZE;
use crate::signal::{SI_KERNEL, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// Set in the error code of a page fault where the entry was present.
const PRESENT: u64 = 1;

/// The exception, its error code and `CR2` of the last trap that became a signal: the handlers of later signals
/// find them in `struct sigcontext` too. The thread itself changes and reads them.
#[derive(Default)]
pub struct Cause {
    trap: AtomicU64,
    error: AtomicU64,
    address: AtomicU64,
}

impl Cause {
    /// Notes a page fault. Of a kernel address every entry seems present: which are is the kernel's secret.
    pub fn note_page_fault(&self, frame: &TrapFrame, address: u64) {
        let present = if address >= TASK_SIZE { PRESENT } else { 0 };
        self.trap.store(frame.vector, Relaxed);
        self.error.store(frame.error | present, Relaxed);
        self.address.store(address, Relaxed);
    }

    /// Notes another exception, which leaves the address as it was.
    pub fn note_exception(&self, frame: &TrapFrame) {
        self.trap.store(frame.vector, Relaxed);
        self.error.store(frame.error, Relaxed);
    }

    /// The error code, the exception and the address, in the order of `struct sigcontext`, where the mask stands
    /// between the last two.
    pub fn words(&self) -> [u64; 3] {
        [&self.error, &self.trap, &self.address].map(|word| word.load(Relaxed))
    }
}

/// The signal of an exception that is no page fault: its number, `si_code` and `si_addr`.
pub fn of_exception(frame: &TrapFrame) -> (u32, i32, u64) {
    const DIVISION: i32 = 1;
    const STEP: i32 = 1;
    const OPERAND: i32 = 2;
    match frame.vector {
        0 => (SIGFPE, DIVISION, frame.rip),
        1 => (SIGTRAP, STEP, frame.rip),
        3 => (SIGTRAP, SI_KERNEL, 0),
        6 => (SIGILL, OPERAND, frame.rip),
        // A segment that is not present, and the stack's.
        11 | 12 => (SIGBUS, SI_KERNEL, 0),
        16 | 19 => (SIGFPE, arithmetic(frame), frame.rip),
        _ => (SIGSEGV, SI_KERNEL, 0),
    }
}

/// `si_code` of an exception of the x87 unit or of SSE: the first that happened and is not masked.
fn arithmetic(frame: &TrapFrame) -> i32 {
    let word = |at: usize| u16::from_le_bytes([frame.vectors[at], frame.vectors[at + 1]]);
    let (control, status, mxcsr) = (word(0), word(2), word(24));
    let raised = if frame.vector == 16 { status & !control } else { mxcsr & !(mxcsr >> 7) };
    match () {
        () if raised & 0x01 != 0 => 7,
        () if raised & 0x04 != 0 => 3,
        () if raised & 0x08 != 0 => 4,
        () if raised & 0x12 != 0 => 5,
        () if raised & 0x20 != 0 => 6,
        () => SI_KERNEL,
    }
}
