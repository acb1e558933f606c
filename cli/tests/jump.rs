//! A runtime that does nothing but jump to the program, for the tests of the command's side.
//!
//! `build.rs` compiles it, without the standard library.
#![no_std]
#![no_main]

use core::arch::{asm, naked_asm};
use core::panic::PanicInfo;

#[path = "../../control/src/boot.rs"]
mod boot;
use boot::Boot;

/// A word that needs a relocation: the address of another.
static MARK: u64 = 0x006b_7261_6d5f_6670;
static mut WHERE: &u64 = &MARK;

#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn pagefault_start(boot: &Boot) -> ! {
    naked_asm!("mov rbp, rdi", "call {check}", "mov rcx, [rbp + {ip}]", "mov rsp, [rbp + {sp}]",
        "xor eax, eax", "xor edi, edi", "xor esi, esi", "xor edx, edx", "xor ebp, ebp",
        "xor r8d, r8d", "xor r9d, r9d", "xor r10d, r10d", "xor r11d, r11d",
        "jmp rcx",
        check = sym check,
        ip = const core::mem::offset_of!(Boot, program_ip),
        sp = const core::mem::offset_of!(Boot, program_sp))
}

/// Exits with 99 where something is not as promised.
extern "C" fn check(boot: &Boot) {
    let here = check as *const () as u64;
    let sound = boot.text_start <= here
        && here < boot.text_start + boot.text_len
        && boot.image_start <= boot.text_start
        // SAFETY: nobody else uses it.
        && unsafe { core::ptr::read_volatile(*(&raw const WHERE)) } == MARK
        // SAFETY: the control memory begins with its layout.
        && unsafe { core::ptr::read_volatile(boot.control as *const u64) } == boot.magic
        && (boot as *const Boot as u64) < boot.stack_start + boot.stack_len
        && boot.stack_start < boot as *const Boot as u64;
    if !sound {
        // SAFETY: ends the process.
        unsafe { asm!("syscall", in("rax") 231, in("rdi") 99, options(noreturn)) }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: ends the process.
    unsafe { asm!("ud2", options(noreturn)) }
}
