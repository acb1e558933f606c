//! The address space: the runtime's place, its start and its end.

use crate::frame::Registers;
use crate::member::{Child, Member};
use crate::thread::Thread;
use crate::{files, memory, shared, signal, site, sys};
use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::ptr::NonNull;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use pagefault_control::{Boot, Control};

/// The exit status of a program that the runtime stopped.
pub const STATUS_FAILED: i32 = 125;

/// The supervisor's boot block; written before there is a second thread.
struct Told(UnsafeCell<Boot>);

// SAFETY: written once, at the start, by the only thread.
unsafe impl Sync for Told {}

static BOOT: Told = Told(UnsafeCell::new(Boot {
    magic: 0,
    control: 0,
    control_len: 0,
    control_fd: -1,
    socket_fd: -1,
    code_fd: -1,
    slot: 0,
    flags: 0,
    spare: 0,
    mask: 0,
    image_start: 0,
    image_len: 0,
    text_start: 0,
    text_len: 0,
    program_ip: 0,
    program_sp: 0,
    stack_start: 0,
    stack_len: 0,
    constants_start: 0,
    constants_len: 0,
    prepared: 0,
}));

/// What the supervisor told.
pub fn boot() -> &'static Boot {
    // SAFETY: nobody writes after the start.
    unsafe { &*BOOT.0.get() }
}

/// Notes what the supervisor told, and maps the control memory.
///
/// # Safety
/// Called once, by the only thread.
pub unsafe fn set_boot(boot: &Boot) -> sys::Result<()> {
    let place = BOOT.0.get();
    // SAFETY: passed on to the caller.
    unsafe { *place = *boot };
    if boot.control_len == 0 {
        return Ok(());
    }
    let (control, len) = shared::begin(boot)?;
    // SAFETY: passed on to the caller.
    unsafe { ((*place).control, (*place).control_len) = (control, len) };
    Ok(())
}

/// Takes the right to write to constants that the loader had to relocate.
pub fn protect_constants() {
    let boot = boot();
    if boot.image_start == boot.prepared {
        return;
    }
    let args = [boot.constants_start, boot.constants_len, nr::PROT_READ.into()];
    // SAFETY: the supervisor says that nothing else is there. If the host refuses they merely stay writable.
    let _ = unsafe { sys::call(nr::__NR_mprotect, args) };
}

/// The memory shared with the command; `None` where the program runs without a memory manager.
pub fn control() -> Option<&'static Control> {
    let address = boot().control as *const Control;
    // SAFETY: the supervisor mapped it, as long as a Control, for as long as the program lives.
    unsafe { address.as_ref() }
}

/// Whether the vDSO may not be used for the time: it reads the processor's counter, which may be
/// forbidden (`PR_SET_TSC`), or is not where it was.
static COUNTER_OFF: AtomicBool = AtomicBool::new(false);

/// Notes that a thread of the program may not read the processor's counter, or not by the vDSO.
pub fn counter_off() {
    COUNTER_OFF.store(true, Relaxed);
}

/// Looks whether the program begins so.
pub fn look_at_counter() {
    let mut mode = 0_u32;
    let option = u64::from(linux_raw_sys::prctl::PR_GET_TSC);
    // SAFETY: the word is ours.
    let _ = unsafe { sys::call(nr::__NR_prctl, [option, (&raw mut mode) as u64, 0, 0, 0]) };
    COUNTER_OFF.store(mode == linux_raw_sys::prctl::PR_TSC_SIGSEGV, Relaxed);
}

/// Set while [`try_clock`] reads the clock.
static TRIES: AtomicBool = AtomicBool::new(false);

/// Reads the clock once after system calls trap, before the program begins: with some of the host's clock
/// sources (`hpet`, `acpi_pm`) the vDSO itself makes a system call for the time. A trap in the midst of the
/// manager's work would wait for its locks.
pub fn try_clock() {
    let mask = sys::exchange_mask(signal::ALL & !signal::Set::of(nr::SIGSYS as i32).0);
    TRIES.store(true, Relaxed);
    now();
    TRIES.store(false, Relaxed);
    sys::exchange_mask(mask);
}

/// Makes the system call of the vDSO's that [`try_clock`] met, whose trap is being handled; returns whether it is
/// one.
pub fn finish_try(registers: &mut Registers) -> bool {
    if !TRIES.load(Relaxed) {
        return false;
    }
    counter_off();
    let Registers { rdi, rsi, rdx, r10, r8, r9, .. } = *registers;
    // SAFETY: the vDSO asks the time for the runtime.
    registers.rax =
        unsafe { sys::raw_call(registers.rax as u32, [rdi, rsi, rdx, r10, r8, r9]) } as u64;
    true
}

/// The time of a clock that only goes forward, in nanoseconds.
pub fn now() -> u64 {
    if COUNTER_OFF.load(Relaxed) {
        let mut time = [0_u64; 2];
        let args = [u64::from(nr::CLOCK_MONOTONIC), (&raw mut time) as u64];
        // SAFETY: the structure is ours.
        let _ = unsafe { sys::call(nr::__NR_clock_gettime, args) };
        return time[0] * 1_000_000_000 + time[1];
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Whether a range has something of the runtime's own: its image, its tables, the control memory.
pub fn overlaps_runtime(start: u64, len: u64) -> bool {
    let boot = boot();
    let overlaps = |own: u64, own_len: u64| {
        start < own.saturating_add(own_len) && own < start.saturating_add(len)
    };
    overlaps(boot.image_start, boot.image_len)
        || overlaps(boot.control, boot.control_len)
        || site::overlaps(start, len)
        || pagefault_linux::apart::overlaps(start, len)
}

/// Whether an instruction is the runtime's.
pub fn is_runtime(ip: u64) -> bool {
    ip.wrapping_sub(boot().text_start) < boot().text_len
}

/// Where the runtime's image begins.
pub fn image_start() -> u64 {
    boot().image_start
}

/// `PR_SYS_DISPATCH_ON`.
const DISPATCH_ON: u64 = 1;

/// Makes the calling thread's system calls enter the runtime, except those from our own code.
pub fn enable_dispatch() {
    let option = u64::from(linux_raw_sys::prctl::PR_SET_SYSCALL_USER_DISPATCH);
    let args = [option, DISPATCH_ON, boot().text_start, boot().text_len, 0];
    // SAFETY: the handler is installed, and this thread has a stack for it.
    if let Err(errno) = unsafe { sys::call(nr::__NR_prctl, args) } {
        stop(format_args!(
            "the kernel refuses to hand over system calls (syscall user dispatch, Linux 5.11 with \
             CONFIG_GENERIC_ENTRY): error {}",
            errno.0
        ));
    }
}

/// Notes a child that was forked, or that none was.
pub fn forked(member: NonNull<Member>, raw: i64) {
    let child = if raw > 0 { Child::Lives } else { Child::Gone { number: 0 } };
    if child == Child::Lives {
        // SAFETY: freed below.
        note_number(unsafe { member.as_ref() }, raw as u32);
    }
    // SAFETY: the child has its own copy, and here no thread is of it.
    unsafe { Member::end(member, child) };
}

/// Notes the number of a child, in case it is killed before it can report to the supervisor.
fn note_number(member: &Member, number: u32) {
    let Some(slots) = control().map(|control| &control.slots) else { return };
    if let (Some(child), Some(ticket)) = (slots.get(member.slot()), member.ticket())
        && are_numbers_the_supervisor_s()
    {
        child.set_forked(ticket, number);
    }
}

/// Whether the supervisor knows this process, and so its children, by the numbers that they have here.
pub fn are_numbers_the_supervisor_s() -> bool {
    number_at_supervisor() == Some(sys::process_id())
}

/// Whether processes certainly have other numbers here than the supervisor knows them by: in a process namespace of
/// the program's own.
pub fn has_numbers_of_its_own() -> bool {
    number_at_supervisor().is_some_and(|number| number != sys::process_id())
}

/// The number by which the supervisor knows this process; `None` until it does.
fn number_at_supervisor() -> Option<u32> {
    let own = control()?.slots.get(Thread::current().member().slot())?;
    Some(own.pid.load(Relaxed)).filter(|number| *number != 0)
}

/// Whether the calling thread's next child is in another process namespace, perhaps as its first process.
pub fn makes_children_elsewhere() -> bool {
    let [mut own, mut children] = [[0; 32]; 2];
    // Until that namespace has a process, the host names none.
    files::link(c"/proc/thread-self/ns/pid", &mut own)
        != files::link(c"/proc/thread-self/ns/pid_for_children", &mut children)
}

/// Whether an exec can give this process no rights.
pub fn no_new_rights() -> bool {
    let option = u64::from(linux_raw_sys::prctl::PR_GET_NO_NEW_PRIVS);
    // SAFETY: the flag is asked for.
    let answer = unsafe { sys::call(nr::__NR_prctl, [option, 0, 0, 0, 0]) };
    answer == Ok(1)
}

/// Whether the process has `CAP_SYS_ADMIN`.
pub fn is_administrator() -> bool {
    has_capability(21)
}

/// Whether the process may raise its limits (`CAP_SYS_RESOURCE`).
pub fn may_raise_limits() -> bool {
    has_capability(24)
}

fn has_capability(number: u32) -> bool {
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u64 = 0x2008_0522;
    let head = [VERSION];
    // Two structures: effective, permitted and inheritable, of 32 each.
    let mut sets = [0_u32; 6];
    // SAFETY: both structures are ours.
    let asked =
        unsafe { sys::call(nr::__NR_capget, [(&raw const head) as u64, (&raw mut sets) as u64]) };
    asked.is_ok() && sets[number as usize / 32 * 3] & 1 << (number % 32) != 0
}

/// Counts a call that the runtime refused, for the statistics.
pub fn count_refused() {
    if let Some(control) = control() {
        control.counters.refused.add(1);
    }
}

/// Prints a message on standard error.
pub fn say(message: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 512], len: 0 };
    let _ = writeln!(line, "pagefault: process {}: {message}", sys::process_id());
    sys::write_all(2, &line.bytes[..line.len]);
}

/// Ends the process as the program asks, with the arguments of its `exit_group`: a tracer sees all of them.
pub fn exit(args: [u64; 6]) -> ! {
    memory::serve::end_with_process();
    // SAFETY: the process ends.
    let _ = unsafe { sys::raw_call(nr::__NR_exit_group, args) };
    sys::exit_group(args[0] as i32)
}

/// Ends a process that cannot continue, with a message.
pub fn stop(message: fmt::Arguments<'_>) -> ! {
    memory::dump::wait_if_shown();
    let mut line = Line { bytes: [0; 512], len: 0 };
    let _ = write!(line, "{message}");
    let text = core::str::from_utf8(&line.bytes[..line.len]).unwrap_or("a message that is cut");
    // The command prints it if it can.
    let owner = memory::serve::owner_of_caller();
    let process = owner.unwrap_or_else(sys::process_id);
    if !control().is_some_and(|control| control.fail(process, text)) {
        say(message);
    }
    if let Some(owner) = owner {
        // The program cannot go on without its server.
        sys::kill(owner, nr::SIGKILL);
    }
    sys::exit_group(STATUS_FAILED)
}

/// The same when the shared memory cannot be trusted.
pub fn stop_unshared(message: fmt::Arguments<'_>) -> ! {
    say(message);
    sys::exit_group(STATUS_FAILED)
}

/// A message, cut where it is too long: there may be no memory for more.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let len = text.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}
