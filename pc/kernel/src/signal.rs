//! Signals: which are pending, what a process does about them, and the frame that a handler finds
//! on its stack.

pub mod altstack;
pub mod cause;
mod queue;

pub use queue::Queue;

use crate::entry::TrapFrame;
use crate::errno::Errno;
use crate::layout::TASK_SIZE;
use crate::process::{self, Death, Process, Reason, Thread, trace};
use crate::scheduler::{self, Patience};
use crate::task::Task;
use crate::{clock, cpu, report, user};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[allow(missing_docs, reason = "the names are those of signal(7)")]
mod numbers {
    pub const SIGILL: u32 = 4;
    pub const SIGTRAP: u32 = 5;
    pub const SIGBUS: u32 = 7;
    pub const SIGFPE: u32 = 8;
    pub const SIGKILL: u32 = 9;
    pub const SIGSEGV: u32 = 11;
    pub const SIGPIPE: u32 = 13;
    pub const SIGALRM: u32 = 14;
    pub const SIGCHLD: u32 = 17;
    pub const SIGCONT: u32 = 18;
    pub const SIGSTOP: u32 = 19;
    pub const SIGTSTP: u32 = 20;
    pub const SIGTTIN: u32 = 21;
    pub const SIGTTOU: u32 = 22;
    pub const SIGURG: u32 = 23;
    pub const SIGXFSZ: u32 = 25;
    pub const SIGVTALRM: u32 = 26;
    pub const SIGPROF: u32 = 27;
    pub const SIGWINCH: u32 = 28;
}
pub use numbers::*;

const DEFAULT: u64 = 0;
const IGNORE: u64 = 1;
const SA_ONSTACK: u64 = 0x0800_0000;
const SA_NODEFER: u64 = 0x4000_0000;
const SA_RESTART: u64 = 0x1000_0000;
const SA_RESETHAND: u64 = 0x8000_0000;

/// What a process does about a signal (`sigaction`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Action {
    /// The handler's address, 0 for the default, 1 to ignore.
    pub handler: u64,
    /// `SA_` flags.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// What is blocked while it runs.
    pub mask: u64,
}

impl Action {
    /// Whether nothing comes of a signal.
    const fn ignores(&self, number: u32) -> bool {
        match self.handler {
            DEFAULT => is_ignored_by_default(number),
            handler => handler == IGNORE,
        }
    }
}

/// The actions of a process, by signal number.
#[derive(Clone)]
pub struct Actions(pub [Action; 65]);

impl Default for Actions {
    fn default() -> Self {
        Self([Action::default(); 65])
    }
}

impl Actions {
    /// What exec leaves: handlers are gone, what was ignored stays ignored.
    pub fn reset(&mut self) {
        for action in &mut self.0 {
            let handler = if action.handler == IGNORE { IGNORE } else { DEFAULT };
            *action = Action { handler, ..Action::default() };
        }
    }
}

/// What comes with a signal.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// The signal.
    pub number: u32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`, or `si_pid` with `si_uid` above it.
    pub address: u64,
    /// `si_status` or `si_value`.
    pub status: u64,
}

/// `si_code` of what the kernel sends of itself.
pub const SI_KERNEL: i32 = 0x80;

impl Info {
    /// Whether a fault raised it, and `address` is where.
    const fn is_fault(&self) -> bool {
        self.code > 0 && matches!(self.number, SIGSEGV | SIGBUS | SIGFPE | SIGILL | SIGTRAP)
    }

    /// The beginning of `siginfo_t`.
    pub const fn words(&self) -> [u64; 4] {
        [self.number as u64, self.code as u32 as u64, self.address, self.status]
    }
}

/// The length of the instruction that makes a system call.
const SYSCALL_BYTES: u64 = 2;

const fn bit(number: u32) -> u64 {
    1 << (number - 1)
}

/// The signals that cannot be blocked.
pub const UNBLOCKABLE: u64 = bit(SIGKILL) | bit(SIGSTOP);

/// Raises a signal for the running thread that it can neither block nor ignore (spec A20).
pub fn force(number: u32, code: i32, address: u64) {
    let thread = process::thread();
    let blocked = thread.mask.load(Ordering::Relaxed) & bit(number) != 0;
    {
        let mut actions = thread.process.actions.lock();
        let action = &mut actions.0[number as usize];
        if blocked || action.handler == IGNORE {
            *action = Action::default();
        }
    }
    thread.mask.fetch_and(!bit(number), Ordering::Relaxed);
    thread.pending.force(Info { number, code, address, status: 0 });
}

/// Sends a signal to a process, in the running process's name (`SI_USER`).
pub fn send(process: &Arc<Process>, number: u32) {
    let address = process::current().id.into();
    send_with(process, Info { number, code: 0, address, status: 0 });
}

/// Sends a signal to a process.
pub fn send_with(process: &Arc<Process>, info: Info) {
    // Without room, only what a program queues is refused.
    let _ = queue(process, info);
}

/// Sends a signal to a process, unless too many wait there (`EAGAIN`).
pub fn queue(process: &Arc<Process>, info: Info) -> Result<(), Errno> {
    let number = info.number;
    if number == SIGKILL {
        process::kill_threads(process, Death { reason: Reason::Signal(SIGKILL) });
        return Ok(());
    }
    let ignored = process.actions.lock().0[number as usize].ignores(number);
    // Who blocks a signal may wait for it, whatever is done about it.
    if ignored && !process.is_traced() && !is_blocked_by_one(process, number) {
        return Ok(());
    }
    process.pending.add(info)?;
    process.interrupt_threads();
    Ok(())
}

/// Changes what a process does about a signal; returns what it did before. A signal that it now ignores no
/// longer waits.
pub fn set_action(number: u32, action: Action) -> Action {
    let process = process::current();
    let before = core::mem::replace(&mut process.actions.lock().0[number as usize], action);
    if action.ignores(number) {
        process.pending.forget(number);
        let threads = process.threads.lock().clone();
        for task in threads.into_iter().filter_map(process::find_task) {
            if let Some(thread) = &task.thread {
                thread.pending.forget(number);
            }
        }
    }
    before
}

fn is_blocked_by_one(process: &Process, number: u32) -> bool {
    let threads = process.threads.lock().clone();
    let blocks = |task: Arc<Task>| {
        let mask = task.thread.as_ref().map_or(0, |thread| thread.mask.load(Ordering::Relaxed));
        mask & bit(number) != 0
    };
    threads.into_iter().filter_map(process::find_task).any(blocks)
}

/// Sends a signal to a thread; number 0 only asks whether it is there.
pub fn send_to_thread(id: u32, info: Info) -> Result<(), Errno> {
    let task = process::find_task(id).ok_or(Errno::ESRCH)?;
    let thread = task.thread.as_ref().ok_or(Errno::ESRCH)?;
    match info.number {
        0 => {}
        SIGKILL => send_with(&thread.process, info),
        _ => {
            thread.pending.add(info)?;
            scheduler::interrupt(id);
        }
    }
    Ok(())
}

/// Whether the running thread has something to do before it goes on waiting.
pub fn is_pending() -> bool {
    let thread = process::thread();
    thread.process.ends_this_thread() || deliverable() != 0
}

/// The signals that wait for the running thread, blocked ones too.
pub fn pending() -> u64 {
    pending_for(process::thread())
}

fn pending_for(thread: &Thread) -> u64 {
    thread.pending.set() | thread.process.pending.set()
}

fn deliverable() -> u64 {
    deliverable_to(process::thread())
}

fn deliverable_to(thread: &Thread) -> u64 {
    let pending = pending_for(thread);
    if pending == 0 {
        return 0;
    }
    let awaited = thread.awaited.load(Ordering::Relaxed);
    pending & !(thread.mask.load(Ordering::Relaxed) & !UNBLOCKABLE & !awaited)
}

/// Takes one of a set of signals that wait, with what comes with it: the running thread's own first, of these
/// one of a fault first, which belongs to the instruction that was interrupted. One for the process is taken by
/// one of its threads: `None` if another was faster.
fn take_pending(set: u64) -> Option<Info> {
    const FAULTS: u64 = bit(SIGSEGV) | bit(SIGBUS) | bit(SIGFPE) | bit(SIGILL) | bit(SIGTRAP);
    let thread = process::thread();
    let own = thread.pending.set() & set;
    let (queue, waiting) = match own {
        0 => (&thread.process.pending, thread.process.pending.set() & set),
        own => (&thread.pending, own),
    };
    let first = if waiting & FAULTS != 0 { waiting & FAULTS } else { waiting };
    if first == 0 { None } else { queue.take(first.trailing_zeros() + 1) }
}

/// Takes one of the signals of a set, waiting for it until a time (`sigtimedwait`).
pub fn wait_for(set: u64, deadline: u64) -> Result<Info, Errno> {
    let thread = process::thread();
    let never = AtomicU32::new(0);
    let set = set & !UNBLOCKABLE;
    loop {
        let signals = pending() & set;
        if signals != 0 {
            match take_pending(signals) {
                Some(info) => return Ok(info),
                None => continue,
            }
        }
        if is_pending() {
            return Err(Errno::EINTR);
        }
        if clock::nanoseconds() >= deadline {
            return Err(Errno::EAGAIN);
        }
        thread.awaited.store(set, Ordering::SeqCst);
        scheduler::wait_until(&never, 0, deadline, Patience::Signals);
        thread.awaited.store(0, Ordering::SeqCst);
    }
}

/// Blocks other signals until the call that is under way has been answered and the signals that it
/// let in have been dealt with (`sigsuspend`, `ppoll`).
pub fn block_meanwhile(mask: u64) {
    let thread = process::thread();
    let before = thread.mask.swap(mask & !UNBLOCKABLE, Ordering::Relaxed);
    thread.saved_mask.keep(before);
}

/// The signals that were blocked before a call that lets others in (`sigsuspend`), until they are
/// blocked again. Used by the running thread alone.
pub struct SavedMask(AtomicU64);

impl SavedMask {
    /// No mask has those bits that cannot be blocked.
    const NOTHING: u64 = u64::MAX;

    /// Keeps a mask, unless there is one already.
    fn keep(&self, mask: u64) {
        if !self.is_kept() {
            self.0.store(mask, Ordering::Relaxed);
        }
    }

    fn is_kept(&self) -> bool {
        self.0.load(Ordering::Relaxed) != Self::NOTHING
    }

    fn take(&self) -> Option<u64> {
        let mask = self.0.swap(Self::NOTHING, Ordering::Relaxed);
        (mask != Self::NOTHING).then_some(mask)
    }
}

impl Default for SavedMask {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NOTHING))
    }
}

/// Deals with the pending signals of the running thread, which is about to run its program.
#[inline]
pub fn deliver(thread: &Thread, frame: &mut TrapFrame) {
    if has_news(thread) {
        deal_with_news(frame);
    }
}

/// Whether a thread that is about to run its program has to do anything before.
fn has_news(thread: &Thread) -> bool {
    thread.process.ends_this_thread()
        || deliverable_to(thread) != 0
        || thread.saved_mask.is_kept()
        || thread.interrupted.load(Ordering::Relaxed) != 0
}

#[cold]
fn deal_with_news(frame: &mut TrapFrame) {
    loop {
        let thread = process::thread();
        if thread.process.ends_this_thread() {
            process::exit_thread(Death { reason: Reason::Signal(SIGKILL) });
        }
        let signals = deliverable();
        if signals == 0 {
            if let Some(mask) = thread.saved_mask.take() {
                thread.mask.store(mask, Ordering::Relaxed);
                // What was blocked before and is not now, or the other way round.
                continue;
            }
            return restart(frame);
        }
        let Some(mut info) = take_pending(signals) else { continue };
        let number = match thread.process.is_traced() {
            true => trace::stop_at(info.number),
            false => info.number,
        };
        if number == 0 || thread.process.ends_this_thread() {
            continue;
        }
        info.number = number;
        // The handler of the next one interrupts this one's at its first instruction.
        act(frame, number, info);
    }
}

/// Makes a call again that a signal interrupted for which there is nothing to do.
fn restart(frame: &mut TrapFrame) {
    let number = process::thread().interrupted.swap(0, Ordering::Relaxed);
    if number != 0 {
        frame.rax = u64::from(number - 1);
        frame.rip -= SYSCALL_BYTES;
    }
}

/// Does what a signal asks for.
fn act(frame: &mut TrapFrame, number: u32, info: Info) {
    let process = process::current();
    let action = {
        let mut actions = process.actions.lock();
        let action = actions.0[number as usize];
        if action.handler > IGNORE && action.flags & SA_RESETHAND != 0 {
            actions.0[number as usize] = Action::default();
        }
        action
    };
    match action.handler {
        _ if action.ignores(number) => {}
        DEFAULT => {
            log_unhandled(frame, number, info);
            process::exit_group(Death { reason: Reason::Signal(number) })
        }
        _ => {
            if action.flags & SA_RESTART != 0 && process::thread().may_restart() {
                restart(frame);
            }
            process::thread().interrupted.store(0, Ordering::Relaxed);
            if enter(frame, number, &action, info).is_err() {
                process::exit_group(Death { reason: Reason::Signal(SIGSEGV) });
            }
        }
    }
}

/// Says where a fault was that nothing handles (spec A20).
fn log_unhandled(frame: &TrapFrame, number: u32, info: Info) {
    // Only what a fault raised comes with an address.
    if info.is_fault() {
        let process = process::current();
        let [error, ..] = process::thread().cause.words();
        report!(
            "process {} ({}): signal {number} code {} at {:#x}, ip {:#x} sp {:#x} error {error:#x}",
            process.id,
            process.name.lock(),
            info.code,
            info.address,
            frame.rip,
            frame.rsp,
        );
    }
}

const fn is_ignored_by_default(number: u32) -> bool {
    // Stopping is for job control, which does not exist here.
    matches!(number, SIGCHLD | SIGCONT | SIGURG | SIGWINCH | SIGTSTP | SIGTTIN | SIGTTOU | SIGSTOP)
}

/// `struct sigcontext`, in 64-bit words: the registers, flags, selectors, cause, mask, CR2 and where
/// the vector registers are.
const CONTEXT_WORDS: usize = 32;
/// `struct ucontext`: flags, link, stack (3 words), the context, the mask.
const UCONTEXT_WORDS: usize = 5 + CONTEXT_WORDS + 1;
/// The return address, the ucontext and `siginfo`.
const FRAME_WORDS: usize = 1 + UCONTEXT_WORDS + 16;

/// Makes the program's next instruction the handler's first.
fn enter(
    frame: &mut TrapFrame,
    number: u32,
    action: &Action,
    info: Info,
) -> Result<(), user::BadAddress> {
    // A handler that no program can have would fault on the kernel's way out.
    if action.handler >= TASK_SIZE {
        return Err(user::BadAddress);
    }
    let thread = process::thread();
    let blocked = thread.mask.load(Ordering::Relaxed);
    let mask = thread.saved_mask.take().unwrap_or(blocked);
    let stack = *thread.alternate_stack.lock();
    // Below the red zone of the interrupted code, or on the handlers' own stack.
    let switches = action.flags & SA_ONSTACK != 0 && stack.bytes != 0 && !stack.holds(frame.rsp);
    let top = if switches {
        stack.address.wrapping_add(stack.bytes)
    } else {
        frame.rsp.wrapping_sub(128)
    };
    let vectors = top.wrapping_sub(512) & !63;
    let at = (vectors.wrapping_sub(FRAME_WORDS as u64 * 8) & !15).wrapping_sub(8);
    let mut words = [0u64; FRAME_WORDS];
    words[0] = action.restorer;
    let ucontext = &mut words[1..=UCONTEXT_WORDS];
    ucontext[2..5].copy_from_slice(&stack.words(frame.rsp));
    let registers = registers(frame, thread.cause.words(), mask, vectors);
    ucontext[5..5 + registers.len()].copy_from_slice(&registers);
    ucontext[5 + CONTEXT_WORDS] = mask;
    let siginfo = info.words();
    words[1 + UCONTEXT_WORDS..][..siginfo.len()].copy_from_slice(&siginfo);
    user::write(vectors, &frame.vectors)?;
    user::write(at, &bytes_of(&words))?;
    *thread.alternate_stack.lock() = stack.entered();
    frame.rsp = at;
    frame.rip = action.handler;
    frame.rdi = u64::from(number);
    frame.rsi = at + 8 * (1 + UCONTEXT_WORDS as u64);
    frame.rdx = at + 8;
    frame.rax = 0;
    frame.rflags &= !0x500;
    let own = if action.flags & SA_NODEFER == 0 { bit(number) } else { 0 };
    thread.mask.store((blocked | action.mask | own) & !UNBLOCKABLE, Ordering::Relaxed);
    Ok(())
}

/// The registers as a handler finds them in its context (`struct sigcontext`).
const fn registers(
    frame: &TrapFrame,
    [error, trap, address]: [u64; 3],
    mask: u64,
    vectors: u64,
) -> [u64; 24] {
    [
        frame.r8,
        frame.r9,
        frame.r10,
        frame.r11,
        frame.r12,
        frame.r13,
        frame.r14,
        frame.r15,
        frame.rdi,
        frame.rsi,
        frame.rbp,
        frame.rbx,
        frame.rdx,
        frame.rax,
        frame.rcx,
        frame.rsp,
        frame.rip,
        frame.rflags,
        frame.cs | frame.ss << 48,
        error,
        trap,
        mask,
        address,
        vectors,
    ]
}

/// Takes the interrupted registers up again (`rt_sigreturn`).
pub fn leave(frame: &mut TrapFrame) -> Result<u64, Errno> {
    let words: [u8; UCONTEXT_WORDS * 8] = user::read(frame.rsp)?;
    let word = |i: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&words[i * 8..i * 8 + 8]);
        u64::from_le_bytes(bytes)
    };
    let register = |i: usize| word(5 + i);
    if register(23) != 0 {
        let vectors: [u8; 512] = user::read(register(23))?;
        frame.vectors = vectors;
        // Bits that the processor does not know would make loading them a fault.
        let control = u32::from_le_bytes([vectors[24], vectors[25], vectors[26], vectors[27]]);
        frame.vectors[24..28].copy_from_slice(&(control & 0xffbf).to_le_bytes());
    }
    let slots: [&mut u64; 17] = [
        &mut frame.r8,
        &mut frame.r9,
        &mut frame.r10,
        &mut frame.r11,
        &mut frame.r12,
        &mut frame.r13,
        &mut frame.r14,
        &mut frame.r15,
        &mut frame.rdi,
        &mut frame.rsi,
        &mut frame.rbp,
        &mut frame.rbx,
        &mut frame.rdx,
        &mut frame.rax,
        &mut frame.rcx,
        &mut frame.rsp,
        &mut frame.rip,
    ];
    for (i, slot) in slots.into_iter().enumerate() {
        *slot = register(i);
    }
    // A return to an address that is not a program's would fault in the kernel.
    frame.rip = if frame.rip < TASK_SIZE { frame.rip } else { 0 };
    frame.rflags = register(17) & 0x0cd5 | 0x202;
    (frame.cs, frame.ss) = (cpu::USER_CODE, cpu::USER_DATA);
    let mask = word(5 + CONTEXT_WORDS) & !UNBLOCKABLE;
    process::thread().mask.store(mask, Ordering::Relaxed);
    altstack::restore(frame.rsp, [word(2), word(3), word(4)]);
    Ok(frame.rax)
}

fn bytes_of(words: &[u64; FRAME_WORDS]) -> [u8; FRAME_WORDS * 8] {
    let mut bytes = [0; FRAME_WORDS * 8];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
