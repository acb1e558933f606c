//! The return from a handler of the program's: `rt_sigreturn(2)`.

use super::{Set, deliver, set_virtual_mask};
use crate::frame::{AltStack, Context, Frame, Info, fpstate_len, fpstate_len_of, make_initial};
use crate::thread::Thread;
use crate::user;
use linux_raw_sys::general as nr;

/// Continues the thread with the state in the frame at its stack pointer.
pub fn return_from_handler(thread: &Thread, context: &mut Context) {
    if restore(thread, context).is_none() {
        // The kernel's answer to an invalid frame.
        deliver::deliver_fault(
            thread,
            context,
            &Info::new(nr::SIGSEGV as i32, nr::SI_KERNEL as i32),
        );
    }
}

fn restore(thread: &Thread, context: &mut Context) -> Option<()> {
    // The restorer's address was popped by the handler's return.
    let frame: Frame = user::read(context.registers.rsp.checked_sub(8)?).ok()?;
    let own_state = context.registers.fpstate;
    let theirs = frame.context.registers.fpstate;
    if theirs == 0 {
        // SAFETY: the kernel wrote it on this thread's stack.
        unsafe { make_initial(own_state) };
    } else {
        let head: [u8; 512] = user::read(theirs).ok()?;
        // SAFETY: the kernel wrote our own state, on this thread's stack, as long as it says.
        let room = unsafe {
            let len = fpstate_len(own_state);
            core::slice::from_raw_parts_mut(own_state as *mut u8, len)
        };
        let len = fpstate_len_of(&head, room.len());
        user::read_bytes(theirs, &mut room[..len]).ok()?;
    }
    context.registers = frame.context.registers;
    context.registers.fpstate = own_state;
    context.flags = frame.context.flags;
    context.mask = set_virtual_mask(thread, Set(frame.context.mask));
    let stack = frame.context.stack;
    // Like the kernel, this ignores an invalid alternate stack.
    let off = AltStack { flags: nr::SS_DISABLE, ..AltStack::default() };
    thread.alt_stack.set(if stack.flags & nr::SS_DISABLE != 0 { off } else { stack });
    Some(())
}
