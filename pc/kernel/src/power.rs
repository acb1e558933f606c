//! Turning the machine off.

use crate::report;
use crate::serial::{CONSOLE, REPORT};
use x86_64::instructions::port::Port;

/// Where QEMU's exit device listens (`-device isa-debug-exit`).
const EXIT: u16 = 0xf4;

/// Reports the program's exit status and ends the machine.
pub fn off(status: u8) -> ! {
    x86_64::instructions::interrupts::disable();
    report!("exit {status}");
    end()
}

/// Ends the machine without an exit status, after the kernel has reported why: the host then shows
/// that report.
pub fn fail() -> ! {
    x86_64::instructions::interrupts::disable();
    end()
}

fn end() -> ! {
    CONSOLE.flush();
    REPORT.flush();
    // SAFETY: the port belongs to QEMU's exit device, which ends the machine.
    unsafe { Port::<u32>::new(EXIT).write(0) };
    loop {
        x86_64::instructions::hlt();
    }
}
