//! Side stacks: room to answer a fault when the handler's own stack is small.
//!
//! `SIGSEGV` must be handled on the alternate stack: otherwise a program that overflows its stack
//! dies without its own handler's message. That stack is too small for a memory manager.

use crate::lock::FutexMutex;
use crate::reserve::Reservation;
use lock_api::RawMutex;
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

const STACK: usize = 256 << 10;
const COUNT: usize = 4;

struct Stacks {
    memory: Reservation,
    locks: [FutexMutex; COUNT],
}

static STACKS: OnceLock<Stacks> = OnceLock::new();

/// Reserves the stacks, before the first use.
pub(super) fn prepare() -> Result<(), Errno> {
    if STACKS.get().is_none() {
        let memory = Reservation::new(STACK * COUNT).map_err(|error| error.errno)?;
        // Another thread was faster: its stacks serve too.
        let _ = STACKS.set(Stacks { memory, locks: [FutexMutex::INIT; COUNT] });
    }
    Ok(())
}

/// Runs `f` on a side stack, waiting for one if all are taken. `f` must not unwind.
pub(super) fn on_side_stack<R, F: FnOnce() -> R>(f: F) -> R {
    let Some(stacks) = STACKS.get() else { return f() };
    let index = (0..COUNT).find(|&i| stacks.locks[i].try_lock()).unwrap_or_else(|| {
        stacks.locks[0].lock();
        0
    });
    let mut job = Job { f: Some(f), result: MaybeUninit::uninit() };
    // SAFETY: the stack is whole, aligned, and nobody else's while its lock is held; `run` gets
    // the job that it was made for, which outlives the call; and it returns normally.
    let result = unsafe {
        let top = stacks.memory.start().add((index + 1) * STACK);
        pagefault_call_on_stack(top, run::<R, F>, std::ptr::from_mut(&mut job).cast());
        job.result.assume_init()
    };
    // SAFETY: locked above.
    unsafe { stacks.locks[index].unlock() };
    result
}

struct Job<R, F> {
    f: Option<F>,
    result: MaybeUninit<R>,
}

unsafe extern "C" fn run<R, F: FnOnce() -> R>(job: *mut u8) {
    // SAFETY: `on_side_stack` passes its own job, and waits meanwhile.
    let job = unsafe { &mut *job.cast::<Job<R, F>>() };
    if let Some(f) = job.f.take() {
        job.result.write(f());
    }
}

unsafe extern "C" {
    fn pagefault_call_on_stack(
        top: *mut u8,
        function: unsafe extern "C" fn(*mut u8),
        argument: *mut u8,
    );
}

// Calls `function(argument)` with the stack pointer at `top`, a multiple of 16.
core::arch::global_asm!(
    ".globl pagefault_call_on_stack",
    ".hidden pagefault_call_on_stack",
    ".type pagefault_call_on_stack, @function",
    "pagefault_call_on_stack:",
    "push rbp",
    "mov rbp, rsp",
    "mov rsp, rdi",
    "mov rdi, rdx",
    "call rsi",
    "mov rsp, rbp",
    "pop rbp",
    "ret",
    ".size pagefault_call_on_stack, . - pagefault_call_on_stack",
);
