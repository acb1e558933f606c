//! Guarded accesses: loads, stores and fetches that report a signal instead of raising it.
//!
//! A small counterpart of the kernel's exception table (spec H1): a fault of one of the two
//! instructions below continues at its fix-up address if the memory manager's answer is a signal.

use super::Signal;
use crate::space::LinuxSpace;
use core::fmt;
use pagefault_machine::VirtAddr;

/// An access that raised a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faulted {
    /// The signal.
    pub signal: Signal,
    /// The signal's address.
    pub address: VirtAddr,
    /// The bytes transferred before.
    pub done: usize,
}

impl fmt::Display for Faulted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { signal, address, done } = self;
        write!(
            f,
            "the access at {address:?} raised a signal ({signal:?}), {done} bytes after its start"
        )
    }
}

impl core::error::Error for Faulted {}

impl LinuxSpace {
    /// Loads bytes as a program would, in ascending order.
    ///
    /// An address outside the space's window is [`Signal::NotMapped`]. An identity space has no
    /// window: its memory is the program's own.
    pub fn load(&self, address: VirtAddr, bytes: &mut [u8]) -> Result<(), Faulted> {
        self.transfer(address, bytes.len(), |host, len| {
            // SAFETY: `bytes` has room for `len`; the source is in our window, where a fault that
            // is a signal ends the copy. Other threads may store there: this is a load of raw
            // bytes by machine code, as theirs are.
            unsafe { guarded_copy(bytes.as_mut_ptr(), host, len) }
        })
    }

    /// Stores bytes as a program would, in ascending order.
    pub fn store(&self, address: VirtAddr, bytes: &[u8]) -> Result<(), Faulted> {
        self.transfer(address, bytes.len(), |host, len| {
            // SAFETY: as in `load`, with the target in our window; whoever holds references into
            // the window answers for them.
            unsafe { guarded_copy(host, bytes.as_ptr(), len) }
        })
    }

    /// Executes the instructions at an address, which must return at once like a function.
    ///
    /// # Safety
    /// The code there must be a function without arguments that keeps the C calling convention.
    pub unsafe fn fetch(&self, address: VirtAddr) -> Result<(), Faulted> {
        self.transfer(address, 1, |host, _| {
            let mut fault = RawFault::NONE;
            // SAFETY: the caller vouches for the code; if it cannot be fetched the call is undone.
            unsafe { pagefault_guarded_call(host, &mut fault) };
            (if fault.signal == 0 { 0 } else { 1 }, fault)
        })
    }

    /// Accesses the part of `len` bytes from `address` that the space covers.
    fn transfer(
        &self,
        address: VirtAddr,
        len: usize,
        access: impl FnOnce(*mut u8, usize) -> (usize, RawFault),
    ) -> Result<(), Faulted> {
        let outside = Faulted { signal: Signal::NotMapped, address, done: 0 };
        if self.core.is_identity() {
            return Err(outside);
        }
        let host = self.host_address(address).ok_or(outside)?;
        let inside = len.min((self.range().end - address) as usize);
        let (left, fault) = access(host, inside);
        let done = inside - left;
        if fault.signal != 0 {
            let signal = Signal::from_numbers(fault.signal, fault.code);
            return Err(Faulted { signal, address: self.core.logical(fault.address), done });
        }
        if done < len {
            return Err(Faulted { address: self.range().end, done, ..outside });
        }
        Ok(())
    }
}

/// The handler's report to the guarded code.
#[repr(C)]
struct RawFault {
    signal: i32,
    code: i32,
    address: u64,
}

impl RawFault {
    const NONE: Self = Self { signal: 0, code: 0, address: 0 };
}

/// Copies until the end or a signal; returns the bytes left and the fault.
///
/// # Safety
/// One of the sides may be managed memory, the other must be accessible for `len` bytes.
unsafe fn guarded_copy(to: *mut u8, from: *const u8, len: usize) -> (usize, RawFault) {
    let mut fault = RawFault::NONE;
    // SAFETY: the caller vouches for the two sides.
    let left = unsafe { pagefault_guarded_copy(to, from, len, &mut fault) };
    (left, fault)
}

/// The registers of interrupted code.
pub(super) type Registers = [libc::greg_t; 23];

/// Continues guarded code that raised a signal at its fix-up. Returns false if the interrupted code
/// is not guarded.
pub(super) fn fix_up(registers: &mut Registers, signal: Signal, address: u64) -> bool {
    let ip = registers[libc::REG_RIP as usize];
    let fault = if ip == label(&raw const pagefault_guarded_copy_access) {
        registers[libc::REG_RIP as usize] = label(&raw const pagefault_guarded_copy_fixup);
        registers[libc::REG_R8 as usize]
    } else if ip as u64 == address && called_by_guard(registers) {
        registers[libc::REG_RIP as usize] = label(&raw const pagefault_guarded_call_return);
        registers[libc::REG_RSP as usize] += 8;
        registers[libc::REG_RBX as usize]
    } else {
        return false;
    };
    let (signal, code) = signal.numbers();
    // SAFETY: at both places that register holds the `RawFault` that the guarded function was
    // given, on the interrupted thread's stack.
    unsafe { (fault as *mut RawFault).write(RawFault { signal, code, address }) };
    true
}

/// Whether [`pagefault_guarded_call`] called the code that could not be fetched.
fn called_by_guard(registers: &Registers) -> bool {
    let sp = registers[libc::REG_RSP as usize] as *const i64;
    // SAFETY: this handler runs on behalf of the interrupted thread. A stack pointer that is not
    // one would fault here, and the process dies of the signal, as it was about to.
    unsafe { sp.read() == label(&raw const pagefault_guarded_call_return) }
}

fn label(label: *const u8) -> i64 {
    label as i64
}

unsafe extern "C" {
    fn pagefault_guarded_copy(
        to: *mut u8,
        from: *const u8,
        len: usize,
        fault: *mut RawFault,
    ) -> usize;
    fn pagefault_guarded_call(code: *mut u8, fault: *mut RawFault);
    static pagefault_guarded_copy_access: u8;
    static pagefault_guarded_copy_fixup: u8;
    static pagefault_guarded_call_return: u8;
}

core::arch::global_asm!(
    ".globl pagefault_guarded_copy, pagefault_guarded_copy_access, pagefault_guarded_copy_fixup",
    ".hidden pagefault_guarded_copy, pagefault_guarded_copy_access, pagefault_guarded_copy_fixup",
    ".type pagefault_guarded_copy, @function",
    "pagefault_guarded_copy:",
    // `rep movsb` keeps its progress in registers, so that a fault is exact to the byte.
    "mov r8, rcx",
    "mov rcx, rdx",
    "pagefault_guarded_copy_access:",
    "rep movsb",
    "pagefault_guarded_copy_fixup:",
    "mov rax, rcx",
    "ret",
    ".size pagefault_guarded_copy, . - pagefault_guarded_copy",
    ".globl pagefault_guarded_call, pagefault_guarded_call_return",
    ".hidden pagefault_guarded_call, pagefault_guarded_call_return",
    ".type pagefault_guarded_call, @function",
    "pagefault_guarded_call:",
    "push rbx",
    "mov rbx, rsi",
    "call rdi",
    "pagefault_guarded_call_return:",
    "pop rbx",
    "ret",
    ".size pagefault_guarded_call, . - pagefault_guarded_call",
);
