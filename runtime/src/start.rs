//! From the keeper's hands to the program's first instruction.

use pagefault_control::Boot;
use crate::frame::{AltStack, Context, Frame, Info, Registers};
use crate::member::Member;
use crate::signal::action::{Actions, SIGNALS};
use crate::thread::Thread;
use crate::{entry, memory, process, signal, sys};

/// The first code of the runtime in a program that has not begun: on the boot stack.
pub extern "C" fn begin(boot: *const Boot) -> ! {
    // SAFETY: the keeper wrote the block, and there is one thread.
    unsafe { process::set_boot(&*boot) };
    let mask = sys::exchange_mask(signal::ALL);
    let actions = Actions::new();
    for signal in 1..=SIGNALS as i32 {
        actions.inherit(signal, signal::kernel_handler(signal));
    }
    let member = Member::new(actions, process::boot().slot);
    let thread = match Thread::new(member) {
        Ok(thread) => thread,
        Err(errno) => process::stop(format_args!("no memory for a stack: error {}", errno.0)),
    };
    signal::install();
    thread.settle();
    let mask = signal::set_believed_mask(thread, signal::Set(mask));
    memory::start();
    process::enable_dispatch();
    // SAFETY: the frame is on the thread's own stack, and describes the program's beginning.
    unsafe { entry::resume(first_frame(thread, mask)) }
}

/// The program's beginning: its instruction and stack pointer, and zeros.
fn first_frame(thread: &Thread, mask: u64) -> *const Frame {
    /// cs and ss of 64-bit user code.
    const SEGMENTS: u64 = 0x33 | 0x2b << 48;
    let boot = process::boot();
    let registers = Registers {
        rip: boot.program_ip,
        rsp: boot.program_sp,
        segments: SEGMENTS,
        eflags: 0x202,
        ..Registers::default()
    };
    let stack = AltStack { flags: 0, ..thread.own_stack() };
    let context = Context { registers, stack, mask, ..Context::default() };
    let frame = (((thread.stack_end() - size_of::<Frame>()) & !15) - 8) as *mut Frame;
    // SAFETY: the top of the block is unused.
    unsafe { frame.write(Frame { restorer: 0, context, info: Info::new(0, 0) }) };
    frame
}
