//! One load, one store and one instruction fetch, each of which may fault and report it.
//!
//! The instruction that may fault is at a known address. The signal handler compares the
//! interrupted instruction with it, notes the signal, and continues at the place where the access
//! reports failure. A signal from anywhere else is a bug of this program and kills the process.

use super::shared::Reply;
use std::arch::global_asm;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

global_asm!(
    // u32 pagefault_script_load(address: rdi, out: rsi); 0 when it happened.
    "pagefault_script_load:",
    "pagefault_script_load_at:",
    "mov al, [rdi]",
    "mov [rsi], al",
    "xor eax, eax",
    "ret",
    // u32 pagefault_script_store(address: rdi, byte: sil)
    "pagefault_script_store:",
    "pagefault_script_store_at:",
    "mov [rdi], sil",
    "xor eax, eax",
    "ret",
    // A load or store continues here after a fault.
    "pagefault_script_failed:",
    "mov eax, 1",
    "ret",
    // u32 pagefault_script_execute(address: rdi); the stack is aligned for the call by the push.
    "pagefault_script_execute:",
    "push rbx",
    "mov rbx, rsp",
    "call rdi",
    "xor eax, eax",
    "pop rbx",
    "ret",
    // A fetch continues here after a fault: the return address is dropped.
    "pagefault_script_execute_failed:",
    "mov rsp, rbx",
    "mov eax, 1",
    "pop rbx",
    "ret",
);

unsafe extern "C" {
    fn pagefault_script_load(address: u64, out: *mut u8) -> u32;
    fn pagefault_script_store(address: u64, byte: u8) -> u32;
    fn pagefault_script_execute(address: u64) -> u32;
    static pagefault_script_load_at: u8;
    static pagefault_script_store_at: u8;
    static pagefault_script_failed: u8;
    static pagefault_script_execute_failed: u8;
}

/// The last signal, noted by the handler. Each process has its own copy of these.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);
/// The instruction being fetched, or 0.
static FETCHING: AtomicU64 = AtomicU64::new(0);

/// Loads the byte at `address`.
pub(super) fn load(address: u64) -> Result<u8, Reply> {
    let mut byte = 0;
    // SAFETY: a load has no effect, and its fault continues at the failed label; `byte` is live.
    match unsafe { pagefault_script_load(address, &raw mut byte) } {
        0 => Ok(byte),
        _ => Err(noted()),
    }
}

/// Stores `byte` at `address`, which lies in the scripts' window.
pub(super) fn store(address: u64, byte: u8) -> Result<(), Reply> {
    // SAFETY: the window holds nothing that this program refers to, and a fault continues at the
    // failed label.
    match unsafe { pagefault_script_store(address, byte) } {
        0 => Ok(()),
        _ => Err(noted()),
    }
}

/// Calls `address`, where a `ret` is or a fetch faults.
pub(super) fn execute(address: u64) -> Result<(), Reply> {
    FETCHING.store(address, Ordering::Relaxed);
    // SAFETY: the caller has seen to it that what can be fetched there is a `ret`; a fault at the
    // fetch continues at its own label with the stack as it was before the call.
    let failed = unsafe { pagefault_script_execute(address) };
    FETCHING.store(0, Ordering::Relaxed);
    match failed {
        0 => Ok(()),
        _ => Err(noted()),
    }
}

fn noted() -> Reply {
    Reply::Fault {
        signal: SIGNAL.load(Ordering::Relaxed),
        code: CODE.load(Ordering::Relaxed),
        address: ADDRESS.load(Ordering::Relaxed),
    }
}

/// Installs the handler, on a stack of its own.
pub(super) fn listen(stack: *mut u8, size: usize) {
    // SAFETY: the stack is `size` bytes that nothing else uses; the handler has the signature that
    // SA_SIGINFO asks for and touches only atomics and its arguments.
    unsafe {
        let stack = libc::stack_t { ss_sp: stack.cast(), ss_flags: 0, ss_size: size };
        libc::sigaltstack(&raw const stack, std::ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a handler of SA_SIGINFO a siginfo and a ucontext that live as long
    // as the handler runs; for these two signals the siginfo holds an address.
    let (info, code, address, context) = unsafe {
        let address = (*info).si_addr() as u64;
        (&*info, (*info).si_code, address, &mut *context.cast::<libc::ucontext_t>())
    };
    debug_assert!(info.si_signo == signal);
    let at = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
    let interrupted = *at as u64;
    let place = |label: *const u8| label as u64;
    let touching = interrupted == place(&raw const pagefault_script_load_at)
        || interrupted == place(&raw const pagefault_script_store_at);
    let fetching = interrupted != 0 && interrupted == FETCHING.load(Ordering::Relaxed);
    if touching {
        *at = place(&raw const pagefault_script_failed) as i64;
    } else if fetching {
        *at = place(&raw const pagefault_script_execute_failed) as i64;
    } else {
        // SAFETY: setting the default action and returning lets the instruction fault again, and
        // that ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    SIGNAL.store(signal, Ordering::Relaxed);
    CODE.store(code, Ordering::Relaxed);
    ADDRESS.store(address, Ordering::Relaxed);
}
