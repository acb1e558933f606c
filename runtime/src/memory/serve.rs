//! A process of the runtime's that answers faults, for `--delivery=threads`.
//!
//! It reads a userfaultfd that also sees the kernel's accesses: those of system calls, and those of
//! other processes (`process_vm_readv`). So readers from outside find absent pages.
//!
//! The server shares only the program's memory and descriptors. As a thread of the program, it
//! would be stopped by the debugger that waits for its answers, and `unshare`, `setns` and the like
//! would see a process of several threads.
//!
//! The server works only under the gate, so that a fork finds it idle, and reads reports under the
//! gate too. It is asked to end, not killed: the program may have dropped privileges that its
//! server has.

use super::events::{self, Answered};
use super::room::Room;
use super::{GATE, Manager, current};
use crate::entry::{self, Begin};
use crate::lock::Mutex;
use crate::member::{Child, Member};
use crate::signal::action::Actions;
use crate::thread::Thread;
use crate::{process, sys};
use alloc::boxed::Box;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32};
use linux_raw_sys::general as nr;
use once_cell::race::OnceBox;
use pagefault_linux::deliver::HostFault;
use pagefault_linux::store::descriptor::{self, Kept};
use pagefault_linux::{Answer, Delivery, Refilled, Report, Signal};
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The process that owns the memory; others may share it, such as a child of vfork.
static OWNER: AtomicU32 = AtomicU32::new(0);
/// The server's number; 0 while it does not run.
static SERVER: AtomicU32 = AtomicU32::new(0);
/// The server as a process of the runtime.
static MEMBER: AtomicPtr<Member> = AtomicPtr::new(null_mut());
/// How many current calls forbid it to run.
static PAUSES: AtomicU32 = AtomicU32::new(0);
/// Held while the server is started or ended.
static LIFE: Mutex<()> = Mutex::new(());
/// Whether the server should end.
static STOP: AtomicBool = AtomicBool::new(false);
/// Wakes the server, so that it sees that.
static STOPS: OnceBox<Kept> = OnceBox::new();
/// Names the owner, to learn of its end.
static OWNER_ENDS: OnceBox<Kept> = OnceBox::new();

/// `__WALL`: children whose end raises no signal too.
const ALL_CHILDREN: u64 = 0x4000_0000;

/// The manager, if a server answers faults.
fn served() -> Option<&'static Manager> {
    current().filter(|manager| manager.delivery != Delivery::Inline)
}

/// Whether the memory is the calling process's own, which may share it with others.
pub fn is_owner() -> bool {
    OWNER.load(Relaxed) == sys::process_id()
}

/// Whether a server answers faults, and belongs to the calling process.
fn is_served_here() -> bool {
    served().is_some() && is_owner()
}

/// Starts the server of the calling process: at its start, or in a forked child.
pub fn begin(member: &Member) {
    OWNER.store(sys::process_id(), Relaxed);
    if served().is_none() {
        return;
    }
    if LIFE.is_locked() {
        // SAFETY: by a thread of the parent, which is not here.
        unsafe { LIFE.force_unlock() };
    }
    SERVER.store(0, Relaxed);
    PAUSES.store(0, Relaxed);
    keep(&OWNER_ENDS, nr::__NR_pidfd_open, [sys::process_id().into(), 0]);
    keep(&STOPS, nr::__NR_eventfd2, [0, (nr::EFD_CLOEXEC | nr::EFD_NONBLOCK).into()]);
    let own = Member::new(Actions::new(), member.slot());
    let before = MEMBER.swap(own.as_ptr(), Release);
    if let Some(before) = NonNull::new(before) {
        // SAFETY: that of the parent's server, of which no thread is here.
        unsafe { Member::end(before, Child::Lives) };
    }
    start();
}

/// Makes a descriptor of the process's own, in place of its parent's.
fn keep(place: &OnceBox<Kept>, number: u32, args: [u64; 2]) {
    // SAFETY: both calls take numbers, and make a descriptor.
    let opened = descriptor::with_room(|| unsafe { sys::call(number, args) });
    let none_left =
        |errno: i32| -> ! { process::stop(format_args!("no descriptor is left: error {errno}")) };
    let new = match opened {
        // SAFETY: just opened, and nobody else's.
        Ok(new) => unsafe { OwnedFd::from_raw_fd(new as i32) },
        Err(errno) => none_left(errno.0),
    };
    match place.get().map(|kept| kept.replace(&new)) {
        Some(Ok(())) => {}
        Some(Err(errno)) => none_left(errno.raw_os_error()),
        None => drop(place.set(Box::new(descriptor::keep(new)))),
    }
}

/// The number of a descriptor that [`begin`] has opened.
fn number_of(place: &OnceBox<Kept>) -> u64 {
    place.get().map_or(-1, |kept| kept.as_fd().as_raw_fd()) as u32 as u64
}

/// The server's argument.
#[repr(C)]
struct Start {
    begin: Begin,
    thread: NonNull<Thread>,
}

/// Starts a server.
fn start() {
    STOP.store(false, Relaxed);
    let Some(member) = NonNull::new(MEMBER.load(Acquire)) else { return };
    let thread = match Thread::new(member) {
        Ok(thread) => thread,
        Err(errno) => process::stop(format_args!("no memory for a stack: error {}", errno.0)),
    };
    // The program's tracer must not get the server as a tracee.
    let flags = nr::CLONE_VM | nr::CLONE_FILES | nr::CLONE_UNTRACED;
    let mask = sys::exchange_mask(crate::signal::ALL);
    // SAFETY: the block is the server's alone, and so is what lies at its end.
    let raw = unsafe {
        let given = (thread.stack_end() as *mut Start).sub(1);
        given.write(Start { begin: serve, thread: NonNull::from(thread) });
        let stack = given as u64 & !15;
        entry::clone(nr::__NR_clone, &[flags.into(), stack, 0, 0, 0, 0], given as u64)
    };
    sys::exchange_mask(mask);
    match sys::result(raw) {
        Ok(server) => SERVER.store(server as u32, Relaxed),
        Err(errno) => process::stop(format_args!(
            "the process that --delivery=threads needs cannot be started: error {}",
            errno.0
        )),
    }
}

/// The server does not run until this is dropped.
pub struct Paused(());

/// Ends the calling process's server for the duration of a call. Meanwhile no thread that must
/// continue before the call is over may touch absent memory.
pub fn pause() -> Option<Paused> {
    if !is_served_here() {
        return None;
    }
    let _life = LIFE.lock();
    if PAUSES.fetch_add(1, Relaxed) == 0 {
        end();
    }
    Some(Paused(()))
}

/// The same for an exec, unless others go on in the memory that the process leaves.
pub fn pause_for_exec() -> Option<Paused> {
    let server = NonNull::new(MEMBER.load(Acquire))?;
    if Thread::current().is_memory_shared(server) { None } else { pause() }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let _life = LIFE.lock();
        if PAUSES.fetch_sub(1, Relaxed) == 1 {
            start();
        }
    }
}

/// Ends the server before its process ends, if no other process needs it. So its shared descriptors
/// are closed when a waiter sees the process's end.
pub fn end_with_process() {
    if !is_served_here() {
        return;
    }
    let _life = LIFE.lock();
    let Some(member) = NonNull::new(MEMBER.load(Acquire)) else { return };
    if !Thread::current().is_memory_shared(member) {
        end();
    }
}

/// Asks the server to end, and waits until it is gone. The caller does not hold the gate.
fn end() {
    let server = SERVER.load(Relaxed);
    if server == 0 {
        return;
    }
    STOP.store(true, Release);
    let one = 1_u64;
    let args = [server.into(), 0, ALL_CHILDREN, 0];
    // SAFETY: the word is ours. Whoever else has waited for the server has found it gone.
    unsafe {
        let _ = sys::call(nr::__NR_write, [number_of(&STOPS), (&raw const one) as u64, 8]);
        while sys::call(nr::__NR_wait4, args) == Err(sys::Errno::EINTR) {}
    }
    SERVER.store(0, Relaxed);
    if let Some(thread) = NonNull::new(MEMBER.load(Acquire)).and_then(Thread::of) {
        thread.abandon();
        thread.retire();
    }
}

/// The server's owner, if the caller is the server.
pub fn owner_of_caller() -> Option<u32> {
    let server = SERVER.load(Relaxed);
    (server != 0 && server == sys::process_id()).then(|| OWNER.load(Relaxed))
}

/// The server's first step, on its own block; every signal is blocked.
extern "C" fn serve(start: *const u8) -> ! {
    // SAFETY: `start` left it at the end of this block.
    let thread = unsafe { (*start.cast::<Start>()).thread.as_ref() };
    thread.settle();
    let name = c"pagefault-fault";
    let set_name = u64::from(linux_raw_sys::prctl::PR_SET_NAME);
    // SAFETY: the name is ours. In a session of its own the server is not stopped with the job.
    unsafe {
        let _ = sys::call(nr::__NR_prctl, [set_name, name.as_ptr() as u64, 0, 0, 0]);
        let _ = sys::call::<0>(nr::__NR_setsid, []);
    }
    if let Some(manager) = served() {
        answer_while_needed(manager, thread);
    }
    entry::exit_thread(0)
}

fn answer_while_needed(manager: &Manager, thread: &Thread) {
    let mut owner = Owner::Lives;
    loop {
        owner = wait(manager, owner);
        answer_all(manager);
        if STOP.load(Acquire) {
            return;
        }
        super::give_up_asked();
        if owner == Owner::Ended && !thread.is_memory_shared(NonNull::from(thread.member())) {
            return;
        }
    }
}

/// The state of the server's owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Lives,
    /// Others that share its memory may go on: a `vfork` child.
    Ended,
}

/// Sleeps until there is a fault, or the owner has ended.
fn wait(manager: &Manager, owner: Owner) -> Owner {
    /// `POLLIN`.
    const IN: u64 = 1;
    /// How often the server checks whether it is still needed, in nanoseconds.
    const LOOK: u64 = 10_000_000;
    let poll = |fd: u64| fd | IN << 32;
    let is_ready = |poll: u64| poll >> 48 != 0;
    let reports = manager.machine.reports().as_raw_fd() as u32;
    let mut polls = [poll(reports.into()), poll(number_of(&STOPS)), poll(number_of(&OWNER_ENDS))];
    let (count, time) = match owner {
        Owner::Lives => (3, None),
        Owner::Ended => (2, Some([0, LOOK])),
    };
    let time = time.as_ref().map_or(0, |time: &[u64; 2]| time.as_ptr() as u64);
    let args = [polls.as_mut_ptr() as u64, count, time, 0, 0];
    // SAFETY: one pollfd is 8 bytes: the descriptor, what is asked, and what is answered.
    let _ = unsafe { sys::call(nr::__NR_ppoll, args) };
    if is_ready(polls[1]) {
        let mut word = 0_u64;
        // SAFETY: the word is ours. So the next server does not find it.
        let _ = unsafe { sys::call(nr::__NR_read, [number_of(&STOPS), (&raw mut word) as u64, 8]) };
    }
    if is_ready(polls[2]) { Owner::Ended } else { owner }
}

/// Answers reported faults.
fn answer_all(manager: &Manager) {
    let mut room = Room::new();
    loop {
        let gate = GATE.read();
        if STOP.load(Acquire) {
            return;
        }
        let Some(report) = manager.machine.take_report() else { return };
        match answer(manager, &report) {
            Found::Answered => room = Room::new(),
            Found::Short => {
                // The fault is reported again, so no thread is forgotten once the gate is released.
                manager.machine.wake_waiters(&report);
                drop(gate);
                room.make(manager);
            }
        }
    }
}

enum Found {
    Answered,
    Short,
}

fn answer(manager: &Manager, report: &Report) -> Found {
    let begin = process::now();
    events::begin_fault();
    match pagefault_linux::answer(manager.mm(), &report.fault()) {
        Answer::Short => return Found::Short,
        Answer::Resume(Refilled::Changed) => {}
        // What the program may not do the host says itself, when it tries again: its mappings are
        // the regions, but for a change of a moment ago.
        Answer::Resume(Refilled::Unchanged)
        | Answer::Signal(Signal::NotMapped | Signal::Forbidden) => {
            manager.machine.wake_waiters(report);
        }
        Answer::Signal(Signal::NoContent) => process::stop(format_args!(
            "a page could not be read back from swap: the device failed"
        )),
        Answer::Stop(why) => process::stop(format_args!("{}", why.trim_end())),
    }
    if let Some(control) = process::control() {
        let took = process::now() - begin;
        control.counters.fault_time.record(took);
        let HostFault { access, address, ip, .. } = report.fault();
        events::end_fault(&Answered { access, address, ip, begin, took });
    }
    Found::Answered
}
