//! Starts a handler of the program's, as the kernel would.

use super::action::{Action, DEFAULT, IGNORE};
use super::{Set, arrive, is_on_stack, set_virtual_mask, virtual_mask};
use crate::frame::{AltStack, Context, Frame, Info, fpstate_len, make_initial};
use crate::memory::dump::Dump;
use crate::thread::Thread;
use crate::{call, entry, files, keys, memory, site, sys, tracer, user};
use linux_raw_sys::general as nr;

/// The red zone: bytes below a stack pointer that belong to the interrupted function.
const RED_ZONE: u64 = 128;

/// The trap flag, the direction flag and the resume flag, which a handler starts without.
const CLEARED: u64 = 1 << 8 | 1 << 10 | 1 << 16;

/// `cs` and `ss` of 64-bit code: a handler runs as such, whatever was interrupted (code of the 32-bit
/// mode, of a segment of the program's own).
pub(super) const SEGMENTS: u64 = 0x33 | 0x2b << 48;
pub(super) const SEGMENTS_MASK: u64 = 0xffff | 0xffff << 48;

/// Continues the interrupted code in the program's handler of a signal.
pub fn deliver(thread: &Thread, context: &mut Context, info: &Info) {
    site::show(&mut context.registers);
    let action = thread.member().take_action(info.signal);
    match action.handler {
        DEFAULT => return deliver_default_in(context, info),
        IGNORE => return,
        _ => {}
    }
    let was = virtual_mask(thread, context.mask);
    let Some(stack) = write_frame(thread, context, info, &action, was) else {
        // The kernel's answer to a stack that cannot take a frame: another signal, which may have
        // another stack.
        let fault = Info::new(nr::SIGSEGV as i32, nr::SI_KERNEL as i32);
        thread.told.set(0);
        return match info.signal == fault.signal {
            true => deliver_default_in(context, &fault),
            false => deliver_fault(thread, context, &fault),
        };
    };
    let mut mask = thread.waiting_mask.take().unwrap_or(was).union(action.mask);
    if !action.has(nr::SA_NODEFER) {
        mask = mask.union(Set(1 << (info.signal - 1)));
    }
    context.mask = set_virtual_mask(thread, mask);
    let registers = &mut context.registers;
    registers.rdi = info.signal as u64;
    registers.rsi = stack + core::mem::offset_of!(Frame, info) as u64;
    registers.rdx = stack + core::mem::offset_of!(Frame, context) as u64;
    registers.rax = 0;
    registers.rsp = stack;
    registers.rip = action.handler;
    registers.segments = registers.segments & !SEGMENTS_MASK | SEGMENTS;
    registers.eflags &= !CLEARED;
    // The handler starts with the initial floating-point state. It stays in its place: another signal may
    // come before the handler's first instruction.
    // SAFETY: the kernel wrote the state on this thread's stack, and it was copied to the program's.
    unsafe {
        make_initial(registers.fpstate);
        keys::make_initial(registers.fpstate);
    }
}

/// Delivers the signal of an access that is really bad: the kernel does not let such a signal be
/// blocked or ignored.
pub fn deliver_fault(thread: &Thread, context: &mut Context, info: &Info) {
    let action = thread.member().signals().action(info.signal);
    if action.is_handled() && !thread.virtual_mask.get().contains(info.signal) {
        return deliver(thread, context, info);
    }
    deliver_default_in(context, info);
}

/// Causes the kernel's default action for a signal in the interrupted code, so that a core dump has the
/// program's registers. The caller holds no lock.
fn deliver_default_in(context: &mut Context, info: &Info) {
    let _kept = call::robust::keep();
    if memory::dump::prepare(info.signal) == Dump::Complete {
        dump_in(context, info);
    }
    deliver_default_at_once(info);
}

/// Dumps core by a signal that waits until the interrupted code goes on.
fn dump_in(context: &mut Context, info: &Info) -> ! {
    site::show(&mut context.registers);
    sys::exchange_mask(u64::MAX);
    arrive::reset(info.signal);
    queue(info);
    context.mask = !Set::of(info.signal).0;
    // SAFETY: the kernel wrote the context for a handler on this stack.
    unsafe { entry::leave(context) }
}

/// Causes the kernel's default action for a signal, which usually ends the process. The caller
/// holds no lock.
pub fn deliver_default(info: &Info) {
    let _kept = call::robust::keep();
    let _ = memory::dump::prepare(info.signal);
    deliver_default_at_once(info);
}

/// The same for a signal that came at any moment of the runtime's work.
pub fn deliver_default_at_once(info: &Info) {
    arrive::reset(info.signal);
    queue(info);
    if info.code > 0 && sys::process_id() == INIT {
        fault(info.signal);
    }
    if Set::NEEDED.contains(info.signal) {
        // It has been delivered, as it is never blocked: its default did not end the process.
        Thread::current().stops.ends.set(0);
        arrive::install();
    }
}

/// Sends a signal to this thread. A managed tracer that has been told of it is not told again.
fn queue(info: &Info) {
    let mut info = *info;
    let current = Thread::current();
    if current.told.get() == info.signal && tracer::process_that_traces().is_some() {
        tracer::mark_told(&mut info);
        current.stops.ends.set(info.signal as u64);
    }
    // The kernel lets no process pose as the kernel, even to itself, except by a plain signal.
    let args = [sys::process_id().into(), sys::thread_id().into(), info.signal as u64];
    // SAFETY: a signal to this thread.
    unsafe {
        let [process, thread, signal] = args;
        let queued = [process, thread, signal, (&raw mut info) as u64];
        if sys::call(nr::__NR_rt_tgsigqueueinfo, queued).is_err() {
            let _ = sys::call(nr::__NR_tgkill, args);
        }
    }
}

/// The first process of a namespace: no signal that is sent ends it by default, but a fault does.
const INIT: u32 = 1;

/// Makes a bad access, if there is one that raises this signal.
fn fault(signal: i32) {
    /// Beyond the end of any file.
    const BEYOND: u64 = 1 << 46;
    let shared = u64::from(files::shared()[0]);
    let place = match signal as u32 {
        nr::SIGSEGV => Ok(0),
        nr::SIGBUS => sys::map_apart(memory::PAGE, nr::PROT_READ, nr::MAP_SHARED, shared, BEYOND),
        _ => return,
    };
    if let Ok(place) = place {
        let mut byte = 0_u8;
        // SAFETY: the access does not succeed, and the signal has its default.
        unsafe { entry::copy(&raw mut byte, place as *const u8, 1) };
    }
}

/// Writes the frame where the kernel would; returns its address, or `None` if the stack is not
/// writable.
fn write_frame(
    thread: &Thread,
    context: &Context,
    info: &Info,
    action: &Action,
    mask: Set,
) -> Option<u64> {
    if !action.has(nr::SA_RESTORER) {
        return None;
    }
    let (top, left) = stack_for(thread, context.registers.rsp, action);
    // SAFETY: the context is of a frame that the kernel wrote on this thread's stack.
    let state: &[u8] = unsafe {
        let state = match context.registers.fpstate {
            0 => return None,
            state => state,
        };
        core::slice::from_raw_parts(state as *const u8, fpstate_len(state))
    };
    let fpstate = top.checked_sub(state.len() as u64)? & !63;
    // The handler finds the stack as after a call instruction.
    let stack = (fpstate.checked_sub(size_of::<Frame>() as u64)? & !15).checked_sub(8)?;
    if left.is_some_and(|start| stack < start) {
        return None;
    }
    let mut copy = *context;
    copy.stack = thread.alt_stack.get();
    copy.registers.fpstate = fpstate;
    copy.mask = mask.0;
    let frame = Frame { restorer: action.restorer, context: copy, info: *info };
    user::write_bytes(fpstate, state).ok()?;
    user::write(stack, &frame).ok()?;
    if copy.stack.flags & nr::SS_AUTODISARM != 0 {
        thread.alt_stack.set(AltStack { flags: nr::SS_DISABLE, ..AltStack::default() });
    }
    Some(stack)
}

/// Where a handler's frame begins, downwards; and where the alternate stack ends, if it is there.
fn stack_for(thread: &Thread, sp: u64, action: &Action) -> (u64, Option<u64>) {
    let alt = thread.alt_stack.get();
    if is_on_stack(&alt, sp) {
        return (sp - RED_ZONE, Some(alt.start));
    }
    if action.has(nr::SA_ONSTACK) && alt.flags & nr::SS_DISABLE == 0 && alt.len > 0 {
        return (alt.start + alt.len, Some(alt.start));
    }
    (sp.wrapping_sub(RED_ZONE), None)
}
