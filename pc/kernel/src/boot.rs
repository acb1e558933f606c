//! From the loader to Rust: QEMU starts the kernel in 32-bit mode without paging (PVH), with the
//! physical address of its start information in EBX.
//!
//! The first page table maps the lowest gigabyte of memory twice, where it is and at
//! [`KERNEL_BASE`](crate::layout::KERNEL_BASE); the kernel replaces it as soon as it can
//! (`layout.rs`, `direct.rs`). The other CPUs wake up in 16-bit mode at an address below 1 MiB,
//! where [`trampoline`] was copied (`smp.rs`), and join the same way with 0 in place of the start
//! information.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use pagefault::machine::Frame;

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    safe static boot_next: [AtomicU64; 2];
}

/// Sets the page table that the next CPU begins with, and the top of its stack.
pub fn prepare(root: Frame, stack: u64) {
    boot_next[0].store(stack, Ordering::Relaxed);
    boot_next[1].store(u64::from(root.0) << 12, Ordering::Release);
}

/// The 16-bit code with which a CPU begins, wherever it is copied below 1 MiB.
pub fn trampoline() -> &'static [u8] {
    let (start, end) = (&raw const trampoline_start, &raw const trampoline_end);
    // SAFETY: both symbols are of the code below, one before and one behind it.
    unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

global_asm!(
    // The note by which the loader knows the 32-bit entry point (XEN_ELFNOTE_PHYS32_ENTRY).
    ".pushsection .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long pvh_start - {base}",
    ".popsection",
    ".pushsection .boot, \"ax\", @progbits",
    ".code32",
    ".globl pvh_start, boot_next, trampoline_start, trampoline_end",
    "pvh_start:",
    "cld",
    "mov esi, ebx",
    // 512 pages of 2 MiB, present and writable.
    "mov edi, offset boot_directory - {base}",
    "mov eax, 0x83",
    "2:",
    "mov [edi], eax",
    "add edi, 8",
    "add eax, 0x200000",
    "cmp eax, 0x40000000",
    "jb 2b",
    "mov eax, offset boot_directory - {base}",
    "or eax, 3",
    "mov edi, offset boot_pointers - {base}",
    "mov [edi], eax",
    "mov [edi + 510 * 8], eax",
    "mov eax, edi",
    "or eax, 3",
    "mov edi, offset boot_root - {base}",
    "mov [edi], eax",
    "mov [edi + 511 * 8], eax",
    // With the page table there, the same for every CPU.
    "boot_paging:",
    "mov edi, offset boot_root - {base}",
    "mov cr3, edi",
    // CR4: PAE, PGE, OSFXSR, OSXMMEXCPT.
    "mov eax, cr4",
    "or eax, 0x6a0",
    "mov cr4, eax",
    // EFER: SCE, LME, NXE.
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x901",
    "wrmsr",
    // CR0: PG, WP, NE, MP, PE; not CD, NW, EM, TS.
    "mov eax, cr0",
    "and eax, 0x9ffffff3",
    "or eax, 0x80010023",
    "mov cr0, eax",
    "lgdt [boot_gdt_pointer - {base}]",
    "jmp fword ptr [boot_long_pointer - {base}]",
    ".code64",
    "boot_long:",
    "movabs rax, offset boot_high",
    "jmp rax",
    "boot_high:",
    "xor eax, eax",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "mov fs, ax",
    "mov gs, ax",
    "movabs rax, offset boot_next",
    "mov rcx, [rax + 8]",
    "mov cr3, rcx",
    "mov rsp, [rax]",
    "xor ebp, ebp",
    "mov edi, esi",
    "test edi, edi",
    "jz 3f",
    "call kernel_main",
    "ud2",
    "3:",
    "call {other}",
    "ud2",
    // Copied to a page below 1 MiB, at whose beginning a CPU starts with CS naming the page.
    ".code16",
    "trampoline_start:",
    "cli",
    "cld",
    "mov ax, cs",
    "mov ds, ax",
    // With the prefix, the table's address has 32 bits.
    ".byte 0x66",
    "lgdt [trampoline_table]",
    // CR0: PE.
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    // A far jump to an address of 32 bits, with the 32-bit code selector.
    ".byte 0x66, 0xea",
    ".long boot_other - {base}",
    ".word 0x18",
    "boot_gdt_pointer_low:",
    ".word 31",
    ".long boot_gdt - {base}",
    "trampoline_end:",
    ".set trampoline_table, boot_gdt_pointer_low - trampoline_start",
    ".code32",
    "boot_other:",
    "mov ax, 0x10",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "xor esi, esi",
    "jmp boot_paging",
    ".balign 8",
    // Null, 64-bit code, data, 32-bit code.
    "boot_gdt:",
    ".quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cf9a000000ffff",
    "boot_gdt_pointer:",
    ".word 31",
    ".long boot_gdt - {base}",
    "boot_long_pointer:",
    ".long boot_long - {base}",
    ".word 8",
    ".code64",
    ".popsection",
    ".pushsection .data.boot, \"aw\", @progbits",
    ".balign 8",
    "boot_next: .quad boot_stack_top, boot_root - {base}",
    ".popsection",
    ".pushsection .bss.boot, \"aw\", @nobits",
    ".balign 4096",
    "boot_root: .skip 4096",
    "boot_pointers: .skip 4096",
    "boot_directory: .skip 4096",
    ".skip 65536",
    "boot_stack_top:",
    ".popsection",
    base = const crate::layout::KERNEL_BASE,
    other = sym crate::smp::other_main,
);
