//! The path from a stub into the runtime and back: a call without a trap.
//!
//! The program's registers are saved in the thread's block, and the runtime runs on the block's
//! stack, as in a signal handler. What needs a signal frame returns to the stub and traps there:
//! calls about signals and tasks, seccomp filters, and the exit when a signal waits.
//!
//! A signal may arrive at any instruction. While the stack pointer is the program's, its handler
//! starts as if the signal had come just before or just after the call ([`shown`]). Otherwise the
//! signal waits, and the exit traps. Between the last check and the switch to the program's stack
//! is a window, as in `entry` ([`leave_window`]).

use super::stub::Record;
use crate::entry::NOT_STARTED;
use crate::frame::{Context, Registers, fpstate_len};
use crate::signal;
use crate::thread::{BLOCK, Thread};
use crate::{call, keys};
use core::arch::{asm, global_asm};
use core::cell::{Cell, UnsafeCell};
use core::mem::offset_of;
use core::ptr::null;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;

/// The mark that `tag` adds to the block's address. If `gs` points to data of the program, that
/// data is not its own address plus this.
pub const TAG: i32 = 0x2e6b_91d3;
/// The offset of the tag from the base of `gs`.
pub const TAG_AT: u32 = at(offset_of!(State, tag));

const fn at(offset: usize) -> u32 {
    (offset_of!(Thread, site) + offset) as u32
}

/// The offset of a register in a context.
const fn register(offset: usize) -> usize {
    offset_of!(Context, registers) + offset
}

/// The state of a thread that makes calls through stubs.
#[repr(C, align(16))]
pub struct State {
    /// The program's vector registers; the runtime uses only the lower 128 bits.
    vectors: UnsafeCell<[u128; 16]>,
    /// The block's address plus [`TAG`].
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
    /// Where the stub continues.
    next: Cell<u64>,
    /// Where it traps.
    slow: Cell<u64>,
    /// Whether the next trap ends a call that was already made.
    is_finish: Cell<u64>,
    number: Cell<u64>,
    /// The raw result of the call, for [`signal::end_call`].
    raw: Cell<i64>,
    /// The program's signal mask when a signal began to wait; `None` while none waits.
    mask: Cell<Option<u64>>,
    /// The context for calls that need none.
    context: UnsafeCell<Context>,
    /// The context of a trapped call whose exit is in progress.
    trapped: Cell<u64>,
}

impl State {
    /// The state of a thread with a block at an address.
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

    /// Notes the mask of a thread that is about to block every signal.
    pub fn note_mask(&self, mask: u64) {
        let all = signal::Set(signal::ALL).blockable().0;
        if mask & all != all {
            self.mask.set(Some(mask));
        }
    }

    /// Forgets the mask when the signal is being delivered. Until then all other signals are
    /// blocked.
    pub fn forget_mask(&self) {
        self.mask.set(None);
    }
}

/// The trap, direction and alignment-check flags: the runtime does not run with them.
const UNUSUAL: u32 = 1 << 8 | 1 << 10 | 1 << 18;
/// The stack begins below this, from the block's end.
const TOP: usize = 64;

global_asm!(
    // From a stub: r11 is the block plus TAG, rcx the address at which the stub continues.
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
    // From here on, the flags are the runtime's own.
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
    // As after a call of the kernel's; the stub sets rcx.
    "mov r11, [rsp + {flags} - {block} + {top}]",
    "mov rsp, [rsp + {rsp} - {block} + {top}]",
    "pagefault_site_left:",
    "jmp rcx",
    "pagefault_site_end:",
    // A signal waits: exit by a trap, because the program's handler needs its frame.
    "pagefault_site_again:",
    "mov r11, rsp",
    "and r11, -{block}",
    "lea rsp, [r11 + {block} - {top}]",
    "mov qword ptr [r11 + {is_finish}], 1",
    // Some call number: the kernel would take some results for a call to restart.
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
    // As after a call of the kernel's.
    "mov r11, [rsp + {c_flags}]",
    "mov rcx, [rsp + {c_rip}]",
    "mov rsp, [rsp + {c_rsp}]",
    "pagefault_resume_left:",
    "jmp rcx",
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

/// The address of the entry for stubs.
pub fn address() -> u64 {
    pagefault_site as *const () as u64
}

/// Makes a stub's call.
extern "C" fn make(thread: &Thread) {
    let state = &thread.site;
    let number = state.rax.get();
    begin(state, number);
    if !call::is_direct(number as u32) || !thread.seccomp.is_off() {
        return refuse(thread);
    }
    let args =
        [&state.rdi, &state.rsi, &state.rdx, &state.r10, &state.r8, &state.r9].map(Cell::get);
    // SAFETY: a thread makes one call at a time, and only it uses the context.
    let context = unsafe { &mut *state.context.get() };
    thread.entered.set(context);
    let keys = keys::Entered::new(thread);
    let made = call::make_direct(thread, context, number as u32, args);
    drop(keys);
    thread.entered.set(null());
    match made {
        Some(raw) => {
            state.raw.set(raw);
            state.rax.set(raw as u64);
        }
        None => refuse(thread),
    }
}

/// The registers of the program whose thread makes a call, as far as they are known: a call without a
/// trap leaves those that functions preserve to the host's view, `seen`.
pub fn of_program(thread: &Thread, seen: &Registers) -> Option<Registers> {
    let state = &thread.site;
    let entered = thread.entered.get();
    if entered.is_null() {
        return None;
    }
    if !core::ptr::eq(entered, state.context.get()) {
        // SAFETY: the frame of a call that the stopped thread is making.
        return Some(unsafe { (*entered).registers });
    }
    Some(Registers {
        rdi: state.rdi.get(),
        rsi: state.rsi.get(),
        rdx: state.rdx.get(),
        r10: state.r10.get(),
        r8: state.r8.get(),
        r9: state.r9.get(),
        rsp: state.rsp.get(),
        rip: Record::of_stub(state.next.get()).map_or(state.next.get(), Record::behind),
        eflags: state.flags.get(),
        ..*seen
    })
}

/// Makes the stub execute the call itself, which traps.
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

/// A stub's call that was made, and whose exit has trapped.
pub struct Finish {
    /// The call's number.
    pub number: u64,
    /// Its raw result.
    pub raw: i64,
}

/// Makes a trap in a stub appear at the original call site. If the trap is the exit of a call,
/// returns what remains to be done.
pub fn watch(thread: &Thread, context: &mut Context, record: &Record) -> Option<Finish> {
    context.registers.rip = record.behind();
    context.registers.rcx = record.behind();
    let state = &thread.site;
    if state.is_finish.replace(0) == 0 {
        return None;
    }
    if let Some(mask) = state.mask.take() {
        context.mask = mask;
    }
    Some(Finish { number: state.number.get(), raw: state.raw.get() })
}

/// Moves a thread whose signal must wait out of the windows after the last checks.
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

/// Whether an instruction pointer is from one label to before another.
pub fn is_within(ip: u64, start: *const u8, end: *const u8) -> bool {
    (start.addr() as u64..end.addr() as u64).contains(&ip)
}

/// The program address of a thread that runs between the program and its block's stack.
pub fn shown(registers: &Registers) -> Option<u64> {
    let ip = registers.rip;
    let of_stub = |ip| Record::of_stub(ip).map(|record| record.shown(ip));
    if is_within(ip, address() as *const u8, &raw const pagefault_site_on) {
        // Nothing has happened yet.
        return Record::of_stub(registers.rcx).map(Record::place);
    }
    let has_left = is_within(ip, &raw const pagefault_site_left, &raw const pagefault_site_end)
        || is_within(ip, &raw const pagefault_resume_left, &raw const pagefault_resume_end);
    let to = if has_left { registers.rcx } else { return of_stub(ip) };
    of_stub(to).or(Some(to))
}

/// Continues after a trapped call without `rt_sigreturn`, which would cost a system call. Returns
/// only if `rt_sigreturn` is needed.
///
/// # Safety
/// The context must be the kernel's for the running handler, and may differ from the
/// interrupted code's only in registers, as after a call.
pub unsafe fn resume(thread: &Thread, context: &Context) {
    // SAFETY: the kernel wrote the state, on this stack; the caller vouches for the rest.
    unsafe {
        if may_resume(&context.registers) {
            pagefault_resume(context, core::ptr::from_ref(thread).cast());
        }
    }
}

/// Whether the code with these registers, of a frame of the kernel's, may be continued without
/// `rt_sigreturn`.
///
/// # Safety
/// The vector state that the registers name, if any, must be as the kernel wrote it.
pub unsafe fn may_resume(registers: &Registers) -> bool {
    /// The minimum state for `xrstor`: the legacy area and its header.
    const LEAST: usize = 576;
    let is_usual = registers.eflags as u32 & UNUSUAL == 0 && registers.fpstate != 0;
    // SAFETY: the caller vouches for the state.
    let has_room = is_usual && unsafe { fpstate_len(registers.fpstate) } >= LEAST;
    has_room && MAY_RESUME.load(Relaxed) && !is_stepped()
}

/// Whether a debugger has the thread execute one instruction at a time. Once one of them has loaded the flags, the host
/// takes its own trap flag for the program's, and the thread stops once more after it is to run freely.
fn is_stepped() -> bool {
    const TRAP: u64 = 1 << 8;
    let flags: u64;
    // SAFETY: the flags pass over the stack, where nothing lies below its pointer.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    flags & TRAP != 0
}

/// Whether a handler may exit without `rt_sigreturn`.
static MAY_RESUME: AtomicBool = AtomicBool::new(true);

/// Makes all handlers exit by `rt_sigreturn`: with a shadow stack, the kernel must remove the signal's
/// entries from it.
pub fn use_shadow_stack() {
    MAY_RESUME.store(false, Relaxed);
}

/// Points `gs` to the calling thread's block.
pub fn arm(thread: &Thread) {
    let block = thread.block() as u64;
    // SAFETY: the supervisor has checked that the instruction exists; the runtime does not use gs.
    unsafe { asm!("wrgsbase {}", in(reg) block, options(nomem, nostack, preserves_flags)) };
}

/// Whether `gs` points to a block.
pub fn is_armed(block: u64) -> bool {
    let base: u64;
    // SAFETY: as above.
    unsafe { asm!("rdgsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base == block
}
