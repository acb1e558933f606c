//! What the kernel does when something interrupts: faults, interrupts and system calls.

use crate::entry::TrapFrame;
use crate::process::{Death, Reason};
use crate::times::{self, Found};
use crate::{
    apic, cpu, kernel, layout, process, report, scheduler, serial, shootdown, signal, syscall,
};
use core::sync::atomic::Ordering;
use pagefault::entry::{SegvCode, Signal, Verdict};
use pagefault::machine::{Context, ErrorCode, PageFault, VirtAddr};
use x86_64::instructions::interrupts;
use x86_64::registers::control::Cr2;

const INTERRUPTS_ENABLED: u64 = 1 << 9;
const PAGE_FAULT: u64 = 14;

/// Answers a system call; the frame is loaded again on return. Interrupts are disabled.
pub extern "C" fn system_call(frame: &mut TrapFrame) {
    interrupts::enable();
    syscall::call(frame);
    before_program(frame);
}

/// Dispatches what interrupted; the frame is loaded again on return. Interrupts are disabled.
pub extern "C" fn trap(frame: &mut TrapFrame) {
    match frame.vector {
        PAGE_FAULT => page_fault(frame),
        apic::TIMER => {
            apic::acknowledge();
            let found = if frame.is_user() { Found::Program } else { Found::Kernel };
            times::tick(scheduler::current(), found);
            scheduler::tick();
        }
        // Who sent it has left word in the queue, or a signal.
        apic::LOOK => apic::acknowledge(),
        apic::SHOOTDOWN => {
            apic::acknowledge();
            shootdown::answer();
        }
        apic::SPURIOUS => {}
        vector if vector < 32 && frame.is_user() => {
            interrupts::enable();
            exception(frame);
        }
        _ => oops(frame, "an exception that nothing expected"),
    }
    if frame.is_user() {
        before_program(frame);
    }
}

/// What is done on every way back to a program.
#[inline(always)]
fn before_program(frame: &mut TrapFrame) {
    interrupts::enable();
    scheduler::yield_if_expired();
    let thread = process::thread();
    process::check_timers(&thread.process);
    signal::deliver(thread, frame);
}

/// Hands a page fault to the memory manager and does what it says.
fn page_fault(frame: &mut TrapFrame) {
    // Read before anything else can fault (spec A1).
    let address = Cr2::read_raw();
    cpu::forbid_user_access();
    let kernel = kernel();
    let is_kernel_address = address >= layout::TASK_SIZE;
    let fault = PageFault {
        address: VirtAddr(address),
        code: ErrorCode::from_bits_retain(frame.error as u32),
        context: if frame.rflags & INTERRUPTS_ENABLED != 0 {
            Context::MaySleep
        } else {
            Context::Atomic
        },
        ip: VirtAddr(frame.rip),
        sp: VirtAddr(frame.rsp),
    };
    // A kernel address may be met anywhere, by the very code that finds the task: nothing but the
    // reference table is looked at, and interrupts stay as they are (spec A4).
    let verdict = if is_kernel_address {
        kernel.manager.page_fault(None, &fault, &kernel.exceptions)
    } else {
        if fault.context == Context::MaySleep {
            interrupts::enable();
        }
        let mm = scheduler::current().space().map(|space| space.mm());
        kernel.manager.page_fault(mm, &fault, &kernel.exceptions)
    };
    carry_out(frame, verdict, address);
    interrupts::disable();
}

fn carry_out(frame: &mut TrapFrame, verdict: Verdict, address: u64) {
    match verdict {
        Verdict::Resume => {}
        Verdict::Fixup(ip) => frame.rip = ip.value(),
        Verdict::Signal(kind) => {
            process::thread().cause.note_page_fault(frame, address);
            match kind {
                Signal::Segv(SegvCode::MapErr) => signal::force(signal::SIGSEGV, 1, address),
                Signal::Segv(SegvCode::AccErr) => signal::force(signal::SIGSEGV, 2, address),
                // The processors of a PC of today have no erratum that we know of.
                Signal::Illegal => signal::force(signal::SIGILL, 2, frame.rip),
                Signal::Bus => signal::force(signal::SIGBUS, 2, address),
            }
        }
        Verdict::OutOfMemory => process::out_of_memory(),
        Verdict::Oops(kind) => {
            report!("{kind:?} at {address:#x}");
            oops(frame, "a page fault that nothing expected");
        }
        Verdict::Corrupt => {
            report!("corrupted page table at {address:#x}");
            process::exit_group(Death { reason: Reason::Signal(signal::SIGKILL) });
        }
    }
}

/// A program did what the processor refuses.
fn exception(frame: &TrapFrame) {
    process::thread().cause.note_exception(frame);
    let (number, code, address) = signal::cause::of_exception(frame);
    signal::force(number, code, address);
}

/// A bug of the kernel: says where, and stops the machine.
fn oops(frame: &TrapFrame, what: &str) -> ! {
    serial::take_line();
    report!("oops: {what}: vector {} error {:#x}", frame.vector, frame.error);
    report!("rip {:#x} rsp {:#x} rflags {:#x}", frame.rip, frame.rsp, frame.rflags);
    report!("rax {:#x} rbx {:#x} rcx {:#x} rdx {:#x}", frame.rax, frame.rbx, frame.rcx, frame.rdx);
    report!(
        "rsi {:#x} rdi {:#x} rbp {:#x} cr2 {:#x}",
        frame.rsi,
        frame.rdi,
        frame.rbp,
        Cr2::read_raw()
    );
    report!(
        "CPU {}, task {}, {} top-level entries synchronised",
        cpu::number(),
        cpu::task_id(),
        kernel().manager.machine().synchronised.load(Ordering::Relaxed)
    );
    crate::power::fail()
}

/// The kernel's stack is used up: says where, on another, and stops the machine. `words` are RCX, RAX,
/// the vector, the error code, and what the processor pushed.
pub extern "C" fn overflow(words: &[u64; 9]) -> ! {
    let [_, _, vector, error, rip, _, _, rsp, _] = words;
    serial::take_line();
    report!(
        "the kernel stack of task {} overflowed: vector {vector} error {error:#x}",
        cpu::task_id()
    );
    report!("rip {rip:#x} rsp {rsp:#x} cr2 {:#x} CPU {}", Cr2::read_raw(), cpu::number());
    crate::power::fail()
}

/// A fault on the way to a fault handler, or a machine check: nothing can be saved.
pub extern "C" fn double_fault(words: &[u64; 6]) -> ! {
    serial::take_line();
    report!("double fault: {words:x?} cr2 {:#x}", Cr2::read_raw());
    crate::power::fail()
}
