//! The server: a process of the runtime's that answers for the memory while the program's threads cannot.
//!
//! It answers accesses of other processes to the memory, such as a debugger's ([`outside`]). A process that answers
//! its own faults starts a server when somebody else wants such an access, or traces the process, and ends it when
//! nobody has for a while. Under `--delivery=threads` every process has one, which also reads a userfaultfd that sees
//! the kernel's accesses: those of system calls, and those of unmanaged readers (`process_vm_readv`).
//!
//! The server shares only the program's memory and descriptors. As a thread of the program, it
//! would be stopped by the debugger that waits for its answers, and `unshare`, `setns` and the like
//! would see a process of several threads.
//!
//! The server works only under the gate, so that a fork finds it idle, and reads reports under the
//! gate too. It is asked to end, not killed: the program may have dropped privileges that its
//! server has.

use super::events::{self, Answered};
use super::room::{self, Room};
use super::{GATE, Manager, current, outside, passive};
use crate::entry::{self, Begin};
use crate::frame::{Context, Info};
use crate::lock::Mutex;
use crate::member::{Child, Member};
use crate::signal::action::Actions;
use crate::sys::{self, Errno};
use crate::thread::Thread;
use crate::{process, signal, tracer};
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
/// The server's block.
static BLOCK: AtomicPtr<Thread> = AtomicPtr::new(null_mut());
/// How many current calls forbid it to run.
static PAUSES: AtomicU32 = AtomicU32::new(0);
/// Held while the server is started or ended.
static LIFE: Mutex<()> = Mutex::new(());
/// Whether the server should end.
static STOP: AtomicBool = AtomicBool::new(false);
/// Wakes the server, so that it sees that, or a request from outside.
static STOPS: OnceBox<Kept> = OnceBox::new();
/// Names the owner, to learn of its end.
static OWNER_ENDS: OnceBox<Kept> = OnceBox::new();
/// Whether a process that answers its own faults has a server.
static ADDED: AtomicBool = AtomicBool::new(false);
/// Whether that one has had nothing to do for a while.
static IDLE: AtomicBool = AtomicBool::new(false);

/// `POLLIN`.
const IN: u64 = 1;
/// `__WALL`: children whose end raises no signal too.
const ALL_CHILDREN: u64 = 0x4000_0000;

/// The manager, if there is to be a server.
fn served() -> Option<&'static Manager> {
    current().filter(|manager| manager.delivery != Delivery::Inline || ADDED.load(Relaxed))
}

/// Whether the memory is the calling process's own, which may share it with others.
pub fn is_owner() -> bool {
    OWNER.load(Relaxed) == sys::process_id()
}

/// Whether there is to be a server, and it belongs to the calling process.
fn is_served_here() -> bool {
    served().is_some() && is_owner()
}

/// Starts a server in a process that answers its own faults, because somebody else wants to access its memory.
/// Without one, such an access finds only what is present. The caller holds no lock.
pub fn add() {
    if !is_owner() || passive::is_passive() || served().is_some() {
        return;
    }
    let _life = LIFE.lock();
    if served().is_some() {
        return;
    }
    ADDED.store(true, Relaxed);
    let begun = open().and_then(|()| match PAUSES.load(Relaxed) {
        0 => start(),
        // The pause's end starts it.
        _ => Ok(()),
    });
    if begun.is_err() {
        ADDED.store(false, Relaxed);
    }
}

/// Starts such a server if the process has a tracer.
pub fn add_if_traced() {
    if current().is_some() && tracer::is_traced() {
        add();
    }
}

/// Ends a server that was added and has had nothing to do for a while. The caller holds no lock.
pub fn end_idle() {
    if !is_owner() || !IDLE.load(Relaxed) {
        return;
    }
    let _life = LIFE.lock();
    if PAUSES.load(Relaxed) == 0 && IDLE.swap(false, Relaxed) && ADDED.swap(false, Relaxed) {
        end();
    }
}

/// Starts the server of the calling process: at its start, or in a forked child.
pub fn begin() {
    OWNER.store(sys::process_id(), Relaxed);
    if LIFE.is_locked() {
        // SAFETY: by a thread of the parent, which is not here.
        unsafe { LIFE.force_unlock() };
    }
    SERVER.store(0, Relaxed);
    PAUSES.store(0, Relaxed);
    IDLE.store(false, Relaxed);
    let before = NonNull::new(MEMBER.swap(null_mut(), Relaxed));
    if let Some(before) = before {
        // SAFETY: that of the parent's server, of which no thread is here.
        unsafe { Member::end(before, Child::Lives) };
    }
    if ADDED.swap(false, Relaxed) {
        // The tracer may have the child as well.
        add_if_traced();
    } else if served().is_some()
        && let Err(errno) = open().and_then(|()| start())
    {
        stop_without(errno);
    }
}

/// Ends a process that cannot go on without its server.
fn stop_without(errno: Errno) -> ! {
    process::stop(format_args!(
        "the process that --delivery=threads needs cannot be started: error {}",
        errno.0
    ))
}

/// Opens the descriptors that the server waits for.
fn open() -> sys::Result<()> {
    keep(&OWNER_ENDS, nr::__NR_pidfd_open, [sys::process_id().into(), 0])?;
    keep(&STOPS, nr::__NR_eventfd2, [0, (nr::EFD_CLOEXEC | nr::EFD_NONBLOCK).into()])
}

/// Makes a descriptor of the process's own, in place of its parent's.
fn keep(place: &OnceBox<Kept>, number: u32, args: [u64; 2]) -> sys::Result<()> {
    // SAFETY: both calls take numbers, and make a descriptor.
    let new = descriptor::with_room(|| unsafe { sys::call(number, args) })?;
    // SAFETY: just opened, and nobody else's.
    let new = unsafe { OwnedFd::from_raw_fd(new as i32) };
    match place.get() {
        Some(kept) => kept.replace(&new).map_err(|errno| Errno(errno.raw_os_error())),
        None => {
            let _ = place.set(Box::new(descriptor::keep(new)));
            Ok(())
        }
    }
}

/// Notes in the process's slot where the server is told of requests from outside: its descriptor may get another
/// number.
pub fn say() {
    let Some(server) = NonNull::new(MEMBER.load(Acquire)) else { return };
    // SAFETY: it is freed only in a child in which no thread uses it.
    let own = unsafe { server.as_ref() }.slot();
    if let Some(slot) = process::control().and_then(|control| control.slots.get(own)) {
        let is_there = SERVER.load(Relaxed) != 0 && is_owner();
        let number = if is_there { number_of(&STOPS) as i32 } else { -1 };
        slot.server_fd.store(number, Release);
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

/// Starts a server. A process without need of one gets none in a namespace of its children: there it would be the first
/// process, with which the namespace ends.
fn start() -> sys::Result<()> {
    let is_needed = served().is_some_and(|manager| manager.delivery != Delivery::Inline);
    if !is_needed && process::makes_children_elsewhere() {
        return Err(Errno::EPERM);
    }
    STOP.store(false, Relaxed);
    let member = MEMBER.load(Acquire);
    let member = NonNull::new(member).unwrap_or_else(|| {
        let own = Member::new(Actions::new(), Thread::current().member().slot());
        MEMBER.store(own.as_ptr(), Release);
        own
    });
    let thread = Thread::new(member)?;
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
        Ok(server) => {
            BLOCK.store(core::ptr::from_ref(thread).cast_mut(), Relaxed);
            SERVER.store(server as u32, Relaxed);
            say();
            Ok(())
        }
        Err(errno) => {
            thread.abandon();
            thread.retire();
            Err(errno)
        }
    }
}

/// The server does not run until this is dropped.
pub struct Paused(());

/// Ends the calling process's server for the duration of a call. Meanwhile no thread that must
/// continue before the call is over may touch absent memory.
pub fn pause() -> Option<Paused> {
    // Nor may one be added meanwhile.
    if current().is_none() || !is_owner() {
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
    let own = Thread::current();
    let server = NonNull::new(MEMBER.load(Acquire));
    let is_shared = own.is_memory_shared(server.unwrap_or(NonNull::from(own.member())));
    if is_shared { None } else { pause() }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let _life = LIFE.lock();
        if PAUSES.fetch_sub(1, Relaxed) != 1 {
            return;
        }
        let Some(manager) = served() else { return };
        if let Err(errno) = start() {
            match manager.delivery {
                Delivery::Inline => ADDED.store(false, Relaxed),
                _ => stop_without(errno),
            }
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
    say();
    // SAFETY: blocks are mapped for ever, and the server has left its own.
    if let Some(thread) = unsafe { BLOCK.swap(null_mut(), Relaxed).as_ref() } {
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
    crate::keys::open_for_good();
    thread.settle();
    let name = c"pagefault-fault";
    let set_name = u64::from(linux_raw_sys::prctl::PR_SET_NAME);
    // SAFETY: the name is ours. In a session of its own the server is not stopped with the job.
    unsafe {
        let _ = sys::call(nr::__NR_prctl, [set_name, name.as_ptr() as u64, 0, 0, 0]);
        let _ = sys::call::<0>(nr::__NR_setsid, []);
    }
    signal::tell_of_parent(on_parents_end);
    end_without_owner();
    if let Some(manager) = served() {
        answer_while_needed(manager, thread);
    }
    entry::exit_thread(0)
}

/// A thread of the owner's has ended, perhaps the last one, and perhaps with a lock that the server waits for.
extern "C" fn on_parents_end(_signal: i32, _info: *const Info, _context: *mut Context) {
    end_without_owner();
}

/// Ends the server if its owner has ended and no other process uses the memory.
fn end_without_owner() {
    let slot = Thread::current().member().slot();
    let mut sharers = process::control().into_iter().flat_map(|it| it.slots.sharers(slot));
    if has_owner_ended() && sharers.next().is_none() {
        sys::exit_group(0);
    }
}

fn has_owner_ended() -> bool {
    let mut poll = number_of(&OWNER_ENDS) & u64::from(u32::MAX) | IN << 32;
    let at = (&raw mut poll) as u64;
    // SAFETY: one pollfd is 8 bytes: the descriptor, what is asked, and what is answered.
    unsafe { sys::call(nr::__NR_poll, [at, 1, 0]) == Ok(1) }
}

fn answer_while_needed(manager: &Manager, thread: &Thread) {
    let mut owner = Owner::Lives;
    let mut room = Room::new();
    loop {
        owner = wait(manager, owner);
        if manager.delivery != Delivery::Inline {
            answer_all(manager, &mut room);
        }
        if STOP.load(Acquire) {
            return;
        }
        if outside::answer(thread) {
            IDLE.store(false, Relaxed);
        } else if manager.delivery == Delivery::Inline {
            offer_to_end();
        }
        room::give_up_asked();
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

/// An added server that had nothing to do asks the owner to end it, unless somebody traces the owner.
fn offer_to_end() {
    let owner = OWNER.load(Relaxed);
    if !IDLE.load(Relaxed) && !tracer::is_process_traced(owner) {
        IDLE.store(true, Relaxed);
        room::ask(room::Request::EndServer);
    }
}

/// Sleeps until there is a fault or a request, or the owner has ended.
fn wait(manager: &Manager, owner: Owner) -> Owner {
    /// How often the server checks whether it is still needed once its owner has ended, in nanoseconds.
    const LOOK: u64 = 10_000_000;
    /// How long an added server waits for requests, in seconds.
    const IDLE_TIME: u64 = 1;
    let poll = |fd: u64| fd | IN << 32;
    let is_ready = |poll: u64| poll >> 48 != 0;
    // Its owner answers its own faults.
    let is_added = manager.delivery == Delivery::Inline;
    let reports = if is_added { -1 } else { manager.machine.reports().as_raw_fd() } as u32;
    let mut polls = [poll(reports.into()), poll(number_of(&STOPS)), poll(number_of(&OWNER_ENDS))];
    let (count, time) = match owner {
        Owner::Lives if is_added => (3, Some([IDLE_TIME, 0])),
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

/// Answers reported faults. A fault without a frame is reported again later, with the same search for
/// room.
fn answer_all(manager: &Manager, room: &mut Room) {
    loop {
        let gate = GATE.read();
        if STOP.load(Acquire) {
            return;
        }
        let Some(report) = manager.machine.take_report() else { return };
        match answer(manager, &report) {
            Found::Answered => *room = Room::new(),
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
        Answer::Signal(Signal::NoContent) => {
            process::stop(format_args!("{}", manager.swap.lost_page()))
        }
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
