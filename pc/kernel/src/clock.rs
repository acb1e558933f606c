//! Time, from the processor's time stamp counter.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::instructions::port::Port;

/// Counts of the time stamp counter in a millisecond.
static PER_MILLISECOND: AtomicU64 = AtomicU64::new(1_000_000);
static START: AtomicU64 = AtomicU64::new(0);

/// The interval timer counts at this rate.
const TIMER_HERTZ: u64 = 1_193_182;
const MILLISECONDS: u64 = 10;

fn counter() -> u64 {
    // SAFETY: every 64-bit processor has the instruction, and the kernel may always use it.
    unsafe { _rdtsc() }
}

/// Measures the counter against the interval timer, and lets `also` measure another.
pub fn start(also: impl FnOnce() -> u64) -> u64 {
    let count = TIMER_HERTZ * MILLISECONDS / 1000;
    let mut control: Port<u8> = Port::new(0x61);
    let mut mode: Port<u8> = Port::new(0x43);
    let mut channel: Port<u8> = Port::new(0x42);
    // SAFETY: the ports are the interval timer's third channel and its gate, which nothing else
    // uses; no access touches memory.
    let begin = unsafe {
        let gate = control.read() & !2 | 1;
        control.write(gate);
        mode.write(0xb0);
        channel.write(count as u8);
        channel.write((count >> 8) as u8);
        let begin = counter();
        while control.read() & 0x20 == 0 {
            core::hint::spin_loop();
        }
        begin
    };
    let end = counter();
    PER_MILLISECOND.store(((end - begin) / MILLISECONDS).max(1), Ordering::Relaxed);
    START.store(end, Ordering::Relaxed);
    also()
}

/// Nanoseconds since the kernel started.
pub fn nanoseconds() -> u64 {
    let count = counter().saturating_sub(START.load(Ordering::Relaxed));
    let per = PER_MILLISECOND.load(Ordering::Relaxed);
    (u128::from(count) * 1_000_000 / u128::from(per)) as u64
}
