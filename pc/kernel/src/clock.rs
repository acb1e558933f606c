//! Time, from the processor's time stamp counter.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::instructions::port::Port;

/// Counts of the time stamp counter in a millisecond.
static PER_MILLISECOND: AtomicU64 = AtomicU64::new(1_000_000);
static START: AtomicU64 = AtomicU64::new(0);
/// The seconds from 1970 to when the kernel started.
static BEFORE: AtomicU64 = AtomicU64::new(0);

/// The interval timer counts at this rate.
const TIMER_HERTZ: u64 = 1_193_182;
const MILLISECONDS: u64 = 10;

fn counter() -> u64 {
    // SAFETY: every 64-bit processor has the instruction, and the kernel may always use it.
    unsafe { _rdtsc() }
}

/// Measures the counter against the interval timer, and lets `also` measure another.
pub fn start(also: impl FnOnce() -> u64) -> u64 {
    read_battery_clock();
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

/// Where a clock's time begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// When the kernel started.
    #[default]
    SinceStart,
    /// At the beginning of 1970.
    Since1970,
}

impl Clock {
    /// A time of this clock on the kernel's own.
    pub fn here(self, time: u64) -> u64 {
        match self {
            Self::SinceStart => time,
            Self::Since1970 => time.saturating_sub(start_in_1970()),
        }
    }
}

/// Nanoseconds since 1970, as the machine's battery clock said when the kernel started.
pub fn since_1970() -> u64 {
    start_in_1970() + nanoseconds()
}

/// The nanoseconds from 1970 to when the kernel started.
fn start_in_1970() -> u64 {
    BEFORE.load(Ordering::Relaxed) * 1_000_000_000
}

/// Reads the battery clock.
fn read_battery_clock() {
    let mut date = battery_date();
    // A date that was read twice was not read while it changed.
    for _ in 0..100 {
        let again = battery_date();
        if again == date {
            break;
        }
        date = again;
    }
    BEFORE.store(seconds_since_1970(date), Ordering::Relaxed);
}

/// Second, minute, hour, day, month and year, as the battery clock has them.
fn battery_date() -> [u64; 6] {
    let read = |register: u8| {
        // SAFETY: the ports select and read a register of the battery clock, which nobody else uses.
        unsafe {
            Port::new(0x70).write(register);
            Port::<u8>::new(0x71).read()
        }
    };
    let is_binary = read(0x0b) & 4 != 0;
    let number = |byte: u8| if is_binary { byte } else { (byte >> 4) * 10 + (byte & 15) };
    [0, 2, 4, 7, 8, 9].map(|register| number(read(register)).into())
}

/// The seconds from 1970 to a date of this century.
const fn seconds_since_1970([second, minute, hour, day, month, year]: [u64; 6]) -> u64 {
    const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let month = if month == 0 || month > 12 { 0 } else { month as usize - 1 };
    let is_leap = year % 4 == 0;
    // From 1970 to 2000 there are 10957 days; 2000 is a leap year.
    let days = 10957 + year * 365 + year.div_ceil(4) + BEFORE_MONTH[month] + day
        - if is_leap && month >= 2 { 0 } else { 1 };
    ((days * 24 + hour) * 60 + minute) * 60 + second
}

/// Nanoseconds since the kernel started.
pub fn nanoseconds() -> u64 {
    let count = counter().saturating_sub(START.load(Ordering::Relaxed));
    let per = PER_MILLISECOND.load(Ordering::Relaxed);
    (u128::from(count) * 1_000_000 / u128::from(per)) as u64
}
