//! The ways in and out, in assembly: the start, the return from a signal, an interruptible system
//! call, the first step of a new thread, and copies that may fault.
//!
//! A signal may arrive at any of these instructions. Where it would be lost or not interrupt a
//! sleep, the handler moves the instruction pointer out of the critical *window*
//! ([`leave_window`]). The idea comes from musl's cancellation points.

use crate::frame::{Context, Frame, Registers};
use crate::thread::{BLOCK, Thread};
use core::arch::global_asm;

/// A call did not begin, since a signal had come before.
pub const NOT_STARTED: i64 = -513;
/// A signal interrupted a call that the kernel would have restarted (`ERESTARTSYS`).
pub const RESTART: i64 = -512;
/// A signal that does not concern the program interrupted a call, which must be restarted.
pub const RECLAIM_CAME: i64 = -514;

global_asm!(
    // From the supervisor, on the boot stack: rdi is the boot block.
    ".globl pagefault_start",
    ".type pagefault_start, @function",
    "pagefault_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {begin}",
    "ud2",
    ".size pagefault_start, . - pagefault_start",
    // Goes on with rdi at the stack pointer rsi, with the argument rdx.
    ".globl pagefault_go_on",
    ".hidden pagefault_go_on",
    "pagefault_go_on:",
    "mov rax, rdi",
    "mov rsp, rsi",
    "mov rdi, rdx",
    "call rax",
    "ud2",
    // The handlers begin here. The kernel leaves the program's alignment check on, with which ordinary
    // code of ours would fault.
    ".macro pagefault_handler name, handler",
    ".globl \\name",
    ".hidden \\name",
    "\\name:",
    "pushfq",
    "test dword ptr [rsp], {alignment_check}",
    "jnz 2f",
    "lea rsp, [rsp + 8]",
    "jmp \\handler",
    "2: and dword ptr [rsp], ~{alignment_check}",
    "popfq",
    "jmp \\handler",
    ".endm",
    "pagefault_handler pagefault_on_call, {on_call}",
    "pagefault_handler pagefault_on_absence, {on_absence}",
    "pagefault_handler pagefault_on_fault, {on_fault}",
    "pagefault_handler pagefault_on_signal, {on_signal}",
    // Where the handlers of calls and absent pages and the new threads return to; rsp is the context.
    ".globl pagefault_return",
    ".hidden pagefault_return, pagefault_return_check, pagefault_return_end, pagefault_return_again",
    "pagefault_return:",
    "mov rcx, rsp",
    "and rcx, -{block}",
    "pagefault_return_check:",
    "cmp dword ptr [rcx], 0",
    "jne pagefault_return_again",
    "mov eax, 15",
    "syscall",
    "pagefault_return_end:",
    "ud2",
    "pagefault_return_again:",
    "mov rdi, rsp",
    "call {deliver_pending}",
    "jmp pagefault_return",
    // Where the handlers return to during which every signal is blocked.
    ".globl pagefault_return_blocked",
    ".hidden pagefault_return_blocked",
    "pagefault_return_blocked:",
    "mov eax, 15",
    "syscall",
    "ud2",
    // The same from within a handler: rdi is its context.
    ".globl pagefault_leave",
    ".hidden pagefault_leave",
    "pagefault_leave:",
    "mov rsp, rdi",
    "jmp pagefault_return_blocked",
    // Continues the code that a frame describes: rdi is its context.
    ".globl pagefault_continue",
    ".hidden pagefault_continue",
    "pagefault_continue:",
    "mov rsp, rdi",
    "jmp pagefault_return",
    // An interruptible call: edi its number, rsi its six arguments, rdx the calling thread.
    ".globl pagefault_call",
    ".hidden pagefault_call, pagefault_call_check, pagefault_call_syscall, pagefault_call_end",
    ".hidden pagefault_call_not_started, pagefault_call_restart, pagefault_call_reclaim",
    "pagefault_call:",
    "push r12",
    "push r13",
    "mov r12, rdx",
    "mov r13, rsi",
    "mov eax, edi",
    "mov rdi, [r13]",
    "mov rsi, [r13 + 8]",
    "mov rdx, [r13 + 16]",
    "mov r10, [r13 + 24]",
    "mov r8, [r13 + 32]",
    "mov r9, [r13 + 40]",
    // The kernel leaves another value in rcx: so it is seen whether a call began.
    "xor ecx, ecx",
    "pagefault_call_check:",
    "cmp dword ptr [r12], 0",
    "jne pagefault_call_not_started",
    "pagefault_call_syscall:",
    "syscall",
    "pagefault_call_end:",
    "pop r13",
    "pop r12",
    "ret",
    "pagefault_call_not_started:",
    "mov rax, {not_started}",
    "jmp pagefault_call_end",
    "pagefault_call_restart:",
    "mov rax, {restart}",
    "jmp pagefault_call_end",
    "pagefault_call_reclaim:",
    "mov rax, {reclaim_came}",
    "jmp pagefault_call_end",
    // A call of the clone family that shares memory: edi its number, rsi its arguments, rdx what
    // the child is given: its first word is the function to begin with. The arguments name the
    // child's stack.
    ".globl pagefault_clone",
    ".hidden pagefault_clone",
    "pagefault_clone:",
    "push r12",
    "push r13",
    "mov r12, rdx",
    "mov r13, rsi",
    "mov eax, edi",
    "mov rdi, [r13]",
    "mov rsi, [r13 + 8]",
    "mov rdx, [r13 + 16]",
    "mov r10, [r13 + 24]",
    "mov r8, [r13 + 32]",
    "mov r9, [r13 + 40]",
    "syscall",
    "test rax, rax",
    "jz 2f",
    "pop r13",
    "pop r12",
    "ret",
    "2: xor ebp, ebp",
    "and rsp, -16",
    "mov rdi, r12",
    "call qword ptr [r12]",
    "ud2",
    // The end of a thread, which needs no stack any more: edi is the status.
    ".globl pagefault_exit_thread",
    ".hidden pagefault_exit_thread",
    "pagefault_exit_thread:",
    "mov eax, 60",
    "syscall",
    "ud2",
    // A copy that may fault: rdi to, rsi from, rdx bytes; returns the bytes that are left.
    ".globl pagefault_copy",
    ".hidden pagefault_copy, pagefault_copy_access, pagefault_copy_fixup",
    "pagefault_copy:",
    "mov rcx, rdx",
    "pagefault_copy_access:",
    // Keeps its progress in registers, so that a fault is exact to the byte.
    "rep movsb",
    "pagefault_copy_fixup:",
    "mov rax, rcx",
    "ret",
    // An exchange that may fault: rdi the word, esi what it should be, edx what it becomes; returns what it
    // was, or all ones.
    ".globl pagefault_exchange",
    ".hidden pagefault_exchange, pagefault_exchange_access, pagefault_exchange_fixup",
    "pagefault_exchange:",
    "mov eax, esi",
    "pagefault_exchange_access:",
    "lock cmpxchg dword ptr [rdi], edx",
    "mov eax, eax",
    "ret",
    "pagefault_exchange_fixup:",
    "mov rax, -1",
    "ret",
    alignment_check = const 1 << 18,
    on_call = sym crate::signal::on_call,
    on_absence = sym crate::signal::on_absence,
    on_fault = sym crate::signal::on_fault,
    on_signal = sym crate::signal::on_signal,
    begin = sym crate::start::begin,
    deliver_pending = sym crate::signal::deliver_pending,
    block = const BLOCK,
    not_started = const NOT_STARTED,
    restart = const RESTART,
    reclaim_came = const RECLAIM_CAME,
);

unsafe extern "C" {
    /// The handler of system calls.
    pub fn pagefault_on_call();
    /// The handler of accesses to absent pages.
    pub fn pagefault_on_absence();
    /// The handler of other faults.
    pub fn pagefault_on_fault();
    /// The handler of all other signals.
    pub fn pagefault_on_signal();
    /// Where the handlers of system calls and absent pages return to.
    pub fn pagefault_return();
    /// Where the other handlers return to.
    pub fn pagefault_return_blocked();
    fn pagefault_go_on(f: extern "C" fn(u64) -> !, stack: u64, given: u64) -> !;
    fn pagefault_leave(context: *const Context) -> !;
    fn pagefault_continue(context: *const Context) -> !;
    fn pagefault_call(number: u32, args: *const [u64; 6], thread: *const u8) -> i64;
    fn pagefault_clone(number: u32, args: *const [u64; 6], given: u64) -> i64;
    fn pagefault_exit_thread(status: u32) -> !;
    fn pagefault_copy(to: *mut u8, from: *const u8, len: usize) -> usize;
    fn pagefault_exchange(word: *mut u32, old: u32, new: u32) -> u64;
    static pagefault_return_check: u8;
    static pagefault_return_end: u8;
    static pagefault_return_again: u8;
    static pagefault_call_check: u8;
    static pagefault_call_syscall: u8;
    static pagefault_call_end: u8;
    static pagefault_call_not_started: u8;
    static pagefault_call_restart: u8;
    static pagefault_call_reclaim: u8;
    static pagefault_copy_access: u8;
    static pagefault_copy_fixup: u8;
    static pagefault_exchange_access: u8;
    static pagefault_exchange_fixup: u8;
}

fn at(label: *const u8) -> u64 {
    label as u64
}

/// Continues with `f` at another stack pointer, a multiple of 16.
///
/// # Safety
/// There is a stack below, used by no other code.
pub unsafe fn go_on(f: extern "C" fn(u64) -> !, stack: u64, given: u64) -> ! {
    // SAFETY: the caller vouches for the stack.
    unsafe { pagefault_go_on(f, stack, given) }
}

/// Makes an interruptible system call for the program: [`NOT_STARTED`], [`RESTART`], or what the
/// kernel returns.
///
/// # Safety
/// That of the call.
pub unsafe fn call(number: u32, args: &[u64; 6], thread: &Thread) -> i64 {
    // SAFETY: passed on to the caller.
    let mut raw = unsafe { call_once(number, args, thread) };
    while raw == RECLAIM_CAME {
        // SAFETY: passed on to the caller.
        raw = resumed(unsafe { call_once(number, args, thread) });
    }
    raw
}

/// What a call returns that was made again after [`RECLAIM_CAME`]. For the program it has begun long ago, so a signal
/// that came in between interrupts it.
pub fn resumed(raw: i64) -> i64 {
    if raw == NOT_STARTED { -i64::from(crate::sys::Errno::EINTR.0) } else { raw }
}

/// Like [`call`], but returns [`RECLAIM_CAME`] instead of restarting.
///
/// # Safety
/// That of the call.
pub unsafe fn call_once(number: u32, args: &[u64; 6], thread: &Thread) -> i64 {
    crate::keys::as_program(thread, || {
        // SAFETY: the arguments live for the call; the caller vouches for it.
        unsafe { pagefault_call(number, args, core::ptr::from_ref(thread).cast()) }
    })
}

/// The argument of a child that shares the memory: it begins with this function, which gets the
/// address of the whole.
pub type Begin = extern "C" fn(*const u8) -> !;

/// Makes a call of the clone family whose child begins on the stack that the arguments name, with
/// what is at `given`: a [`Begin`] first.
///
/// # Safety
/// The stack must be the child's alone, within a block of its own, and what is given the child's.
pub unsafe fn clone(number: u32, args: &[u64; 6], given: u64) -> i64 {
    // SAFETY: the arguments live for the call; the caller vouches for the stack.
    unsafe { pagefault_clone(number, args, given) }
}

/// Ends the calling thread.
pub fn exit_thread(status: u32) -> ! {
    // SAFETY: the call does not return, and needs no stack.
    unsafe { pagefault_exit_thread(status) }
}

/// Continues the code that a frame on this thread's own stack describes.
///
/// # Safety
/// The context must be within the thread's block, and describe code that may run.
pub unsafe fn resume(frame: *const Frame) -> ! {
    // SAFETY: the caller vouches for the frame.
    unsafe { pagefault_continue(&raw const (*frame).context) }
}

/// Returns from a handler at once, even if a signal waits for delivery.
///
/// # Safety
/// The context must be the one that the kernel gave to the running handler.
pub unsafe fn leave(context: *const Context) -> ! {
    // SAFETY: the caller vouches for the context.
    unsafe { pagefault_leave(context) }
}

/// Copies to or from the program's memory; returns the bytes that could not be copied.
///
/// # Safety
/// The runtime's own side must be valid for `len` bytes, and the program's must be its own.
pub unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> usize {
    // SAFETY: a fault on the program's side ends the copy.
    unsafe { pagefault_copy(to, from, len) }
}

/// Changes a word of the program's from `old` to `new`; returns its old value, or `None` if it may
/// not be accessed.
///
/// # Safety
/// The word must be the program's, and aligned.
pub unsafe fn exchange_if(word: *mut u32, old: u32, new: u32) -> Option<u32> {
    // SAFETY: a fault ends it.
    u32::try_from(unsafe { pagefault_exchange(word, old, new) }).ok()
}

/// Moves a thread that a signal interrupted out of a window in which the signal would be lost.
pub fn leave_window(registers: &mut Registers) {
    crate::site::leave_window(registers);
    crate::signal::leave_window(registers);
    let ip = registers.rip;
    let (check, call, end) = (
        at(&raw const pagefault_call_check),
        at(&raw const pagefault_call_syscall),
        at(&raw const pagefault_call_end),
    );
    if ip == call && registers.rcx != 0 {
        registers.rip = at(&raw const pagefault_call_restart);
    } else if (check..end).contains(&ip) {
        registers.rip = at(&raw const pagefault_call_not_started);
    }
    let (check, end) = (at(&raw const pagefault_return_check), at(&raw const pagefault_return_end));
    if (check..end).contains(&ip) {
        registers.rip = at(&raw const pagefault_return_again);
    }
}

/// Whether a thread waits in an interruptible call, or is about to make it, and so holds no lock.
pub fn is_in_call(registers: &Registers) -> bool {
    let window = at(&raw const pagefault_call_check)..=at(&raw const pagefault_call_end);
    window.contains(&registers.rip)
}

/// Repeats a call that a signal interrupted which does not concern the program, or notes that the call ended after a
/// part.
pub fn call_again(thread: &Thread, registers: &mut Registers) {
    let interrupted = -i64::from(crate::sys::Errno::EINTR.0);
    if registers.rip != at(&raw const pagefault_call_end) {
        return;
    }
    let raw = registers.rax as i64;
    if raw == interrupted {
        registers.rip = at(&raw const pagefault_call_reclaim);
    } else if raw > 0 {
        thread.is_cut.set(true);
    }
}

/// Continues a faulted access to the program's memory at its fixup; returns whether it was one.
pub fn fix_up(registers: &mut Registers) -> bool {
    let fixups = [
        (&raw const pagefault_copy_access, &raw const pagefault_copy_fixup),
        (&raw const pagefault_exchange_access, &raw const pagefault_exchange_fixup),
    ];
    let found = fixups.into_iter().find(|(access, _)| registers.rip == at(*access));
    if let Some((_, fixup)) = found {
        registers.rip = at(fixup);
    }
    found.is_some()
}
