//! The program's alternate stack. The host's is the runtime's own.

use crate::frame::AltStack;
use crate::sys::{Errno, Result};
use crate::thread::Thread;
use linux_raw_sys::general as nr;

/// The minimum length that the kernel accepts.
const LEAST: u64 = 2048;

/// Whether a stack pointer is on an alternate stack, as the kernel determines it.
pub fn is_on_stack(alt: &AltStack, sp: u64) -> bool {
    alt.flags & nr::SS_AUTODISARM == 0 && sp > alt.start && sp - alt.start <= alt.len
}

/// Sets the alternate stack of a thread whose stack pointer is `sp`, or refuses as the kernel does.
pub fn set_stack(thread: &Thread, mut stack: AltStack, sp: u64) -> Result<()> {
    if is_on_stack(&thread.alt_stack.get(), sp) {
        return Err(Errno::EPERM);
    }
    match stack.flags & !nr::SS_AUTODISARM {
        nr::SS_DISABLE => stack = AltStack { start: 0, len: 0, ..stack },
        0 | nr::SS_ONSTACK if stack.len < LEAST => return Err(Errno::ENOMEM),
        0 | nr::SS_ONSTACK => {}
        _ => return Err(Errno::EINVAL),
    }
    stack.flags &= !nr::SS_ONSTACK;
    thread.alt_stack.set(stack);
    Ok(())
}
