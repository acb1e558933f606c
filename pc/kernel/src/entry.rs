//! The way into the kernel and back: exceptions, interrupts and system calls, in assembly.
//!
//! The compiled `core` keeps data below the stack pointer (the red zone) and uses vector registers.
//! So no exception may push anything onto the stack of interrupted kernel code: all enter on a
//! stack of their own (IST), where a few instructions move the frame to where it shall be: to the
//! task's kernel stack when it comes from a program, else below the interrupted code's red zone.
//! After that the IST stack is free again and the handler may fault, wait and be switched away
//! like any code. Interrupts are disabled until then.

use crate::layout::{STACK_BLOCK, STACKS};
use core::arch::global_asm;

/// What the interrupted code had in its registers; handlers change it, and it is loaded again.
#[repr(C, align(16))]
#[derive(Clone)]
#[allow(missing_docs, reason = "the registers' names say it")]
pub struct TrapFrame {
    /// The x87 and vector registers as `fxsave64` writes them.
    pub vectors: [u8; 512],
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    /// The exception or interrupt, or [`SYSTEM_CALL`].
    pub vector: u64,
    /// The processor's error code; of a system call its number.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// The number that stands for a system call in [`TrapFrame::vector`].
pub const SYSTEM_CALL: u64 = 256;

impl TrapFrame {
    /// Whether a program was interrupted, not the kernel.
    pub const fn is_user(&self) -> bool {
        self.cs & 3 == 3
    }
}

unsafe extern "C" {
    /// 256 entry points of 16 bytes each.
    pub safe static trap_stubs: u8;
    /// Where the `syscall` instruction goes.
    pub safe fn system_call_entry();
    /// Where a double fault goes.
    pub safe fn double_fault_entry();
    /// Loads the frame at the top of the stack.
    pub safe fn trap_return();
}

/// Leaves the kernel for what a frame says, for good: the kernel stack is used from its top again.
pub fn leave_kernel(frame: &TrapFrame) -> ! {
    // SAFETY: the frame is a copy on this stack or below it, and nothing of the stack is needed
    // once its registers are loaded; `trap_return` disables interrupts first.
    unsafe {
        core::arch::asm!("mov rsp, {}", "jmp {}", in(reg) core::ptr::from_ref(frame),
            sym trap_return, options(noreturn))
    }
}

global_asm!(
    ".globl trap_stubs, system_call_entry, double_fault_entry, trap_return",
    // Completes the frame below the vector's number, and makes it an argument.
    ".macro save_registers",
    "pushq %rcx; pushq %rdx; pushq %rbx; pushq %rbp; pushq %rsi; pushq %rdi",
    "pushq %r8; pushq %r9; pushq %r10; pushq %r11",
    "pushq %r12; pushq %r13; pushq %r14; pushq %r15",
    "subq $512, %rsp",
    "fxsave64 (%rsp)",
    "cld",
    "xorl %ebp, %ebp",
    "movq %rsp, %rdi",
    ".endm",
    ".balign 16",
    "trap_stubs:",
    ".set trap_number, 0",
    ".rept 256",
    ".balign 16",
    // These push an error code themselves.
    ".if (trap_number == 8) | ((trap_number >= 10) & (trap_number <= 14)) | (trap_number == 17) | (trap_number == 21) | (trap_number == 29) | (trap_number == 30)",
    ".else",
    "pushq $0",
    ".endif",
    "pushq $trap_number",
    "jmp trap_entry",
    ".set trap_number, trap_number + 1",
    ".endr",
    // On the IST stack: rcx, rax, vector, error, rip, cs, rflags, rsp, ss.
    ".balign 16",
    "trap_entry:",
    "pushq %rax",
    "pushq %rcx",
    "testb $3, 40(%rsp)",
    "jz 2f",
    "swapgs",
    "movq %gs:{stack}, %rax",
    "jmp 3f",
    "2:",
    "movq 56(%rsp), %rax",
    "subq $128, %rax",
    "andq $-16, %rax",
    // Where the frame would begin: in one of the stacks, and there in the half that is not mapped?
    "leaq -{frame}(%rax), %rcx",
    "shrq $39, %rcx",
    "cmpl ${stacks}, %ecx",
    "jne 3f",
    "leaq -{frame}(%rax), %rcx",
    "testl ${half}, %ecx",
    "jz 5f",
    "3:",
    "movq %rsp, %rcx",
    "movq %rax, %rsp",
    "pushq 64(%rcx); pushq 56(%rcx); pushq 48(%rcx); pushq 40(%rcx)",
    "pushq 32(%rcx); pushq 24(%rcx); pushq 16(%rcx); pushq 8(%rcx)",
    "movq (%rcx), %rcx",
    "save_registers",
    "call {trap}",
    "jmp trap_return",
    "5:",
    "movq %rsp, %rdi",
    "andq $-16, %rsp",
    "call {overflow}",
    "ud2",
    "trap_return:",
    "cli",
    "fxrstor64 (%rsp)",
    "addq $512, %rsp",
    "popq %r15; popq %r14; popq %r13; popq %r12",
    "popq %r11; popq %r10; popq %r9; popq %r8",
    "popq %rdi; popq %rsi; popq %rbp; popq %rbx; popq %rdx; popq %rcx; popq %rax",
    "addq $16, %rsp",
    "testb $3, 8(%rsp)",
    "jz 4f",
    "swapgs",
    "4:",
    "iretq",
    // From a program, with interrupts disabled: rcx is its rip and r11 its flags.
    ".balign 16",
    "system_call_entry:",
    "swapgs",
    "movq %rsp, %gs:{scratch}",
    "movq %gs:{stack}, %rsp",
    "pushq ${user_data}",
    "pushq %gs:{scratch}",
    "pushq %r11",
    "pushq ${user_code}",
    "pushq %rcx",
    "pushq %rax",
    "pushq ${system_call}",
    "pushq %rax",
    "save_registers",
    "call {answer}",
    "jmp trap_return",
    // Nothing is certain any more but this stack.
    ".balign 16",
    "double_fault_entry:",
    "movq %rsp, %rdi",
    "andq $-16, %rsp",
    "call {double_fault}",
    "ud2",
    stack = const crate::cpu::KERNEL_STACK,
    scratch = const crate::cpu::SCRATCH,
    user_data = const crate::cpu::USER_DATA,
    user_code = const crate::cpu::USER_CODE,
    system_call = const SYSTEM_CALL,
    trap = sym crate::trap::trap,
    answer = sym crate::trap::system_call,
    double_fault = sym crate::trap::double_fault,
    overflow = sym crate::trap::overflow,
    frame = const size_of::<TrapFrame>(),
    stacks = const STACKS.start >> 39,
    half = const STACK_BLOCK / 2,
    options(att_syntax),
);
