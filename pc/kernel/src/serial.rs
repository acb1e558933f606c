//! The two serial lines: programs read and write the first; the kernel reports on the second.

use crate::lock::Mutex;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;

/// One 16550 serial line.
pub struct Serial {
    base: u16,
}

/// The programs' terminal.
pub const CONSOLE: Serial = Serial { base: 0x3f8 };

/// Where the kernel reports what it does.
pub const REPORT: Serial = Serial { base: 0x2f8 };

const LINE_STATUS: u16 = 5;
const DATA_READY: u8 = 1;
const ROOM_TO_SEND: u8 = 1 << 5;
const ALL_SENT: u8 = 1 << 6;

impl Serial {
    /// Sets 115200 bits a second, eight bits, no parity, with buffers and without interrupts.
    pub fn start(&self) {
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
            self.put(register, value);
        }
    }

    /// Sends bytes as they are.
    pub fn send(&self, bytes: &[u8]) {
        for byte in bytes {
            while self.get(LINE_STATUS) & ROOM_TO_SEND == 0 {
                core::hint::spin_loop();
            }
            self.put(0, *byte);
        }
    }

    /// Waits until the last byte has left.
    pub fn flush(&self) {
        while self.get(LINE_STATUS) & ALL_SENT == 0 {
            core::hint::spin_loop();
        }
    }

    /// Whether a byte has arrived.
    pub fn has_byte(&self) -> bool {
        self.get(LINE_STATUS) & DATA_READY != 0
    }

    /// A byte that has arrived.
    pub fn receive(&self) -> Option<u8> {
        self.has_byte().then(|| self.get(0))
    }

    fn put(&self, register: u16, value: u8) {
        // SAFETY: the ports belong to a serial line that only this type drives; no write to its
        // registers touches memory.
        unsafe { Port::new(self.base + register).write(value) }
    }

    fn get(&self, register: u16) -> u8 {
        // SAFETY: as for `put`.
        unsafe { Port::new(self.base + register).read() }
    }
}

/// Formats to the report line.
struct Report;

impl Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        REPORT.send(text.as_bytes());
        Ok(())
    }
}

/// Held, with interrupts disabled, while a line is sent.
static LINE: Mutex<()> = Mutex::new(());

/// The machine is about to stop: no task waits for the line any more.
static IS_LAST: AtomicBool = AtomicBool::new(false);

/// Sends further output without the line's lock, which the caller itself may hold.
pub fn take_line() {
    IS_LAST.store(true, Ordering::Relaxed);
}

/// Sends a line; [`report!`](crate::report!) is the way to say it.
pub fn send_line(text: fmt::Arguments<'_>) {
    interrupts::without_interrupts(|| {
        let _line = (!IS_LAST.load(Ordering::Relaxed)).then(|| LINE.lock());
        // Writing to the serial line cannot fail.
        let _ = writeln!(Report, "{text}");
    });
}

/// Writes a line to the kernel's report.
#[macro_export]
macro_rules! report {
    ($($argument:tt)*) => { $crate::serial::send_line(core::format_args!($($argument)*)) };
}
