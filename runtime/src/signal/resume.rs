//! The return from a handler of the program's: `rt_sigreturn(2)`.

use super::{Set, deliver, set_stack, set_virtual_mask};
use crate::frame::{Context, FXSAVE, Frame, Info, fpstate_len, fpstate_len_of, make_initial};
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
    let sp = context.registers.rsp;
    let frame: Frame = user::read(sp.checked_sub(8)?).ok()?;
    // Like the kernel, this sets mask and stack before it finds registers that it cannot load, and
    // ignores a stack that `sigaltstack` would refuse.
    context.mask = set_virtual_mask(thread, Set(frame.context.mask));
    let _ = set_stack(thread, frame.context.stack, sp);
    let own_state = context.registers.fpstate;
    load_state(own_state, frame.context.registers.fpstate)?;
    context.registers = frame.context.registers;
    context.registers.fpstate = own_state;
    context.flags = frame.context.flags;
    Some(())
}

/// Copies the program's floating-point state to our own, in the kernel's frame.
fn load_state(own: u64, theirs: u64) -> Option<()> {
    /// What `fxrstor` and `xrstor` require.
    const ALIGNMENT: [u64; 2] = [16, 64];
    if theirs == 0 {
        // SAFETY: the kernel wrote it on this thread's stack.
        unsafe { make_initial(own) };
        return Some(());
    }
    let head: [u8; FXSAVE] = user::read(theirs).ok()?;
    // SAFETY: the kernel wrote our own state, on this thread's stack, as long as it says.
    let room = unsafe { core::slice::from_raw_parts_mut(own as *mut u8, fpstate_len(own)) };
    let len = fpstate_len_of(&head, room.len());
    if !theirs.is_multiple_of(ALIGNMENT[usize::from(len > FXSAVE)]) {
        return None;
    }
    user::read_bytes(theirs, &mut room[..len]).ok()
}
