//! From the runtime's entry to the program's first instruction.

use crate::frame::{AltStack, Context, Frame, Info, Registers};
use crate::member::Member;
use crate::signal::action::{Actions, SIGNALS};
use crate::thread::Thread;
use crate::{
    address_limit, entry, file_size, files, heap, keys, launcher, memory, process, signal, site,
    sys, vdso,
};
use pagefault_control::{Boot, Control};
use pagefault_linux::store::descriptor;

/// The runtime's entry, on the boot stack, before the program begins. All signals are blocked: until its
/// handler is installed, not even `SIGSYS` may arrive.
pub extern "C" fn begin(boot: *const Boot) -> ! {
    // SAFETY: the supervisor wrote the block.
    let boot = unsafe { &*boot };
    // The image may be where it is in the whole tree; the stack is at a place of its own.
    pagefault_linux::apart::begin(boot.image_start ^ boot.program_sp);
    address_limit::begin();
    // SAFETY: there is one thread.
    let mapped = unsafe { process::set_boot(boot) };
    process::protect_constants();
    if let Err(errno) = mapped {
        process::stop_unshared(format_args!(
            "no address space for the tree's memory: error {}",
            errno.0
        ));
    }
    if process::boot().control != 0 && process::boot().magic != Control::LAYOUT {
        process::stop_unshared(format_args!("the command and the runtime are of different builds"));
    }
    memory::look_at_image();
    process::look_at_counter();
    vdso::begin();
    keys::begin();
    begin_room();
    heap::begin();
    let actions = Actions::new();
    for signal in 1..=SIGNALS as i32 {
        actions.inherit(signal, signal::kernel_handler(signal));
    }
    let member = Member::new(actions, process::boot().slot);
    let thread = match Thread::new(member) {
        Ok(thread) => thread,
        Err(errno) => process::stop(format_args!("no memory for a stack: error {}", errno.0)),
    };
    thread.member().note_actions();
    let block = thread.stack_end() as u64 - TOP;
    files::begin();
    file_size::begin();
    descriptor::with_room_for_all(|| file_size::unlimited(memory::start));
    files::begin_program();
    heap::settle();
    // SAFETY: the block is the thread's, and the boot stack is not needed any more.
    unsafe { entry::go_on(begin_on_block, block, 0) }
}

/// Reserves one range for all tables, unless a limit that nobody may raise would count it against the program.
fn begin_room() {
    let Some(control) = process::control() else { return };
    if control.room_bytes() > 0 && address_limit::is_unlimited() {
        // Without it, tables have smaller rooms or mappings of their own.
        let _ = pagefault_linux::room::begin(control.room_bytes() as usize);
    }
}

/// The space at the top of the block for the program's first frame.
const TOP: u64 = 1024;

/// Continues on the thread's own stack.
extern "C" fn begin_on_block(_: u64) -> ! {
    let boot = process::boot();
    // SAFETY: no code runs on the boot stack any more, nor does what loaded the runtime.
    let _ = unsafe { sys::unmap(boot.stack_start as usize, boot.stack_len as usize) };
    memory::begin_threads();
    let thread = Thread::current();
    signal::install();
    thread.settle();
    sys::exchange_mask(signal::ALL);
    memory::serve::begin();
    site::begin(thread);
    let mask = signal::set_virtual_mask(thread, signal::Set(boot.mask));
    launcher::begin();
    process::enable_dispatch();
    process::try_clock();
    // SAFETY: the frame is on the thread's own stack, and describes the program's start.
    unsafe { entry::resume(first_frame(thread, mask)) }
}

/// The program's initial state: its instruction and stack pointer, and zeros.
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
