//! What a processor reports when it cannot translate an address.

use crate::VirtAddr;

bitflags::bitflags! {
    /// The error code that an x86 processor pushes with a page fault (spec A2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ErrorCode: u32 {
        /// The translation was present and forbade the access; clear: there was none. It matters to fetches with
        /// [`Rights::Implied`](crate::Rights::Implied), and to faults on kernel addresses.
        const PROTECTION = 1;
        /// The access was a store.
        const WRITE = 2;
        /// The access was made in user mode.
        const USER = 4;
        /// A reserved bit was set in a page table.
        const RESERVED = 8;
        /// The access was an instruction fetch; reported only with NX enabled.
        const FETCH = 16;
        /// A protection key forbade the access.
        const KEY = 32;
        /// The access was to a shadow stack.
        const SHADOW_STACK = 64;
    }
}

/// The kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

/// The privilege at which an access was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A program's own access.
    User,
    /// The kernel's access, its own or on a program's behalf.
    Kernel,
}

/// What the interrupted code allows its fault to do (spec A9, A11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Context {
    /// The code may sleep: a task with an address space, interrupts and page faults enabled.
    MaySleep,
    /// The code may not sleep: an interrupt, preemption or page faults disabled, or a kernel
    /// thread without an address space.
    Atomic,
}

/// A page fault as it crosses from a machine to the memory manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// The address that could not be translated (CR2 on x86).
    pub address: VirtAddr,
    /// The processor's error code.
    pub code: ErrorCode,
    /// Whether the interrupted code may sleep.
    pub context: Context,
    /// The address of the faulting instruction.
    pub ip: VirtAddr,
    /// The stack pointer of the interrupted code. Like today's Linux, the memory manager grows a stack
    /// without it (spec A14).
    pub sp: VirtAddr,
}

/// The erratum behind a fault that the program did not cause (spec A24).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Erratum {
    /// The instruction, a prefetch, must not fault: it runs again.
    Stray,
    /// The fault stands for the exception of an illegal instruction.
    IllegalInstruction,
    /// The instruction's address lost its upper half; this is the whole.
    LostHalf(VirtAddr),
}

impl PageFault {
    /// A fault of a user-mode program that may sleep, on an absent page, with [`ip`](Self::ip) and
    /// [`sp`](Self::sp) zero. If the page is present, add `PROTECTION` to the code.
    pub fn user(address: VirtAddr, access: Access) -> Self {
        let code = match access {
            Access::Read => ErrorCode::USER,
            Access::Write => ErrorCode::USER | ErrorCode::WRITE,
            Access::Execute => ErrorCode::USER | ErrorCode::FETCH,
        };
        let zero = VirtAddr::ZERO;
        Self { address, code, context: Context::MaySleep, ip: zero, sp: zero }
    }

    /// The kind of access that the error code names.
    pub const fn access(&self) -> Access {
        if self.code.contains(ErrorCode::WRITE) {
            Access::Write
        } else if self.code.contains(ErrorCode::FETCH) {
            Access::Execute
        } else {
            Access::Read
        }
    }

    /// The privilege at which the access was made.
    pub const fn mode(&self) -> Mode {
        if self.code.contains(ErrorCode::USER) { Mode::User } else { Mode::Kernel }
    }
}
