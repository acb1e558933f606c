//! A signal arrives: a system call, a fault, or one of the program's.

use super::action::{Action, IGNORE};
use super::restart::{self, Faulted};
use super::{ALL, Set, deliver, deliver_default_at_once, shut_out};
use crate::call::Manner;
use crate::entry::{self, pagefault_return, pagefault_return_blocked};
use crate::frame::{Context, Info};
use crate::thread::Thread;
use crate::{call, keys, launcher, memory, process, site, sys, tracer};
use core::ptr::null;
use linux_raw_sys::general as nr;

/// `struct sigaction` for the kernel.
#[repr(C)]
struct KernelAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// `SYS_USER_DISPATCH`: a system call was trapped.
const USER_DISPATCH: i32 = 2;

/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xc000_003e;

/// The flags of all our handlers.
const OURS: u32 = nr::SA_SIGINFO | nr::SA_ONSTACK | nr::SA_RESTORER;

/// Takes over the signals that the runtime needs.
pub fn install() {
    // During a call other signals may come, as during a call of the kernel's.
    let flags = OURS | nr::SA_NODEFER | nr::SA_RESTART;
    set(nr::SIGSYS as i32, entry::pagefault_on_call as *const () as u64, flags, Mask::Nothing);
    // The same while an absent page comes back, so that the mask need not be restored afterwards. A fault
    // within a call's copies nests.
    set(nr::SIGBUS as i32, entry::pagefault_on_absence as *const () as u64, flags, Mask::Nothing);
    set(nr::SIGSEGV as i32, entry::pagefault_on_fault as *const () as u64, flags, Mask::Everything);
    take_cores();
}

/// Takes over the signals whose default dumps core: the host would dump what is resident, and the registers of
/// the runtime.
fn take_cores() {
    for signal in memory::dump::SIGNALS {
        let action = Thread::current().member().signals().action(signal as i32);
        if action.handler == super::action::DEFAULT {
            settle(signal as i32, &action);
        }
    }
}

/// Gives the kernel the program's action for a signal.
pub fn settle(signal: i32, action: &Action) {
    if Set::NEEDED.contains(signal) {
        return;
    }
    // The kernel itself obeys these flags.
    let kept = (action.flags as u32) & (nr::SA_NOCLDSTOP | nr::SA_NOCLDWAIT);
    let dumps_core =
        action.handler == super::action::DEFAULT && memory::dump::is_taken_over(signal);
    if action.is_handled() || dumps_core {
        // Whether a call goes on after the handler is decided on the way out; the kernel says with
        // this flag that it could.
        let flags = OURS | nr::SA_RESTART | kept;
        set(signal, entry::pagefault_on_signal as *const () as u64, flags, Mask::Everything);
    } else {
        set(signal, action.handler, kept, Mask::Nothing);
    }
}

/// Makes the kernel ignore a signal.
pub fn ignore(signal: i32) {
    set(signal, IGNORE, 0, Mask::Nothing);
}

/// Makes the kernel use its default for a signal, for good.
pub fn reset(signal: i32) {
    set(signal, super::action::DEFAULT, 0, Mask::Nothing);
}

#[derive(Clone, Copy)]
enum Mask {
    Nothing,
    Everything,
}

fn set(signal: i32, handler: u64, flags: u32, mask: Mask) {
    let restorer = match mask {
        Mask::Nothing => pagefault_return as *const () as u64,
        Mask::Everything => pagefault_return_blocked as *const () as u64,
    };
    let mask = match mask {
        Mask::Nothing => 0,
        Mask::Everything => ALL,
    };
    let action = KernelAction { handler, flags: (flags | nr::SA_RESTORER).into(), restorer, mask };
    let args = [signal as u64, (&raw const action) as u64, 0, 8];
    // SAFETY: the handlers are of the type that the flags ask for and run on stacks of ours.
    let _ = unsafe { sys::call(nr::__NR_rt_sigaction, args) };
}

/// Has the host call a handler when a thread of the calling process's parent ends, in a process of ours that blocks
/// every other signal.
pub fn tell_of_parent(handler: extern "C" fn(i32, *const Info, *mut Context)) {
    const SIGNAL: u32 = nr::SIGALRM;
    set(SIGNAL as i32, handler as *const () as u64, OURS | nr::SA_RESTART, Mask::Everything);
    let set_signal = u64::from(linux_raw_sys::prctl::PR_SET_PDEATHSIG);
    // SAFETY: the handler was just installed.
    let _ = unsafe { sys::call(nr::__NR_prctl, [set_signal, SIGNAL.into()]) };
    sys::exchange_mask(!Set::of(SIGNAL as i32).0);
}

/// The kernel's current action for a signal.
pub fn kernel_handler(signal: i32) -> u64 {
    let mut action = KernelAction { handler: 0, flags: 0, restorer: 0, mask: 0 };
    let args = [signal as u64, 0, (&raw mut action) as u64, 8];
    // SAFETY: the place for the answer is valid.
    let _ = unsafe { sys::call(nr::__NR_rt_sigaction, args) };
    action.handler
}

/// A system call of the program's.
pub extern "C" fn on_call(_signal: i32, info: *const Info, context: *mut Context) {
    let thread = Thread::current();
    // SAFETY: the kernel gives a handler both.
    let (info, context) = unsafe { (&*info, &mut *context) };
    if info.code == USER_DISPATCH && !was_sent(info, context) {
        keys::enter(thread, context.registers.fpstate);
        if process::finish_try(&mut context.registers) {
            return;
        }
        // The architecture follows the address and the number.
        let manner = match (info.fields[1] >> 32) as u32 {
            ARCHITECTURE => Manner::Today,
            _ => Manner::Old,
        };
        match manner {
            Manner::Today => on_trap(thread, context),
            Manner::Old => call::dispatch(thread, context, manner),
        }
        return;
    }
    keys::open_in_handler();
    launcher::look_at(info);
    if let Interrupted::Runtime = on_async(thread, info, context) {
        // The signal waits for the way out of the call that was interrupted.
        keep_closed(thread, context);
        // SAFETY: the kernel wrote the context, at the top of this stack.
        unsafe { entry::leave(context) }
    }
}

/// Blocks all signals in the interrupted call where one of the program's came during this handler, which
/// blocks none: it waits for the way out of that call, and there is room for one.
fn keep_closed(thread: &Thread, context: &mut Context) {
    if shut_out(thread).is_none() {
        context.mask = ALL;
        entry::leave_window(&mut context.registers);
    }
}

/// A system call that trapped: the program's own instruction, or that of a stub that stands for it.
fn on_trap(thread: &Thread, context: &mut Context) {
    let (ip, number) = (context.registers.rip, context.registers.rax as u32);
    let record = site::record_of_trap(ip);
    let made = record.and_then(|record| site::watch(thread, context, record));
    thread.entered.set(context);
    match &made {
        // The end of a call that needed no trap until a signal came.
        Some(made) => call::finish(thread, context, made.number, made.raw),
        None => call::dispatch(thread, context, Manner::Today),
    }
    thread.entered.set(null());
    if made.is_some() {
        return;
    }
    match record {
        Some(record) => record.go_on(&mut context.registers),
        None => site::count(thread, ip, number),
    }
    if call::is_direct(number) && thread.seccomp.is_off() {
        // SAFETY: such a call changes registers alone.
        unsafe { site::resume(thread, context) }
    }
}

/// An access to an absent page or beyond the end of a file, or a sent signal with the same number.
pub extern "C" fn on_absence(_signal: i32, info: *const Info, context: *mut Context) {
    keys::open_in_handler();
    let thread = Thread::current();
    // SAFETY: the kernel gives a handler both.
    let (info, context) = unsafe { (&*info, &mut *context) };
    let is_ours = thread.has_stack_at(context.registers.rsp);
    if let Some(info) = tracer::shown(thread, info) {
        thread.told.set(info.signal);
        if shut_out(thread).is_none() {
            // It comes after the one that waits, whose handler may not be interrupted by it.
            thread.held().put(&info);
        } else {
            deliver::deliver_fault(thread, context, &info);
        }
    } else if was_sent(info, context) {
        sys::exchange_mask(ALL);
        on_async(thread, info, context);
    } else {
        match memory::fault(info, &context.registers) {
            memory::Answer::Resume => {
                // A reclaim request that came meanwhile.
                memory::obey_requests();
                let faulted = if is_ours { Faulted::Runtime } else { Faulted::Program };
                // SAFETY: the kernel wrote the context for this handler, which blocks no signal.
                unsafe { restart::restart(thread, context, faulted) }
            }
            memory::Answer::Signal(info) => {
                thread.told.set(if memory::is_passive() { info.signal } else { 0 });
                let is_first = shut_out(thread).is_some();
                // A signal that waits comes first, as its handler could not once the one of the access
                // blocks it. Then the access is made again.
                if is_ours || is_first {
                    on_bad_access(thread, context, &info);
                }
            }
        }
    }
    if is_ours {
        keep_closed(thread, context);
        // SAFETY: the kernel wrote the context, at the top of this stack.
        unsafe { entry::leave(context) }
    }
}

/// A forbidden access, or a sent signal with the same number.
pub extern "C" fn on_fault(signal: i32, info: *const Info, context: *mut Context) {
    keys::open_in_handler();
    let thread = Thread::current();
    thread.told.set(signal);
    // SAFETY: the kernel gives a handler both.
    let (info, context) = unsafe { (&*info, &mut *context) };
    if let Some(info) = tracer::shown(thread, info) {
        return deliver::deliver_fault(thread, context, &info);
    }
    if was_sent(info, context) {
        on_async(thread, info, context);
    } else if !call::make_vsyscall(thread, context, info) {
        on_bad_access(thread, context, info);
    }
}

/// Whether a signal was sent. A process may pose as the kernel to itself, as crash handlers do that send the signal once
/// more: it comes where a call of ours ends, and no access is made there.
fn was_sent(info: &Info, context: &Context) -> bool {
    /// `syscall`.
    const CALL: [u8; 2] = [0x0f, 0x05];
    let ip = context.registers.rip;
    let follows_call = || {
        // SAFETY: text of the runtime's, whose first instruction is no call's end.
        process::is_runtime(ip) && unsafe { ((ip - 2) as *const [u8; 2]).read() } == CALL
    };
    info.code <= 0 || follows_call()
}

/// An access that cannot succeed. All signals are blocked.
fn on_bad_access(thread: &Thread, context: &mut Context, info: &Info) {
    if site::correct(&mut context.registers) {
        return;
    }
    if process::is_runtime(context.registers.rip) {
        if !entry::fix_up(&mut context.registers) {
            process::stop(format_args!(
                "a defect of pagefault: {:#x} accessed {:#x}",
                context.registers.rip - process::image_start(),
                context.registers.cr2
            ));
        }
        return;
    }
    if !tracer::show(thread, context, info) {
        deliver::deliver_fault(thread, context, info);
    }
}

/// A signal that the program handles.
pub extern "C" fn on_signal(_signal: i32, info: *const Info, context: *mut Context) {
    keys::open_in_handler();
    // SAFETY: the kernel gives a handler both.
    let (info, context) = unsafe { (&*info, &mut *context) };
    on_async(Thread::current(), info, context);
}

/// The supervisor asks for something for others: frames, or a server.
fn on_reclaim_request(thread: &Thread, context: &mut Context, request: memory::Request) {
    memory::ask(request);
    let runs_program = !thread.has_stack_at(context.registers.rsp);
    if runs_program || entry::is_in_call(&context.registers) {
        memory::obey_requests();
        entry::call_again(thread, &mut context.registers);
    }
}

/// The code that a signal interrupted.
enum Interrupted {
    Program,
    Runtime,
}

fn on_async(thread: &Thread, info: &Info, context: &mut Context) -> Interrupted {
    // The runtime runs only on its own stack, the program never does.
    let is_ours = thread.has_stack_at(context.registers.rsp);
    let interrupted = if is_ours { Interrupted::Runtime } else { Interrupted::Program };
    if let Some(request) = info.request() {
        // Nothing blocks it, so it may have interrupted a holder of a lock.
        on_reclaim_request(thread, context, request);
        return interrupted;
    }
    thread.told.set(info.signal);
    let blocked = thread.waiting_mask.get().unwrap_or(thread.virtual_mask.get());
    let action = thread.member().signals().action(info.signal);
    if Set::NEEDED.contains(info.signal) && (blocked.contains(info.signal) || thread.has_pending())
    {
        thread.held().put(info);
    } else if !is_ours {
        deliver(thread, context, info);
    } else if thread.has_pending() {
        // All other signals are blocked, so this cannot happen.
        deliver_default_at_once(info);
    } else if action.handler != IGNORE {
        thread.defer(info);
        thread.site.note_mask(context.mask);
        context.mask = ALL;
        entry::leave_window(&mut context.registers);
    }
    interrupted
}
