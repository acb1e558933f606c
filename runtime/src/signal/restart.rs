//! Restarts the instruction that faulted, without `rt_sigreturn`, which would cost a system call.
//!
//! A fault that is corrected changes nothing but memory: the context that the kernel gave to the handler
//! still has every register, and the mask of signals is the interrupted code's. So the registers are
//! loaded from there, and `iret` loads the last ones at once.

use crate::frame::{Context, Registers};
use crate::signal::deliver::{SEGMENTS, SEGMENTS_MASK};
use crate::site;
use crate::thread::Thread;
use core::arch::global_asm;
use core::mem::offset_of;

/// The offset of a register in a context.
const fn register(offset: usize) -> usize {
    offset_of!(Context, registers) + offset
}

global_asm!(
    // Loads the vector state of the context at rsp, and writes the frame of `iret` into the red zone below,
    // which a signal's frame skips.
    ".macro pagefault_prepare",
    "mov rcx, [rsp + {fpstate}]",
    "mov eax, -1",
    "mov edx, -1",
    "xrstor64 [rcx]",
    "mov rax, [rsp + {rip}]",
    "mov [rsp - 40], rax",
    "mov qword ptr [rsp - 32], {cs}",
    "mov rax, [rsp + {flags}]",
    "mov [rsp - 24], rax",
    "mov rax, [rsp + {rsp}]",
    "mov [rsp - 16], rax",
    "mov qword ptr [rsp - 8], {ss}",
    ".endm",
    ".macro pagefault_load",
    "mov rax, [rsp + {rax}]",
    "mov rbx, [rsp + {rbx}]",
    "mov rcx, [rsp + {rcx}]",
    "mov rdx, [rsp + {rdx}]",
    "mov rsi, [rsp + {rsi}]",
    "mov rdi, [rsp + {rdi}]",
    "mov rbp, [rsp + {rbp}]",
    "mov r8, [rsp + {r8}]",
    "mov r9, [rsp + {r9}]",
    "mov r10, [rsp + {r10}]",
    "mov r11, [rsp + {r11}]",
    "mov r12, [rsp + {r12}]",
    "mov r13, [rsp + {r13}]",
    "mov r14, [rsp + {r14}]",
    "mov r15, [rsp + {r15}]",
    "lea rsp, [rsp - 40]",
    ".endm",
    // The program goes on, unless a signal waits: rdi is the context, rsi the block.
    ".globl pagefault_restart",
    ".hidden pagefault_restart, pagefault_restart_check, pagefault_restart_last",
    ".hidden pagefault_restart_again, pagefault_restart_again_low",
    "pagefault_restart:",
    "mov rsp, rdi",
    "pagefault_prepare",
    "pagefault_restart_check:",
    "cmp dword ptr [rsi], 0",
    "jne pagefault_restart_again",
    "pagefault_load",
    "pagefault_restart_last:",
    "iretq",
    "pagefault_restart_again_low:",
    "lea rsp, [rsp + 40]",
    "pagefault_restart_again:",
    "jmp pagefault_return",
    // The runtime goes on. A pending signal stays pending until the outer call returns, with all others
    // blocked.
    ".globl pagefault_restart_ours",
    ".hidden pagefault_restart_ours",
    "pagefault_restart_ours:",
    "mov rsp, rdi",
    "pagefault_prepare",
    "pagefault_load",
    "iretq",
    cs = const SEGMENTS & 0xffff,
    ss = const SEGMENTS >> 48,
    fpstate = const register(offset_of!(Registers, fpstate)),
    rip = const register(offset_of!(Registers, rip)),
    rsp = const register(offset_of!(Registers, rsp)),
    flags = const register(offset_of!(Registers, eflags)),
    rax = const register(offset_of!(Registers, rax)),
    rbx = const register(offset_of!(Registers, rbx)),
    rcx = const register(offset_of!(Registers, rcx)),
    rdx = const register(offset_of!(Registers, rdx)),
    rsi = const register(offset_of!(Registers, rsi)),
    rdi = const register(offset_of!(Registers, rdi)),
    rbp = const register(offset_of!(Registers, rbp)),
    r8 = const register(offset_of!(Registers, r8)),
    r9 = const register(offset_of!(Registers, r9)),
    r10 = const register(offset_of!(Registers, r10)),
    r11 = const register(offset_of!(Registers, r11)),
    r12 = const register(offset_of!(Registers, r12)),
    r13 = const register(offset_of!(Registers, r13)),
    r14 = const register(offset_of!(Registers, r14)),
    r15 = const register(offset_of!(Registers, r15)),
);

unsafe extern "C" {
    fn pagefault_restart(context: *const Context, thread: *const u8) -> !;
    fn pagefault_restart_ours(context: *const Context) -> !;
    static pagefault_restart_check: u8;
    static pagefault_restart_last: u8;
    static pagefault_restart_again: u8;
    static pagefault_restart_again_low: u8;
}

/// The code that faulted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Faulted {
    Program,
    Runtime,
}

/// Continues the code that faulted. Returns only if this needs `rt_sigreturn`.
///
/// # Safety
/// The context must be unchanged since the kernel gave it to the running handler, whose action blocks no
/// signal.
pub unsafe fn restart(thread: &Thread, context: &Context, faulted: Faulted) {
    /// The flag of a nested task, with which `iret` fails.
    const NESTED: u64 = 1 << 14;
    let registers = &context.registers;
    let is_usual = registers.segments & SEGMENTS_MASK == SEGMENTS && registers.eflags & NESTED == 0;
    // SAFETY: the kernel wrote the state, on this stack; the caller vouches for the rest.
    unsafe {
        if !is_usual || !site::may_resume(registers) {
            return;
        }
        match faulted {
            Faulted::Program => pagefault_restart(context, core::ptr::from_ref(thread).cast()),
            Faulted::Runtime => pagefault_restart_ours(context),
        }
    }
}

/// Moves a thread whose signal must wait out of the window after the last check.
pub fn leave_window(registers: &mut Registers) {
    let (check, last) = (&raw const pagefault_restart_check, &raw const pagefault_restart_last);
    let again = if site::is_within(registers.rip, check, last) {
        &raw const pagefault_restart_again
    } else if registers.rip == last.addr() as u64 {
        &raw const pagefault_restart_again_low
    } else {
        return;
    };
    registers.rip = again.addr() as u64;
}
