//! What the C library would do: the first instruction, signals, a heap, the functions that compiled
//! code calls.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::{asm, global_asm};
use core::ptr::null_mut;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;
use rustix::mm::{MapFlags, ProtFlags};

global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call pagefault_freestanding_main",
    "ud2",
    // Returns from a signal handler.
    ".globl pagefault_freestanding_restore",
    "pagefault_freestanding_restore:",
    "mov eax, 15",
    "syscall",
);

#[unsafe(no_mangle)]
extern "C" fn pagefault_freestanding_main() -> ! {
    super::run();
    exit(0)
}

/// Ends the process.
pub fn exit(status: i32) -> ! {
    // SAFETY: exit_group does not return.
    unsafe { asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn)) }
}

/// As the kernel knows it.
#[repr(C)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

unsafe extern "C" {
    fn pagefault_freestanding_restore();
}

type Handler = fn(address: u64, code: u64, ip: u64, sp: u64);

static HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Has `handler` called for each `SIGBUS`, with the address, the processor's error code, and the
/// faulting instruction's address and stack.
pub fn on_bus_error(handler: Handler) {
    HANDLER.store(handler as usize, Relaxed);
    const SIGINFO_RESTORER: u64 = 0x0400_0004;
    let action = Action {
        handler: on_signal as *const () as usize,
        flags: SIGINFO_RESTORER,
        restorer: pagefault_freestanding_restore as *const () as usize,
        mask: !0,
    };
    let result: i64;
    // SAFETY: rt_sigaction reads the action, which has the kernel's form.
    unsafe {
        asm!("syscall", inlateout("rax") 13_i64 => result, in("rdi") 7, in("rsi") &raw const action,
            in("rdx") 0, in("r10") 8, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    if result != 0 {
        exit(line!() as i32);
    }
}

/// The words of `siginfo_t` and of `ucontext_t` before and among the registers.
unsafe extern "C" fn on_signal(_: i32, info: *const u64, context: *const u64) {
    // SAFETY: the kernel's structures: the address is the third word of the information; the
    // registers follow five words of the context, with rsp, rip and the error code at 15, 16, 19.
    let (address, sp, ip, code) = unsafe {
        let registers = context.add(5);
        (*info.add(2), *registers.add(15), *registers.add(16), *registers.add(19))
    };
    // SAFETY: only `on_bus_error` stores it, before the handler is installed.
    let handler: Handler = unsafe { core::mem::transmute(HANDLER.load(Relaxed)) };
    handler(address, code, ip, sp);
}

/// Memory that is never given back.
struct Heap {
    next: AtomicUsize,
    end: AtomicUsize,
}

#[global_allocator]
static HEAP: Heap = Heap { next: AtomicUsize::new(0), end: AtomicUsize::new(0) };

const HEAP_BYTES: usize = 1 << 30;

// SAFETY: hands out parts of one mapping, each once. This program has one thread.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.end.load(Relaxed) == 0 {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a fresh mapping.
            let made = unsafe { rustix::mm::mmap_anonymous(null_mut(), HEAP_BYTES, access, flags) };
            let Ok(start) = made else { return null_mut() };
            self.next.store(start as usize, Relaxed);
            self.end.store(start as usize + HEAP_BYTES, Relaxed);
        }
        let start = self.next.load(Relaxed).next_multiple_of(layout.align());
        if start + layout.size() > self.end.load(Relaxed) {
            return null_mut();
        }
        self.next.store(start + layout.size(), Relaxed);
        start as *mut u8
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of `alloc`; the host's pages are zero and are never
        // handed out twice.
        unsafe { self.alloc(layout) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[panic_handler]
fn on_panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(255)
}

// String instructions, so that the compiler cannot turn these into calls of themselves.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller passes `n` readable and `n` writable bytes.
    unsafe {
        asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= n {
        // SAFETY: the target does not begin inside the source: upwards every byte is read before it
        // is overwritten.
        return unsafe { memcpy(to, from, n) };
    }
    // SAFETY: downwards from the last byte, which exists: `n` is not 0 here.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") n => _, inout("rdi") to.add(n - 1) => _,
            inout("rsi") from.add(n - 1) => _, options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    // SAFETY: the caller passes `n` writable bytes.
    unsafe {
        asm!("rep stosb", inout("rcx") n => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    for at in 0..n {
        // SAFETY: `at` is below `n`, and the caller passes `n` readable bytes twice.
        let (x, y) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, n) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: the caller's string is readable up to its zero byte, where the loop ends.
    while unsafe { text.add(n).read_volatile() } != 0 {
        n += 1;
    }
    n
}

/// Named by the compiled `core`, which was built for unwinding; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    exit(254)
}
