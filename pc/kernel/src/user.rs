//! The kernel's own accesses to a program's memory (spec H2–H4).
//!
//! The copy faults like the program's own accesses would. An address that no correction can help
//! leads, by the exception table, to instructions that find in RCX how much is left.

use crate::cpu;
use crate::errno::Errno;
use crate::layout::TASK_SIZE;
use alloc::vec::Vec;
use core::arch::global_asm;
use pagefault::exception::{ExceptionTable, ExceptionTables};
use pagefault::machine::VirtAddr;

/// The program's memory is not mapped for this access (`EFAULT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

unsafe extern "C" {
    fn user_copy(to: *mut u8, from: *const u8, n: usize) -> usize;
    fn user_compare_exchange(at: *mut u32, expected: u32, new: u32, found: &mut u32) -> u32;
    static exceptions_start: [u64; 2];
    static exceptions_end: [u64; 2];
}

global_asm!(
    "user_copy:",
    "mov rcx, rdx",
    "shr rcx, 3",
    "and edx, 7",
    "2: rep movsq",
    "mov ecx, edx",
    "3: rep movsb",
    "4: mov rax, rcx",
    "ret",
    // A word that cannot be copied whole is tried byte by byte, up to the byte that cannot.
    "5: lea rcx, [rdx + rcx * 8]",
    "jmp 3b",
    "user_compare_exchange:",
    "mov eax, esi",
    "6: lock cmpxchg dword ptr [rdi], edx",
    "mov dword ptr [rcx], eax",
    "xor eax, eax",
    "ret",
    "7: mov eax, 1",
    "ret",
    ".pushsection .exceptions, \"a\", @progbits",
    ".quad 2b, 5b, 3b, 4b, 6b, 7b",
    ".popsection",
);

/// Collects the kernel's exception table, which the linker put together.
pub fn exception_tables() -> ExceptionTables {
    let mut builder = ExceptionTable::builder();
    let mut pair = &raw const exceptions_start;
    while pair < &raw const exceptions_end {
        // SAFETY: between the two symbols the linker script puts pairs of addresses and nothing
        // else.
        let [ip, fixup] = unsafe { pair.read() };
        builder.add(VirtAddr(ip), VirtAddr(fixup));
        pair = pair.wrapping_add(1);
    }
    ExceptionTables::new(builder.build().expect("each instruction is listed once"))
}

/// Whether a range lies in the programs' part of the addresses (`access_ok`).
pub fn access_ok(address: u64, bytes: usize) -> bool {
    address.checked_add(bytes as u64).is_some_and(|end| end <= TASK_SIZE)
}

/// Copies into the program's memory; returns how many bytes could not be.
pub fn copy_to(address: u64, bytes: &[u8]) -> usize {
    if !access_ok(address, bytes.len()) {
        return bytes.len();
    }
    cpu::allow_user_access();
    // SAFETY: the source is a slice, and the target lies in user addresses, where nothing of the
    // kernel's is: a fault there ends the copy.
    let left = unsafe { user_copy(address as *mut u8, bytes.as_ptr(), bytes.len()) };
    cpu::forbid_user_access();
    left
}

/// Copies out of the program's memory; returns how many bytes could not be, which are zero then.
pub fn copy_from(address: u64, bytes: &mut [u8]) -> usize {
    if !access_ok(address, bytes.len()) {
        bytes.fill(0);
        return bytes.len();
    }
    cpu::allow_user_access();
    // SAFETY: the target is a slice, and the source lies in user addresses, where a fault ends the
    // copy; bytes that another thread changes meanwhile are valid whatever they are.
    let left = unsafe { user_copy(bytes.as_mut_ptr(), address as *const u8, bytes.len()) };
    cpu::forbid_user_access();
    let done = bytes.len() - left;
    bytes[done..].fill(0);
    left
}

/// Stores `new` in a word if it holds `expected`, in one step; returns what it held.
pub fn compare_exchange(address: u64, expected: u32, new: u32) -> Result<u32, BadAddress> {
    if !access_ok(address, 4) || !address.is_multiple_of(4) {
        return Err(BadAddress);
    }
    let mut found = 0;
    cpu::allow_user_access();
    // SAFETY: the word lies in user addresses, where a fault that nothing helps ends the exchange,
    // and `found` is ours.
    let failed = unsafe { user_compare_exchange(address as *mut u32, expected, new, &mut found) };
    cpu::forbid_user_access();
    if failed == 0 { Ok(found) } else { Err(BadAddress) }
}

/// Copies bytes in whole or fails.
pub fn write(address: u64, bytes: &[u8]) -> Result<(), BadAddress> {
    if copy_to(address, bytes) == 0 { Ok(()) } else { Err(BadAddress) }
}

/// Reads an array of bytes in whole or fails.
pub fn read<const N: usize>(address: u64) -> Result<[u8; N], BadAddress> {
    let mut bytes = [0; N];
    if copy_from(address, &mut bytes) == 0 { Ok(bytes) } else { Err(BadAddress) }
}

/// Reads a word.
pub fn read_u64(address: u64) -> Result<u64, BadAddress> {
    read(address).map(u64::from_le_bytes)
}

/// The most bytes of a path, with its end.
const PATH_LIMIT: usize = 4096;

/// Reads a path.
pub fn read_path(address: u64) -> Result<Vec<u8>, Errno> {
    read_string(address, PATH_LIMIT, Errno::ENAMETOOLONG)
}

/// Reads a string up to its zero byte, which is among `limit` bytes, or it is `too_long`.
pub fn read_string(address: u64, limit: usize, too_long: Errno) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    while text.len() < limit {
        let [byte] = read(address.checked_add(text.len() as u64).ok_or(BadAddress)?)?;
        if byte == 0 {
            return Ok(text);
        }
        text.push(byte);
    }
    Err(too_long)
}
