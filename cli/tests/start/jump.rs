//! A runtime that manages nothing, for the tests of the command's side: it checks its boot block and
//! memory, and jumps to the program.
//!
//! Programs of some names show what processes of a tree do. `relay` executes its first argument as a
//! managed process does, and continues as the program if that fails. `paused` stops before it asks the
//! supervisor, `held` stops between the answer and its exec. `brood` has many children that end. `spawn`
//! executes in a child; `thread` in a thread that is not the process's first; `nested` in a thread of a
//! child in a process namespace of its own. `build.rs` compiles it, without the standard library.
#![no_std]
#![no_main]

use core::arch::{asm, naked_asm};
use core::panic::PanicInfo;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use pagefault_control::{Boot, Control, Message, Slot, ask};

/// A word that needs a relocation: the address of another.
static MARK: u64 = 0x006b_7261_6d5f_6670;
static mut WHERE: &u64 = &MARK;

#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn pagefault_start(boot: &Boot) -> ! {
    naked_asm!(
        "mov rbx, rdi",
        "call {begin}",
        "mov rcx, [rbx + {ip}]",
        "mov rsp, [rbx + {sp}]",
        "xor eax, eax",
        "xor ebx, ebx",
        "xor edi, edi",
        "xor esi, esi",
        "xor edx, edx",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "jmp rcx",
        begin = sym begin,
        ip = const core::mem::offset_of!(Boot, program_ip),
        sp = const core::mem::offset_of!(Boot, program_sp),
    )
}

extern "C" fn begin(boot: &Boot) {
    let control = map(boot);
    if !is_sound(boot, control) {
        exit(99);
    }
    // rt_sigprocmask(SIG_SETMASK): all signals are blocked until now.
    call4(14, [2, &raw const boot.mask as u64, 0, 8]);
    // SAFETY: what the kernel put on the program's stack: a count, and the arguments with a null.
    let arguments = unsafe { (boot.program_sp as *const *const u8).add(1) };
    // SAFETY: as above.
    let name = unsafe { *arguments };
    if ends_with(name, b"paused") {
        stop();
        relay(boot, control, boot.slot, arguments, || {});
    } else if ends_with(name, b"held") {
        relay(boot, control, boot.slot, arguments, stop);
    } else if ends_with(name, b"brood") {
        brood(boot, control);
    } else if ends_with(name, b"relay") {
        relay(boot, control, boot.slot, arguments, || {});
    } else if ends_with(name, b"spawn") {
        spawn(boot, control, |number| relay(boot, control, number, arguments, || {}));
    } else if ends_with(name, b"thread") {
        threaded(boot, control, boot.slot, arguments);
    } else if ends_with(name, b"nested") {
        // The children are in a process namespace of their own.
        if call(272, [0x2000_0000, 0, 0]) != 0 {
            exit(93);
        }
        spawn(boot, control, |number| threaded(boot, control, number, arguments));
    }
}

/// Maps the control memory.
fn map(boot: &Boot) -> &'static Control {
    const READ_WRITE: i64 = 3;
    const SHARED: i64 = 1;
    let address: i64;
    // SAFETY: a new mapping replaces nothing.
    unsafe {
        asm!("syscall", inlateout("rax") 9_i64 => address, in("rdi") 0, in("rsi") boot.control_len,
            in("rdx") READ_WRITE, in("r10") SHARED, in("r8") i64::from(boot.control_fd), in("r9") 0,
            lateout("rcx") _, lateout("r11") _);
    }
    if address < 0 || boot.control_len < size_of::<Control>() as u64 {
        exit(92);
    }
    // SAFETY: just mapped, for good, and long enough.
    unsafe { &*(address as *const Control) }
}

fn is_sound(boot: &Boot, control: &Control) -> bool {
    let here = begin as *const () as u64;
    let block = boot as *const Boot as u64;
    boot.magic == Control::LAYOUT
        && boot.control == 0
        && control.is_ready()
        && (boot.text_start..boot.text_start + boot.text_len).contains(&here)
        && (boot.image_start..boot.image_start + boot.image_len).contains(&boot.text_start)
        && (boot.stack_start..boot.stack_start + boot.stack_len).contains(&block)
        // SAFETY: nobody else uses it.
        && unsafe { core::ptr::read_volatile(*(&raw const WHERE)) } == MARK
        && call(72, [boot.control_fd as u64, 1, 0]) == 0
        && call(72, [boot.socket_fd as u64, 1, 0]) == 0
}

/// Executes the first argument; returns if that fails.
fn relay(
    boot: &Boot,
    control: &Control,
    number: u32,
    arguments: *const *const u8,
    seized: impl FnOnce(),
) {
    let Some(slot) = control.slots.get(number) else { exit(98) };
    // SAFETY: there is a first argument; the environment lies behind the null.
    let (path, words) = unsafe { (*arguments.add(1), arguments.add(1)) };
    let mut environment = words;
    // SAFETY: as above.
    unsafe {
        while !(*environment).is_null() {
            environment = environment.add(1);
        }
        environment = environment.add(1);
    }
    ask_supervisor(boot, slot, number);
    seized();
    call(59, [path as u64, words as u64, environment as u64]);
    send(boot, Message::Cancel { slot: number });
}

fn ask_supervisor(boot: &Boot, slot: &Slot, number: u32) {
    slot.control_fd.store(boot.control_fd, Relaxed);
    slot.socket_fd.store(boot.socket_fd, Relaxed);
    slot.code_fd.store(boot.code_fd, Relaxed);
    slot.tid.store(call(186, [0; 3]) as u32, Relaxed);
    slot.word.store(ask::ASKED, Release);
    send(boot, Message::Exec { slot: number });
    while slot.word.load(Acquire) == ask::ASKED {
        call(202, [slot.word.as_ptr() as u64, 0, u64::from(ask::ASKED)]);
    }
    if slot.word.load(Acquire) != ask::SEIZED {
        exit(97);
    }
}

/// Runs a closure in a child with a slot, and exits with the child's status.
fn spawn(boot: &Boot, control: &Control, child: impl FnOnce(u32)) {
    let Some(number) = control.slots.take() else { exit(96) };
    match call(57, [0; 3]) {
        0 => {
            send(boot, Message::Born { slot: number });
            control.slots.charge(number, 1000, u64::MAX);
            child(number);
            exit(95)
        }
        process => {
            let mut status = 0_i32;
            call(61, [process as u64, &raw mut status as u64, 0]);
            exit(if status & 0x7f == 0 { status >> 8 } else { 128 + (status & 0x7f) })
        }
    }
}

/// Makes children that are charged and end; waits until all traces of them are gone.
fn brood(boot: &Boot, control: &Control) {
    for _ in 0..200 {
        let Some(number) = control.slots.take() else { exit(96) };
        let child = call(57, [0; 3]);
        if child == 0 {
            send(boot, Message::Born { slot: number });
            exit(if control.slots.charge(number, 1000, u64::MAX) { 0 } else { 91 });
        }
        call(61, [child as u64, 0, 0]);
    }
    while control.slots.taken() > 1 || control.slots.charged() > 0 {
        // A millisecond.
        let time = [0_u64, 1_000_000];
        call(35, [&raw const time as u64, 0, 0]);
    }
}

/// The arguments of a new thread.
struct Given<'a>(&'a Boot, &'a Control, u32, *const *const u8);

#[repr(align(16))]
struct Stack([u64; 2048]);
static mut STACK: Stack = Stack([0; 2048]);

/// Executes the first argument in another thread.
fn threaded(boot: &Boot, control: &Control, number: u32, arguments: *const *const u8) -> ! {
    let given = Given(boot, control, number, arguments);
    // CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM.
    let flags = 0x0005_0f00;
    // SAFETY: the stack is nobody else's; what is given lives on, since this thread only waits.
    unsafe { clone(flags, (&raw mut STACK).add(1).cast(), &given) };
    loop {
        call(34, [0; 3]);
    }
}

/// Begins a thread with `rdx` as its argument; returns in the thread that called.
#[unsafe(naked)]
unsafe extern "C" fn clone(flags: u64, stack: *mut u8, given: &Given) {
    naked_asm!(
        "push r12",
        "mov r12, rdx",
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "mov eax, 56",
        "syscall",
        "test eax, eax",
        "jz 2f",
        "pop r12",
        "ret",
        "2: mov rdi, r12",
        "call {begin}",
        "ud2",
        begin = sym begin_thread,
    )
}

extern "C" fn begin_thread(given: &Given) -> ! {
    relay(given.0, given.1, given.2, given.3, || {});
    exit(92)
}

/// Stops this process, as SIGSTOP does.
fn stop() {
    call(62, [call(39, [0; 3]) as u64, 19, 0]);
}

fn send(boot: &Boot, message: Message) {
    let packet = message.to_bytes();
    // The send to a supervisor that is gone must not kill us.
    let flags = 0x4000;
    let sent: i64;
    // SAFETY: sends bytes that live through the call.
    unsafe {
        asm!("syscall", inlateout("rax") 44_i64 => sent, in("rdi") boot.socket_fd as i64,
            in("rsi") packet.as_ptr(), in("rdx") packet.len(), in("r10") flags, in("r8") 0,
            in("r9") 0, lateout("rcx") _, lateout("r11") _);
    }
    if sent < 0 {
        exit(125);
    }
}

fn ends_with(name: *const u8, end: &[u8]) -> bool {
    let mut len = 0;
    // SAFETY: a string that ends with zero.
    let name = unsafe {
        // Volatile, or the compiler would call `strlen`, which does not exist here.
        while name.add(len).read_volatile() != 0 {
            len += 1;
        }
        core::slice::from_raw_parts(name, len)
    };
    name.len() >= end.len() && name.iter().rev().zip(end.iter().rev()).all(|(a, b)| a == b)
}

fn exit(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn)) }
}

fn call(number: i64, [a, b, c]: [u64; 3]) -> i64 {
    call4(number, [a, b, c, 0])
}

fn call4(number: i64, [a, b, c, d]: [u64; 4]) -> i64 {
    let answer;
    // SAFETY: the callers' calls touch no memory but what they name.
    unsafe {
        asm!("syscall", inlateout("rax") number => answer, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") 0, in("r9") 0, lateout("rcx") _, lateout("r11") _);
    }
    answer
}

/// Code of `core` that was built for unwinding refers to it; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(94)
}
