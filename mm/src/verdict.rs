//! The verdict on a fault: what the machine does with the interrupted code.

use crate::machine::VirtAddr;

/// Why an access is a segmentation violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegvCode {
    /// Nothing is mapped there (`SEGV_MAPERR`).
    MapErr,
    /// The mapping forbids the access (`SEGV_ACCERR`).
    AccErr,
}

/// A signal that the faulting task can neither block nor ignore (spec A20, A23).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// `SIGSEGV` with this code; `si_addr` is the faulting address.
    Segv(SegvCode),
    /// `SIGBUS` with `BUS_ADRERR`.
    Bus,
    /// `SIGILL`: the fault stood for an illegal instruction (spec A24).
    Illegal,
}

/// An unexpected fault in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Oops {
    /// An access in the first page.
    NullPointer,
    /// An access elsewhere.
    PagingRequest,
    /// The kernel ran out of memory on its own behalf.
    OutOfMemory,
}

/// What the machine does with the interrupted code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Repeat the instruction.
    Resume,
    /// Send the signal to the task.
    Signal(Signal),
    /// Continue at this address: the fixup of code that expected the access to fail, or the code's
    /// true place.
    Fixup(VirtAddr),
    /// There is no memory for the page, and nothing could be reclaimed: kill a task (spec A22).
    OutOfMemory,
    /// Report a bug of the kernel and kill the task.
    Oops(Oops),
    /// A page table is corrupted: report it and kill the task (spec A10).
    Corrupt,
}
