//! The local interrupt controller of each CPU: the timer that ends a task's turn, and interrupts
//! from one CPU to another.
//!
//! Every CPU finds its own controller's registers at the same address.

use crate::frames::Frames;
use crate::{clock, cpu, vmalloc};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use pagefault::machine::{Frame, OutOfFrames};
use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

/// The vector of the timer.
pub const TIMER: u64 = 32;
/// The vector by which a CPU asks another to look at its queue and at signals.
pub const LOOK: u64 = 33;
/// The vector by which a CPU asks others to forget translations.
pub const SHOOTDOWN: u64 = 34;
/// The vector of an interrupt that was withdrawn.
pub const SPURIOUS: u64 = 255;

const BASE: u32 = 0x1b;
const TICKS_A_SECOND: u64 = 100;

const IDENTITY: usize = 0x20;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS_VECTOR: usize = 0xf0;
const COMMAND: usize = 0x300;
const TARGET: usize = 0x310;
const TIMER_VECTOR: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

const ENABLED: u32 = 0x100;
const PERIODIC: u32 = 1 << 17;
const MASKED: u32 = 1 << 16;

/// An interrupt command: the line is raised, not lowered.
const ASSERT: u32 = 1 << 14;
const INIT: u32 = 5 << 8;
const STARTUP: u32 = 6 << 8;
/// The command has not been taken by the target yet.
const PENDING: u32 = 1 << 12;

static REGISTERS: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

/// What the timer counts between two ticks.
static TICK: AtomicU32 = AtomicU32::new(0);

/// The number by which the hardware knows each CPU.
static IDENTITIES: [AtomicU32; cpu::LIMIT] = [const { AtomicU32::new(0) }; cpu::LIMIT];

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
    write(DIVIDE, 3);
    write(TIMER_VECTOR, MASKED);
    write(INITIAL_COUNT, u32::MAX);
    let before = read(CURRENT_COUNT);
    // The clock takes ten milliseconds to measure itself, and this timer with it.
    let counted = clock::start(|| u64::from(before - read(CURRENT_COUNT)));
    TICK.store((counted * 100 / TICKS_A_SECOND).max(1000) as u32, Ordering::Relaxed);
    start_timer();
    Ok(())
}

/// Turns this CPU's controller on and starts its timer, as [`start`] found out for all.
pub fn start_timer() {
    IDENTITIES[cpu::number() as usize].store(identity(), Ordering::Relaxed);
    write(SPURIOUS_VECTOR, ENABLED | SPURIOUS as u32);
    write(DIVIDE, 3);
    write(TIMER_VECTOR, PERIODIC | TIMER as u32);
    write(INITIAL_COUNT, TICK.load(Ordering::Relaxed));
}

/// The number by which the hardware knows this CPU.
pub fn identity() -> u32 {
    read(IDENTITY) >> 24
}

/// Interrupts another CPU.
pub fn interrupt(cpu: u32, vector: u64) {
    let identity = IDENTITIES[cpu as usize].load(Ordering::Relaxed);
    command(identity, ASSERT | vector as u32);
}

/// Resets a CPU, which then waits to be told where to begin.
pub fn reset(identity: u32) {
    command(identity, ASSERT | INIT);
}

/// Lets a CPU that was reset begin, in 16-bit mode, at a page below 1 MiB.
pub fn begin(identity: u32, page: u32) {
    command(identity, ASSERT | STARTUP | page);
}

fn command(identity: u32, what: u32) {
    // No handler may come between the two writes with a command of its own.
    interrupts::without_interrupts(|| {
        while read(COMMAND) & PENDING != 0 {
            core::hint::spin_loop();
        }
        write(TARGET, identity << 24);
        write(COMMAND, what);
    });
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
