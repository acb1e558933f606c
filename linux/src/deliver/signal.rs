//! Inline delivery: the faulting thread runs the memory manager in its own signal handler.
//!
//! The kernel raises `SIGBUS` for a missing or write-protected page of a managed range, and the
//! processor's error code is in the signal frame. A fetch from a page that is not executable on the
//! host raises `SIGSEGV`. All signals are blocked in the handler. Signals that are not ours go on
//! to the previous handler.

use super::guard::{self, Registers};
use super::pager::answer;
use super::{Answer, HostFault, Signal, stack, stop};
use crate::lock::FutexMutex;
use crate::space::{self, SpaceCore};
use libc::{c_int, c_void, siginfo_t, ucontext_t};
use pagefault_machine::Access;
use rustix::io::Errno;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

/// The beginning of `siginfo_t` for faults, as the kernel lays it out on x86-64.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct FaultInfo {
    pub signal: i32,
    pub errno: i32,
    pub code: i32,
    pub pad: i32,
    pub address: u64,
    /// For a signal that a thread of ours sends: the intended code, since a thread may not send a
    /// kernel's code to another.
    pub meant: u64,
    pub rest: [u64; 12],
}

const _: () = assert!(size_of::<FaultInfo>() == size_of::<siginfo_t>());

/// Marks a signal sent by one of our threads (`si_errno`).
pub(super) const OURS: i32 = 0x7066_6c74;

const WRITE: i64 = 2;
const FETCH: i64 = 16;

/// Installs the handlers, unless an earlier call in this process has done so.
pub(crate) fn install() -> Result<(), Errno> {
    static INSTALLED: lock_api::Mutex<FutexMutex, bool> = lock_api::Mutex::new(false);
    let mut installed = INSTALLED.lock();
    if !*installed {
        stack::prepare()?;
        install_one(libc::SIGBUS, 0)?;
        install_one(libc::SIGSEGV, libc::SA_ONSTACK)?;
        *installed = true;
    }
    Ok(())
}

fn install_one(signal: c_int, flags: c_int) -> Result<(), Errno> {
    let previous = PREVIOUS.of(signal);
    // SAFETY: an all-zero sigaction is a valid value; the previous disposition is stored before
    // the handler that reads it exists; the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | flags;
        libc::sigfillset(&mut action.sa_mask);
        let mut now = MaybeUninit::uninit();
        if libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) != 0 {
            return Err(Errno::INVAL);
        }
        // An earlier try may have come this far: then the previous handler is already known.
        if now.assume_init_ref().sa_sigaction == action.sa_sigaction {
            return Ok(());
        }
        previous.write(now);
        if libc::sigaction(signal, &action, std::ptr::null_mut()) != 0 {
            return Err(Errno::INVAL);
        }
    }
    Ok(())
}

/// The previous handlers of the two signals.
struct Previous([UnsafeCell<MaybeUninit<libc::sigaction>>; 2]);

// SAFETY: written once by `install_one`, before the handlers that read it are installed.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous([const { UnsafeCell::new(MaybeUninit::uninit()) }; 2]);

impl Previous {
    fn of(&self, signal: c_int) -> *mut MaybeUninit<libc::sigaction> {
        self.0[usize::from(signal == libc::SIGSEGV)].get()
    }
}

extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: errno is the thread's own; the interrupted code must find it as it was.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel hands a valid siginfo and ucontext to an SA_SIGINFO handler, and nobody
    // else refers to them.
    let (info, context) = unsafe { (&*info.cast::<FaultInfo>(), &mut *context.cast()) };
    handle(signal, info, context);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn handle(signal: c_int, info: &FaultInfo, context: &mut ucontext_t) {
    if info.errno == OURS {
        raise(signal, Signal::from_numbers(signal, info.meant as i32), info.address, context);
        return;
    }
    // Only a kernel's code is positive: the others are signals that a process sent.
    let ours = if info.code > 0 { managed(signal, info.address) } else { None };
    let Some(space) = ours else { return pass_on(signal, info, context) };
    match answer_with_room(signal, space, &host_fault(info.address, context)) {
        Answer::Resume(_) => {}
        // In an identity space, this is not our page after all.
        Answer::Signal(Signal::NotMapped) if space.is_identity() => pass_on(signal, info, context),
        Answer::Signal(verdict) => raise(signal, verdict, info.address, context),
        Answer::Short => stop("pagefault: out of memory\n"),
        Answer::Stop(message) => stop(message),
    }
}

/// Our space that contains a fault. A fault in an identity space with `SIGSEGV` is the host's own.
fn managed<'a>(signal: c_int, address: u64) -> Option<&'a SpaceCore> {
    // SAFETY: the faulting access is under way, and whoever drops a space answers for there being
    // none.
    let space = unsafe { space::find(address)? };
    if !space.shared.descriptor.is_ours() {
        return None;
    }
    (signal == libc::SIGBUS || !space.is_identity()).then_some(space)
}

/// Answers on this stack, or on a side stack if the signal's handler runs on a small alternate
/// stack.
fn answer_with_room(signal: c_int, space: &SpaceCore, fault: &HostFault) -> Answer {
    if signal == libc::SIGBUS {
        return answer(space, fault);
    }
    stack::on_side_stack(|| answer(space, fault))
}

fn host_fault(address: u64, context: &ucontext_t) -> HostFault {
    let registers = &context.uc_mcontext.gregs;
    let code = registers[libc::REG_ERR as usize];
    let access = if code & WRITE != 0 {
        Access::Write
    } else if code & FETCH != 0 {
        Access::Execute
    } else {
        Access::Read
    };
    let ip = registers[libc::REG_RIP as usize] as u64;
    let sp = registers[libc::REG_RSP as usize] as u64;
    HostFault { address, access, ip, sp }
}

/// Ends a guarded access, or hands the signal to its handler. `came` is the signal that came.
fn raise(came: c_int, verdict: Signal, address: u64, context: &mut ucontext_t) {
    let registers: &mut Registers = &mut context.uc_mcontext.gregs;
    if guard::fix_up(registers, verdict, address) {
        return;
    }
    let (signal, code) = verdict.numbers();
    let info = FaultInfo { signal, errno: 0, code, pad: 0, address, meant: 0, rest: [0; 12] };
    pass_on(came, &info, context);
}

/// Hands a signal to the handler that would have received it without us.
fn pass_on(came: c_int, info: &FaultInfo, context: &mut ucontext_t) {
    let action = disposition(came, info.signal);
    let info_ptr = std::ptr::from_ref(info).cast::<siginfo_t>().cast_mut();
    match action.sa_sigaction {
        libc::SIG_IGN if info.code <= 0 => {}
        libc::SIG_DFL | libc::SIG_IGN => die_of(info),
        handler if action.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: a disposition with SA_SIGINFO holds a handler of this signature.
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(info.signal, info_ptr, std::ptr::from_mut(context).cast());
        }
        handler => {
            // SAFETY: a disposition without SA_SIGINFO holds a handler of this signature.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(info.signal);
        }
    }
}

/// The other handler of a signal: one that the program installed since, or the previous one.
///
/// If `signal` itself came, a handler that was installed since has had it, and has handed it on to
/// this one: it does not get it again.
fn disposition(came: c_int, signal: c_int) -> libc::sigaction {
    let mut now = MaybeUninit::uninit();
    // SAFETY: reads the disposition into `now`; on success it is initialised, and the previous one
    // was initialised before this handler existed.
    unsafe {
        if libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) == 0 {
            let now: libc::sigaction = now.assume_init();
            if came != signal && now.sa_sigaction != on_fault as *const () as usize {
                return now;
            }
        }
        (*PREVIOUS.of(signal)).assume_init()
    }
}

/// Causes the default action, which for these signals ends the process: the signal is queued again
/// and arrives when this handler returns.
fn die_of(info: &FaultInfo) {
    // SAFETY: sets a disposition to its default, and queues a signal to this thread with a siginfo
    // of the kernel's size.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(info.signal, &action, std::ptr::null_mut());
        let (process, thread) = (libc::getpid(), libc::gettid());
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, info.signal, info);
    }
}
