//! The local interrupt controller: the timer that ends a task's turn.

use crate::frames::Frames;
use crate::{clock, vmalloc};
use core::sync::atomic::{AtomicPtr, Ordering};
use pagefault::machine::{Frame, OutOfFrames};
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

/// The vector of the timer.
pub const TIMER: u64 = 32;
/// The vector of an interrupt that was withdrawn.
pub const SPURIOUS: u64 = 255;

const BASE: u32 = 0x1b;
const TICKS_A_SECOND: u64 = 100;

const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS_VECTOR: usize = 0xf0;
const TIMER_VECTOR: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

const ENABLED: u32 = 0x100;
const PERIODIC: u32 = 1 << 17;
const MASKED: u32 = 1 << 16;

static REGISTERS: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

/// Silences the old interrupt controllers and starts the timer.
pub fn start(frames: &Frames, reference: Frame) -> Result<(), OutOfFrames> {
    for port in [0x21, 0xa1] {
        // SAFETY: the mask registers of the two old controllers, which are not used.
        unsafe { Port::<u8>::new(port).write(0xff) };
    }
    // SAFETY: every 64-bit processor has the register.
    let base = unsafe { Msr::new(BASE).read() } & 0xf_ffff_f000;
    let registers = vmalloc::map_device(frames, reference, base, 4096)?;
    REGISTERS.store(registers, Ordering::Release);
    write(SPURIOUS_VECTOR, ENABLED | SPURIOUS as u32);
    write(DIVIDE, 3);
    write(TIMER_VECTOR, MASKED);
    write(INITIAL_COUNT, u32::MAX);
    let before = read(CURRENT_COUNT);
    // The clock takes ten milliseconds to measure itself, and this timer with it.
    let counted = clock::start(|| u64::from(before - read(CURRENT_COUNT)));
    write(TIMER_VECTOR, PERIODIC | TIMER as u32);
    write(INITIAL_COUNT, (counted * 100 / TICKS_A_SECOND).max(1000) as u32);
    Ok(())
}

/// Tells the controller that an interrupt was dealt with.
pub fn acknowledge() {
    write(END_OF_INTERRUPT, 0);
}

fn read(register: usize) -> u32 {
    let registers = REGISTERS.load(Ordering::Acquire);
    // SAFETY: `start` mapped the page of registers before it stored the pointer.
    unsafe { registers.add(register).cast::<u32>().read_volatile() }
}

fn write(register: usize, value: u32) {
    let registers = REGISTERS.load(Ordering::Acquire);
    // SAFETY: as for `read`; the registers written here change nothing but interrupts.
    unsafe { registers.add(register).cast::<u32>().write_volatile(value) }
}
