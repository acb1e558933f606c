//! The way from a stub into the runtime and back: a call without a trap.
//!
//! The program's registers are kept in the thread's block, and the runtime runs on the block's stack,
//! as in a signal handler. What a call cannot do without a signal's frame goes back to the stub, to
//! trap: calls about signals and tasks, filters, and the way out when a signal waits.
//!
//! A signal may arrive at any instruction. While the stack pointer is the program's, its handler
//! begins as if it had come just before the call or just behind it ([`shown`]). Otherwise it waits,
//! and the way out traps; between the last look and the program's stack pointer there is a window
//! as in `entry` ([`leave_window`]).

use super::stub::Record;
use crate::call;
use crate::entry::NOT_STARTED;
use crate::frame::{Context, Registers, fpstate_len};
use crate::signal;
use crate::thread::{BLOCK, Thread};
use core::arch::{asm, global_asm};
use core::cell::{Cell, UnsafeCell};
use core::mem::offset_of;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;

/// What a block's address is marked with in `tag`: the program's own data where its `gs` leads will
/// not be its address plus this.
pub const TAG: i32 = 0x2e6b_91d3;
/// Where the tag is, from the base of `gs`.
pub const TAG_AT: u32 = at(offset_of!(State, tag));

const fn at(offset: usize) -> u32 {
    (offset_of!(Thread, site) + offset) as u32
}

/// Where a register is in a context.
const fn register(offset: usize) -> usize {
    offset_of!(Context, registers) + offset
}

/// What belongs to a thread that calls by stubs.
#[repr(C, align(16))]
pub struct State {
    /// The program's vector registers; only the lower 128 bits are ever used here.
    vectors: UnsafeCell<[u128; 16]>,
    /// The block's address, marked.
    tag: Cell<u64>,
    rax: Cell<u64>,
    rdi: Cell<u64>,
    rsi: Cell<u64>,
    rdx: Cell<u64>,
    r10: Cell<u64>,
    r8: Cell<u64>,
    r9: Cell<u64>,
    rsp: Cell<u64>,
    flags: Cell<u64>,
    /// Where the stub goes on.
    next: Cell<u64>,
    /// Where it traps.
    slow: Cell<u64>,
    /// Whether the trap to come ends a call that was made.
    is_finish: Cell<u64>,
    number: Cell<u64>,
    /// What the call is to end with, as [`signal::end_call`] takes it.
    raw: Cell<i64>,
    /// The mask that the program's thread had when a signal began to wait; `None` while none waits.
    mask: Cell<Option<u64>>,
    /// What the calls are given that look at no context.
    context: UnsafeCell<Context>,
    /// The context of a call that trapped, and whose way out is under way.
    trapped: Cell<u64>,
}

impl State {
    /// Of a thread whose block is at an address.
    pub fn new(block: u64) -> Self {
        let zero = || Cell::new(0);
        Self {
            vectors: UnsafeCell::new([0; 16]),
            tag: Cell::new(block.wrapping_add(TAG as u64)),
            rax: zero(),
            rdi: zero(),
            rsi: zero(),
            rdx: zero(),
            r10: zero(),
            r8: zero(),
            r9: zero(),
            rsp: zero(),
            flags: zero(),
            next: zero(),
            slow: zero(),
            is_finish: zero(),
            number: zero(),
            raw: Cell::new(0),
            mask: Cell::new(None),
            context: UnsafeCell::new(Context::default()),
            trapped: zero(),
        }
    }

    /// Notes the mask that a thread has that is about to block every signal.
    pub fn note_mask(&self, mask: u64) {
        let all = signal::Set(signal::ALL).blockable().0;
        if mask & all != all {
            self.mask.set(Some(mask));
        }
    }

    /// Forgets it, once the signal is on its way to the program. Until then every other is blocked.
    pub fn forget_mask(&self) {
        self.mask.set(None);
    }
}

/// The trap flag, the direction flag and the check of alignment: the runtime does not run with them.
const UNUSUAL: u32 = 1 << 8 | 1 << 10 | 1 << 18;
/// The stack begins below this, from the block's end.
const TOP: usize = 64;

global_asm!(
    // From a stub: r11 is the block plus TAG, rcx where the stub goes on.
    ".globl pagefault_site",
    ".hidden pagefault_site, pagefault_site_on, pagefault_site_check, pagefault_site_again",
    ".hidden pagefault_site_left, pagefault_site_end",
    "pagefault_site:",
    "lea r11, [r11 - {tag}]",
    "mov [r11 + {rsp}], rsp",
    "lea rsp, [r11 + {block} - {top}]",
    "pagefault_site_on:",
    "mov [r11 + {rax}], rax",
    "mov [r11 + {rdi}], rdi",
    "mov [r11 + {rsi}], rsi",
    "mov [r11 + {rdx}], rdx",
    "mov [r11 + {r10}], r10",
    "mov [r11 + {r8}], r8",
    "mov [r11 + {r9}], r9",
    "mov [r11 + {next}], rcx",
    "pushfq",
    "pop rcx",
    "mov [r11 + {flags}], rcx",
    ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "movaps [r11 + {vectors} + 16 * \\i], xmm\\i",
    ".endr",
    "mov rdi, r11",
    "and rcx, {unusual}",
    "jnz 2f",
    "call {make}",
    "jmp 3f",
    // The flags are the runtime's own from here on.
    "2: push 2",
    "popfq",
    "call {refuse}",
    "3: mov r11, rsp",
    "and r11, -{block}",
    "pagefault_site_check:",
    "cmp dword ptr [r11], 0",
    "jne pagefault_site_again",
    "mov rcx, [r11 + {next}]",
    "4:",
    ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "movaps xmm\\i, [r11 + {vectors} + 16 * \\i]",
    ".endr",
    "mov rdi, [r11 + {rdi}]",
    "mov rsi, [r11 + {rsi}]",
    "mov rdx, [r11 + {rdx}]",
    "mov r10, [r11 + {r10}]",
    "mov r8, [r11 + {r8}]",
    "mov r9, [r11 + {r9}]",
    "mov rax, [r11 + {rax}]",
    "push qword ptr [r11 + {flags}]",
    "popfq",
    "mov rsp, [r11 + {rsp}]",
    "pagefault_site_left:",
    "jmp rcx",
    "pagefault_site_end:",
    // A signal waits: the way out is by a trap, whose frame the program's handler needs.
    "pagefault_site_again:",
    "mov r11, rsp",
    "and r11, -{block}",
    "lea rsp, [r11 + {block} - {top}]",
    "mov qword ptr [r11 + {is_finish}], 1",
    // Any number: the kernel would take what some results are for a call to be begun again.
    "mov qword ptr [r11 + {rax}], {any}",
    "mov rcx, [r11 + {slow}]",
    "jmp 4b",
    // The end of a call that trapped: rdi is its context, rsi the block.
    ".globl pagefault_resume",
    ".hidden pagefault_resume, pagefault_resume_check, pagefault_resume_again",
    ".hidden pagefault_resume_left, pagefault_resume_end",
    "pagefault_resume:",
    "mov rsp, rdi",
    "mov r11, rsi",
    "mov [r11 + {trapped}], rdi",
    "mov rcx, [rdi + {fpstate}]",
    "mov eax, -1",
    "mov edx, -1",
    "xrstor64 [rcx]",
    "mov rcx, rdi",
    "pagefault_resume_check:",
    "cmp dword ptr [r11], 0",
    "jne pagefault_resume_again",
    "mov rbx, [rcx + {c_rbx}]",
    "mov rbp, [rcx + {c_rbp}]",
    "mov r12, [rcx + {c_r12}]",
    "mov r13, [rcx + {c_r13}]",
    "mov r14, [rcx + {c_r14}]",
    "mov r15, [rcx + {c_r15}]",
    "mov rdi, [rcx + {c_rdi}]",
    "mov rsi, [rcx + {c_rsi}]",
    "mov rdx, [rcx + {c_rdx}]",
    "mov r10, [rcx + {c_r10}]",
    "mov r8, [rcx + {c_r8}]",
    "mov r9, [rcx + {c_r9}]",
    "mov rax, [rcx + {c_rax}]",
    "push qword ptr [rcx + {c_flags}]",
    "popfq",
    // Behind a call rcx and r11 mean nothing.
    "mov r11, [rcx + {c_rip}]",
    "mov rsp, [rcx + {c_rsp}]",
    "pagefault_resume_left:",
    "jmp r11",
    "pagefault_resume_end:",
    "pagefault_resume_again:",
    "mov r11, rsp",
    "and r11, -{block}",
    "mov rsp, [r11 + {trapped}]",
    "jmp pagefault_return",
    block = const BLOCK,
    top = const TOP,
    any = const nr::__NR_getpid,
    tag = const TAG,
    unusual = const UNUSUAL,
    vectors = const at(offset_of!(State, vectors)),
    rax = const at(offset_of!(State, rax)),
    rdi = const at(offset_of!(State, rdi)),
    rsi = const at(offset_of!(State, rsi)),
    rdx = const at(offset_of!(State, rdx)),
    r10 = const at(offset_of!(State, r10)),
    r8 = const at(offset_of!(State, r8)),
    r9 = const at(offset_of!(State, r9)),
    rsp = const at(offset_of!(State, rsp)),
    flags = const at(offset_of!(State, flags)),
    next = const at(offset_of!(State, next)),
    slow = const at(offset_of!(State, slow)),
    is_finish = const at(offset_of!(State, is_finish)),
    trapped = const at(offset_of!(State, trapped)),
    fpstate = const register(offset_of!(Registers, fpstate)),
    c_rbx = const register(offset_of!(Registers, rbx)),
    c_rbp = const register(offset_of!(Registers, rbp)),
    c_r12 = const register(offset_of!(Registers, r12)),
    c_r13 = const register(offset_of!(Registers, r13)),
    c_r14 = const register(offset_of!(Registers, r14)),
    c_r15 = const register(offset_of!(Registers, r15)),
    c_rdi = const register(offset_of!(Registers, rdi)),
    c_rsi = const register(offset_of!(Registers, rsi)),
    c_rdx = const register(offset_of!(Registers, rdx)),
    c_r10 = const register(offset_of!(Registers, r10)),
    c_r8 = const register(offset_of!(Registers, r8)),
    c_r9 = const register(offset_of!(Registers, r9)),
    c_rax = const register(offset_of!(Registers, rax)),
    c_rip = const register(offset_of!(Registers, rip)),
    c_rsp = const register(offset_of!(Registers, rsp)),
    c_flags = const register(offset_of!(Registers, eflags)),
    make = sym make,
    refuse = sym refuse,
);

unsafe extern "C" {
    fn pagefault_site();
    static pagefault_site_on: u8;
    static pagefault_site_check: u8;
    static pagefault_site_again: u8;
    static pagefault_site_left: u8;
    static pagefault_site_end: u8;
    fn pagefault_resume(context: *const Context, thread: *const u8) -> !;
    static pagefault_resume_check: u8;
    static pagefault_resume_again: u8;
    static pagefault_resume_left: u8;
    static pagefault_resume_end: u8;
}

/// The way in.
pub fn address() -> u64 {
    pagefault_site as *const () as u64
}

/// Makes the call of a stub.
extern "C" fn make(thread: &Thread) {
    let state = &thread.site;
    let number = state.rax.get();
    begin(state, number);
    if !call::is_direct(number as u32) || !thread.seccomp.is_off() {
        return refuse(thread);
    }
    let args =
        [&state.rdi, &state.rsi, &state.rdx, &state.r10, &state.r8, &state.r9].map(Cell::get);
    // SAFETY: a thread makes one call at a time, and nobody else uses it.
    let context = unsafe { &mut *state.context.get() };
    match call::make_direct(thread, context, number as u32, args) {
        Some(raw) => {
            state.raw.set(raw);
            state.rax.set(raw as u64);
        }
        None => refuse(thread),
    }
}

/// Has the stub make the call itself, which traps.
extern "C" fn refuse(thread: &Thread) {
    let state = &thread.site;
    begin(state, state.rax.get());
    state.raw.set(NOT_STARTED);
    state.next.set(state.slow.get());
}

fn begin(state: &State, number: u64) {
    state.number.set(number);
    state.slow.set(state.next.get() - 2);
}

/// A call of a stub's that was made, and whose way out has trapped.
pub struct Finish {
    /// The call's number.
    pub number: u64,
    /// What it ends with.
    pub raw: i64,
}

/// Makes a trap in a stub one at the place that the stub stands for. If it is the way out of a call,
/// what is left to do.
pub fn watch(thread: &Thread, context: &mut Context, record: &Record) -> Option<Finish> {
    context.registers.rip = record.behind();
    let state = &thread.site;
    if state.is_finish.replace(0) == 0 {
        return None;
    }
    if let Some(mask) = state.mask.take() {
        context.mask = mask;
    }
    Some(Finish { number: state.number.get(), raw: state.raw.get() })
}

/// Moves a thread whose signal is to wait out of the windows behind the last looks.
pub fn leave_window(registers: &mut Registers) {
    let windows = [
        (
            &raw const pagefault_site_check,
            &raw const pagefault_site_left,
            &raw const pagefault_site_again,
        ),
        (
            &raw const pagefault_resume_check,
            &raw const pagefault_resume_left,
            &raw const pagefault_resume_again,
        ),
    ];
    for (check, left, again) in windows {
        if is_within(registers.rip, check, left) {
            registers.rip = again.addr() as u64;
        }
    }
}

fn is_within(ip: u64, start: *const u8, end: *const u8) -> bool {
    (start.addr() as u64..end.addr() as u64).contains(&ip)
}

/// The address of the program's that a thread is at which runs between the program and its block's
/// stack.
pub fn shown(registers: &Registers) -> Option<u64> {
    let ip = registers.rip;
    let of_stub = |ip| Record::of_stub(ip).map(|record| record.shown(ip));
    if is_within(ip, address() as *const u8, &raw const pagefault_site_on) {
        // Nothing has happened yet.
        return Record::of_stub(registers.rcx).map(Record::place);
    }
    let to = if is_within(ip, &raw const pagefault_site_left, &raw const pagefault_site_end) {
        registers.rcx
    } else if is_within(ip, &raw const pagefault_resume_left, &raw const pagefault_resume_end) {
        registers.r11
    } else {
        return of_stub(ip);
    };
    of_stub(to).or(Some(to))
}

/// Goes on behind a call that trapped, without a return from the signal, which costs a call. Returns
/// where that is needed.
///
/// # Safety
/// The context must be the one that the kernel gave to the running handler, and differ from the
/// interrupted code's in registers alone, as behind a call.
pub unsafe fn resume(thread: &Thread, context: &Context) {
    /// The least state that `xrstor` takes: with the header that follows the old one.
    const LEAST: usize = 576;
    let registers = &context.registers;
    if !MAY_RESUME.load(Relaxed) || registers.eflags as u32 & UNUSUAL != 0 || registers.fpstate == 0
    {
        return;
    }
    // SAFETY: the kernel wrote the state, on this stack; the caller vouches for the rest.
    unsafe {
        if fpstate_len(registers.fpstate) >= LEAST {
            pagefault_resume(context, core::ptr::from_ref(thread).cast());
        }
    }
}

/// Whether a handler may be left without a return from the signal.
static MAY_RESUME: AtomicBool = AtomicBool::new(true);

/// Has all handlers return from their signals: the kernel keeps a second stack of addresses, and takes
/// those of the signal off there.
pub fn use_shadow_stack() {
    MAY_RESUME.store(false, Relaxed);
}

/// Makes `gs` lead to the calling thread's block.
pub fn arm(thread: &Thread) {
    let block = thread.block() as u64;
    // SAFETY: the keeper has seen that there is the instruction; the runtime does not use gs.
    unsafe { asm!("wrgsbase {}", in(reg) block, options(nomem, nostack, preserves_flags)) };
}

/// Whether `gs` leads to a block.
pub fn is_armed(block: u64) -> bool {
    let base: u64;
    // SAFETY: as above.
    unsafe { asm!("rdgsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base == block
}
