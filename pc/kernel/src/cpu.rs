//! The processor: descriptor tables, control registers, and what each CPU knows of itself.
//!
//! Each CPU has a [`Local`] of its own, which its GS register names while the kernel runs. A task
//! may go on on another CPU after each wait, so what is read here is true until the next one.

use crate::entry;
use crate::space::PcSpace;
use crate::task::Task;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use pagefault::machine::Frame;
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};
use x86_64::registers::model_specific::{KernelGsBase, Msr};

/// Selectors; the order is what `syscall` asks for.
const KERNEL_CODE: u64 = 0x08;
/// The selector of programs' data.
pub const USER_DATA: u64 = 0x1b;
/// The selector of programs' code.
pub const USER_CODE: u64 = 0x23;
const TASK_STATE: u16 = 0x28;

/// The IST stack of every exception and interrupt, and the one of a double fault.
const STACK_BYTES: usize = 8192;

/// The most CPUs that are used.
pub const LIMIT: usize = 8;

/// What a CPU knows of itself, found through the GS register.
#[repr(C, align(64))]
pub struct Local {
    /// Where this is.
    this: *mut Local,
    /// The top of the running task's kernel stack.
    kernel_stack: u64,
    /// Where a system call keeps the program's stack pointer for a moment.
    scratch: u64,
    task: *const Task,
    task_id: u32,
    number: u32,
    /// Not 0 when the running task's time is over.
    expired: u64,
    /// How many spin locks the CPU holds.
    locks: u64,
    root: u64,
    reference: u64,
    /// The address space whose page table is loaded; null for the reference table.
    space: *const PcSpace,
}

/// Where [`Local`] has the kernel stack.
pub const KERNEL_STACK: usize = offset_of!(Local, kernel_stack);
/// Where [`Local`] keeps the program's stack pointer.
pub const SCRATCH: usize = offset_of!(Local, scratch);

/// The task state segment: for 64-bit code only stacks.
#[repr(C, packed(4))]
struct TaskState {
    reserved: u32,
    stacks: [u64; 3],
    reserved2: u64,
    interrupt_stacks: [u64; 7],
    reserved3: [u16; 5],
    io_map: u16,
}

#[repr(C, align(4096))]
struct Cpu {
    local: Local,
    state: TaskState,
    descriptors: [u64; 7],
    traps: [u8; STACK_BYTES],
    double_faults: [u8; STACK_BYTES],
}

impl Cpu {
    /// All zeros, so that the kernel's image does not grow by the stacks.
    const NEW: Self = Self {
        local: Local {
            this: ptr::null_mut(),
            kernel_stack: 0,
            scratch: 0,
            task: ptr::null(),
            task_id: 0,
            number: 0,
            expired: 0,
            locks: 0,
            root: 0,
            reference: 0,
            space: ptr::null(),
        },
        state: TaskState {
            reserved: 0,
            stacks: [0; 3],
            reserved2: 0,
            interrupt_stacks: [0; 7],
            reserved3: [0; 5],
            io_map: 0,
        },
        descriptors: [0; 7],
        traps: [0; STACK_BYTES],
        double_faults: [0; STACK_BYTES],
    };
}

struct Cells([UnsafeCell<Cpu>; LIMIT]);

// SAFETY: each cell is used by one CPU alone, through its GS register and by `start`.
unsafe impl Sync for Cells {}

static CPUS: Cells = Cells([const { UnsafeCell::new(Cpu::NEW) }; LIMIT]);

/// Null, kernel code, kernel data, user data, user code; the task state follows.
const DESCRIPTORS: [u64; 7] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
    0,
    0,
];

/// The interrupt descriptor table, the same for all CPUs.
#[repr(align(4096))]
struct Gates(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: written once, by `start` on the first CPU, before any other runs.
unsafe impl Sync for Gates {}

static GATES: Gates = Gates(UnsafeCell::new([[0; 2]; 256]));

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

static ACCESS_PREVENTION: AtomicBool = AtomicBool::new(false);

/// Makes the CPU ours: loads the reference table, the descriptor tables and the control registers.
///
/// # Safety
/// Called once for each `number`, on that CPU, with interrupts disabled, and for 0 before any other
/// runs; `reference` maps what the kernel uses.
pub unsafe fn start(number: u32, reference: Frame) {
    let cpu = CPUS.0[number as usize].get();
    // SAFETY: this is the only CPU that uses the cell, and it comes here once; the gates are filled
    // by the first before there is another. The tables are filled before they are loaded, and live
    // for ever.
    unsafe {
        let local = &raw mut (*cpu).local;
        (*local).this = local;
        (*local).number = number;
        (*local).reference = u64::from(reference.0);
        (*local).root = u64::from(reference.0);
        asm!("mov cr3, {}", in(reg) u64::from(reference.0) << 12, options(nostack));
        let top = |stack: *const [u8; STACK_BYTES]| stack.addr() as u64 + STACK_BYTES as u64;
        let state = &mut (*cpu).state;
        state.io_map = size_of::<TaskState>() as u16;
        state.interrupt_stacks[0] = top(&raw const (*cpu).traps);
        state.interrupt_stacks[1] = top(&raw const (*cpu).double_faults);
        let base = (&raw const (*cpu).state).addr() as u64;
        let limit = size_of::<TaskState>() as u64 - 1;
        (*cpu).descriptors = DESCRIPTORS;
        (*cpu).descriptors[5] =
            limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        (*cpu).descriptors[6] = base >> 32;
        if number == 0 {
            fill_gates(&mut *GATES.0.get());
        }
        load_tables(&raw const (*cpu).descriptors, GATES.0.get());
        Msr::new(0xc000_0101).write(local.addr() as u64);
    }
    KernelGsBase::write(x86_64::VirtAddr::zero());
    start_system_calls();
    protect_kernel();
}

fn fill_gates(gates: &mut [[u64; 2]; 256]) {
    let stubs = (&raw const entry::trap_stubs).addr() as u64;
    for (number, gate) in (0..).zip(gates) {
        let is_fatal = matches!(number, 2 | 8 | 18);
        let double_fault = entry::double_fault_entry as extern "C" fn();
        let target = if is_fatal { double_fault as usize as u64 } else { stubs + 16 * number };
        let stack: u64 = if is_fatal { 2 } else { 1 };
        // Present; an interrupt gate, which disables interrupts. Programs may raise breakpoints.
        let kind = if number == 3 { 0xee } else { 0x8e };
        let low = target & 0xffff
            | KERNEL_CODE << 16
            | stack << 32
            | kind << 40
            | (target >> 16 & 0xffff) << 48;
        *gate = [low, target >> 32];
    }
}

/// # Safety
/// Both tables are filled and stay where they are.
unsafe fn load_tables(descriptors: *const [u64; 7], gates: *const [[u64; 2]; 256]) {
    let descriptors = TablePointer { limit: 55, base: descriptors.addr() as u64 };
    let gates = TablePointer { limit: 4095, base: gates.addr() as u64 };
    // SAFETY: by the caller's contract; the code selector is that of the boot table, so that the
    // running code goes on, and the far return reloads it from the new one.
    unsafe {
        asm!(
            "lgdt [{gdt}]", "lidt [{idt}]",
            "push {code}", "lea {t}, [rip + 2f]", "push {t}", "retfq", "2:",
            "mov ss, {data:x}", "mov ds, {zero:x}", "mov es, {zero:x}", "ltr {task:x}",
            gdt = in(reg) &descriptors, idt = in(reg) &gates, code = in(reg) KERNEL_CODE,
            data = in(reg) 0x10u64, zero = in(reg) 0u64, task = in(reg) u64::from(TASK_STATE),
            t = out(reg) _,
        );
    }
}

fn start_system_calls() {
    const STAR: u32 = 0xc000_0081;
    const LSTAR: u32 = 0xc000_0082;
    const FMASK: u32 = 0xc000_0084;
    let target = entry::system_call_entry as extern "C" fn() as usize as u64;
    // SAFETY: the selectors are those of the table just loaded and the target is the entry code.
    // Masked: interrupts, direction, trap, alignment check, and
    // nested task, with which `iretq` would fault.
    unsafe {
        Msr::new(STAR).write(KERNEL_CODE << 32 | 0x13 << 48);
        Msr::new(LSTAR).write(target);
        Msr::new(FMASK).write(0x4_4700);
    }
}

/// Turns SMEP and SMAP on where the processor offers them.
fn protect_kernel() {
    let leaf = core::arch::x86_64::__cpuid_count(7, 0);
    let mut flags = Cr4::read();
    flags.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, leaf.ebx & 1 << 7 != 0);
    let prevents = leaf.ebx & 1 << 20 != 0;
    flags.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, prevents);
    ACCESS_PREVENTION.store(prevents, Ordering::Relaxed);
    // SAFETY: the kernel runs no code in user pages, and touches their data only between
    // `allow_user_access` and `forbid_user_access`.
    unsafe { Cr4::write(flags) };
}

/// Lets kernel code touch user pages, for a moment.
pub fn allow_user_access() {
    if ACCESS_PREVENTION.load(Ordering::Relaxed) {
        // SAFETY: the processor has the instruction; only the AC flag changes.
        unsafe { asm!("stac", options(nomem, nostack)) };
    }
}

/// Ends what [`allow_user_access`] began.
pub fn forbid_user_access() {
    if ACCESS_PREVENTION.load(Ordering::Relaxed) {
        // SAFETY: as for `stac`.
        unsafe { asm!("clac", options(nomem, nostack)) };
    }
}

macro_rules! local {
    ($field:ident: $type:ty) => {{
        let value: $type;
        // SAFETY: after `start`, GS names this CPU's `Local` whenever the kernel runs.
        unsafe {
            asm!("mov {}, gs:[{}]", out(reg) value, const offset_of!(Local, $field),
                options(nostack, preserves_flags, readonly));
        }
        value
    }};
}

fn local() -> *mut Local {
    local!(this: *mut Local)
}

/// The number of this CPU, from 0 on.
pub fn number() -> u32 {
    let number: u32;
    // SAFETY: as in `local!`.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) number, const offset_of!(Local, number),
            options(nostack, preserves_flags, readonly));
    }
    number
}

/// Notes that the running task's time is over. Called with interrupts disabled.
pub fn expire() {
    // SAFETY: this CPU alone uses its `Local`, and interrupts are disabled.
    unsafe { (*local()).expired = 1 };
}

/// Whether the running task's time is over; the next one's begins.
pub fn take_expired() -> bool {
    if local!(expired: u64) == 0 {
        return false;
    }
    // SAFETY: as in `local!`; a tick that comes meanwhile is the same one.
    unsafe {
        asm!("mov qword ptr gs:[{}], 0", const offset_of!(Local, expired),
            options(nostack, preserves_flags));
    }
    true
}

/// Notes that this CPU took a spin lock.
#[inline]
pub fn count_lock() {
    // SAFETY: as in `local!`; one instruction, so that an interrupt's own locks do not come between.
    unsafe {
        asm!("inc qword ptr gs:[{}]", const offset_of!(Local, locks), options(nostack));
    }
}

/// Notes that this CPU is about to give a spin lock up.
#[inline]
pub fn count_unlock() {
    // SAFETY: as for `count_lock`.
    unsafe {
        asm!("dec qword ptr gs:[{}]", const offset_of!(Local, locks), options(nostack));
    }
}

/// Says that the running task is about to wait, or may have to.
///
/// # Panics
/// With a spin lock held: whoever wants it would spin for as long as the wait is, and if the task that
/// ends the wait is among them, for ever.
#[inline]
pub fn assert_may_sleep() {
    let locks = local!(locks: u64);
    assert!(locks == 0, "a task would wait with {locks} spin locks held");
}

/// The frame of the page table that is loaded.
pub fn root() -> Frame {
    Frame(local!(root: u64) as u32)
}

/// The number of the running task, 0 before there is one.
pub fn task_id() -> u32 {
    let id: u32;
    // SAFETY: as in `local!`.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) id, const offset_of!(Local, task_id),
            options(nostack, preserves_flags, readonly));
    }
    id
}

/// The running task; null before there is one.
pub fn task() -> *const Task {
    local!(task: *const Task)
}

/// Makes a task the running one, as far as the processor is concerned.
///
/// # Safety
/// Called by the scheduler with interrupts disabled, just before it switches to the task's stack.
pub unsafe fn set_task(task: *const Task, id: u32, kernel_stack: u64) {
    // SAFETY: this CPU alone uses its `Local`, and interrupts are disabled.
    unsafe {
        let local = local();
        (*local).task = task;
        (*local).task_id = id;
        (*local).kernel_stack = kernel_stack;
    }
}

/// The address space whose page table is loaded; null for the reference table.
pub fn space() -> *const PcSpace {
    local!(space: *const PcSpace)
}

/// Loads the page table of an address space. Called with interrupts disabled.
///
/// # Safety
/// The kernel half of `root` is the reference table's, and it lives until another is loaded.
pub unsafe fn load(root: Frame, space: *const PcSpace) {
    // SAFETY: by the caller's contract; this CPU alone uses its `Local`.
    unsafe {
        let flags = Cr3::read().1;
        let address = x86_64::PhysAddr::new(u64::from(root.0) << 12);
        let local = local();
        (*local).root = u64::from(root.0);
        (*local).space = space;
        Cr3::write(x86_64::structures::paging::PhysFrame::containing_address(address), flags);
    }
}

/// Loads the reference table, which has no user part. Called with interrupts disabled.
pub fn load_reference() {
    let reference = Frame(local!(reference: u64) as u32);
    // SAFETY: the reference table lives for ever.
    unsafe { load(reference, ptr::null()) };
}

/// Sets where FS points: the running thread's own variables.
pub fn set_thread_pointer(base: u64) {
    const FS_BASE: u32 = 0xc000_0100;
    // SAFETY: the kernel does not use FS, and the caller's value was checked to be canonical.
    unsafe { Msr::new(FS_BASE).write(base) };
}
