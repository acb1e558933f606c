//! Calls of 32-bit programs (`int 0x80`), which 64-bit code can make too: they have other numbers,
//! and their arguments are the lower halves of other registers.

use crate::frame::Registers;
use linux_raw_sys::general as nr;

/// The calls with the same arguments in both forms, by their old numbers.
const SAME: [(u32, u32); 37] = [
    (1, nr::__NR_exit),
    (2, nr::__NR_fork),
    (3, nr::__NR_read),
    (4, nr::__NR_write),
    (5, nr::__NR_open),
    (6, nr::__NR_close),
    (8, nr::__NR_creat),
    (9, nr::__NR_link),
    (10, nr::__NR_unlink),
    (12, nr::__NR_chdir),
    (15, nr::__NR_chmod),
    (20, nr::__NR_getpid),
    (29, nr::__NR_pause),
    (33, nr::__NR_access),
    (36, nr::__NR_sync),
    (37, nr::__NR_kill),
    (38, nr::__NR_rename),
    (39, nr::__NR_mkdir),
    (40, nr::__NR_rmdir),
    (41, nr::__NR_dup),
    (42, nr::__NR_pipe),
    (45, nr::__NR_brk),
    (60, nr::__NR_umask),
    (63, nr::__NR_dup2),
    (64, nr::__NR_getppid),
    (83, nr::__NR_symlink),
    (85, nr::__NR_readlink),
    (91, nr::__NR_munmap),
    (125, nr::__NR_mprotect),
    (158, nr::__NR_sched_yield),
    (190, nr::__NR_vfork),
    (199, nr::__NR_getuid),
    (200, nr::__NR_getgid),
    (201, nr::__NR_geteuid),
    (202, nr::__NR_getegid),
    (224, nr::__NR_gettid),
    (252, nr::__NR_exit_group),
];

/// `mmap2`: its offset is in pages.
const MMAP2: u32 = 192;
const PAGE: u64 = crate::memory::PAGE;

/// The number and the arguments of the equivalent 64-bit call; `None` if there is none.
pub fn translate(registers: &Registers) -> Option<(u32, [u64; 6])> {
    let lower = |register: u64| u64::from(register as u32);
    let args =
        [registers.rbx, registers.rcx, registers.rdx, registers.rsi, registers.rdi, registers.rbp]
            .map(lower);
    let old = registers.rax as u32;
    if old == MMAP2 {
        let [start, len, prot, flags, file, offset] = args;
        let flags = flags | u64::from(nr::MAP_32BIT);
        return Some((nr::__NR_mmap, [start, len, prot, flags, file, offset * PAGE]));
    }
    let (_, number) = SAME.iter().find(|(number, _)| *number == old)?;
    Some((*number, args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_its_arguments_in_other_registers() {
        let registers = Registers {
            rax: 4,
            rbx: 0xffff_ffff_0000_0001,
            rcx: 0x40_0000,
            rdx: 12,
            ..Registers::default()
        };
        let write = Some((nr::__NR_write, [1, 0x40_0000, 12, 0, 0, 0]));
        assert_eq!(translate(&registers), write);
        let mmap = translate(&Registers { rax: 192, rbp: 3, ..Registers::default() });
        assert_eq!(mmap, Some((nr::__NR_mmap, [0, 0, 0, 0x40, 0, 3 * PAGE])));
        assert_eq!(translate(&Registers { rax: 174, ..Registers::default() }), None);
    }
}
