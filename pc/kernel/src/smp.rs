//! The other CPUs: finding them and getting them to work.
//!
//! One after the other is reset and begins in 16-bit mode with the [trampoline](boot::trampoline),
//! which was copied to a page that nobody else uses. The way into the kernel is then that of the
//! first, and ends in the new CPU's own idle task.

use crate::acpi::Tables;
use crate::direct::{self, content};
use crate::frames::Frames;
use crate::start_info::BootInfo;
use crate::task::{self, Task};
use crate::{apic, boot, clock, cpu, kernel, report, scheduler};
use core::sync::atomic::{AtomicU32, Ordering};
use pagefault::machine::{Frame, OutOfFrames};

/// The page at which a CPU begins. Frames below 1 MiB are never given out.
const PAGE: Frame = Frame(8);

/// How long a CPU may take to begin, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;
/// How long a CPU takes to reset itself.
const RESET: u64 = 10_000_000;

/// How many CPUs are at work; each takes this as its number.
static COUNT: AtomicU32 = AtomicU32::new(1);

/// How many CPUs are at work.
pub fn count() -> u32 {
    COUNT.load(Ordering::Acquire)
}

/// Starts every CPU that the firmware names. Called by the first, when the kernel is put together.
pub fn start(
    info: &BootInfo,
    frames: &'static Frames,
    reference: Frame,
) -> Result<(), OutOfFrames> {
    let code = boot::trampoline();
    // SAFETY: the page is memory that the frame allocator never had, and the code is shorter.
    unsafe { content(PAGE).cast::<u8>().copy_from_nonoverlapping(code.as_ptr(), code.len()) };
    let own = apic::identity();
    let read = |at, bytes| physical(reference, at, bytes);
    let processors = Tables { read: &read, pointer: info.acpi }.processors(cpu::LIMIT);
    for identity in processors.into_iter().filter(|identity| *identity != own) {
        let number = count();
        boot::prepare(reference, task::boot_stack(frames, reference)?);
        apic::reset(identity);
        wait(RESET, || false);
        apic::begin(identity, PAGE.0);
        if !wait(PATIENCE, || count() > number) {
            // It may still come, and then needs the stack and the number to itself.
            report!("CPU {number} does not start");
            break;
        }
    }
    Ok(())
}

/// Bytes of physical memory. The tables lie behind the memory that can be used, in the same two
/// megabytes as its end, and the root pointer below 1 MiB: the direct map covers both.
fn physical(reference: Frame, at: u64, bytes: usize) -> Option<&'static [u8]> {
    let range = at..at.checked_add(bytes as u64)?;
    // SAFETY: the direct map was just looked at; the firmware's memory is given to nobody, so that
    // nobody writes to it any more.
    direct::covers(reference, &range).then(|| unsafe { direct::bytes(range) })
}

/// Waits for a time, or until something has happened; returns whether it has.
fn wait(nanoseconds: u64, happened: impl Fn() -> bool) -> bool {
    let end = clock::nanoseconds() + nanoseconds;
    while !happened() {
        if clock::nanoseconds() >= end {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// The first Rust code of every CPU but the first.
pub extern "C" fn other_main() -> ! {
    let number = count();
    let reference = kernel().manager.machine().reference();
    // SAFETY: the CPU comes here once, with interrupts disabled, after the first has called this;
    // the next is started when the number has been used.
    unsafe { cpu::start(number, reference) };
    apic::start_timer();
    scheduler::start(Task::idle(task::next_id()));
    COUNT.store(number + 1, Ordering::Release);
    scheduler::idle()
}
