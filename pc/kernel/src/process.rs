//! Processes: an address space, files and threads that share them, from fork to wait.

pub mod limits;
mod room;
pub mod trace;
mod victim;
mod wait;

use limits::{Identity, LimitTable};
pub use room::{CALL, buffer, find_room, free_up, make_room};
pub use victim::out_of_memory;
pub use wait::{Children, Hang, Keep, wait};

use crate::entry::TrapFrame;
use crate::errno::Errno;
use crate::fs::event::Schedule;
use crate::fs::{Files, locks};
use crate::lock::Mutex;
use crate::machine::Pc;
use crate::scheduler;
use crate::signal::altstack::AltStack;
use crate::signal::cause::Cause;
use crate::signal::{self, Actions, Info, Queue, SavedMask};
use crate::sleep::SleepMutex;
use crate::task::Task;
use crate::timer::Timer;
use crate::times::{Counts, CpuTime, CpuTimers};
use crate::{clock, cpu, futex, kernel, power, report, shootdown, stack, user};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use pagefault::{AddressSpace, UsageNow};

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It said so.
    Exit(u8),
    /// A signal killed it.
    Signal(u32),
    /// It has not ended: it is traced, and stands still at a signal.
    Stopped(u32),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// Why.
    pub reason: Reason,
}

impl Death {
    /// The status as `wait4` reports it.
    pub const fn status(self) -> u32 {
        match self.reason {
            Reason::Exit(code) => (code as u32) << 8,
            Reason::Signal(number) => number,
            Reason::Stopped(number) => number << 8 | 0x7f,
        }
    }

    /// What comes with the parent's `SIGCHLD`.
    pub fn info(self, id: u32) -> Info {
        let (code, status) = match self.reason {
            Reason::Exit(code) => (CLD_EXITED, code.into()),
            Reason::Signal(number) => (CLD_KILLED, number),
            Reason::Stopped(number) => (CLD_TRAPPED, number),
        };
        Info { number: signal::SIGCHLD, code, address: id.into(), status: status.into() }
    }

    /// The status as a shell shows it.
    const fn shell_status(self) -> u8 {
        match self.reason {
            Reason::Exit(code) => code,
            Reason::Signal(number) | Reason::Stopped(number) => 128 + number as u8,
        }
    }
}

const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_TRAPPED: i32 = 4;

/// All threads of a process may go on.
const EVERYONE: u32 = 0;
/// All threads of a process are to end.
const NOBODY: u32 = u32::MAX;

/// A process.
pub struct Process {
    /// Its number.
    pub id: u32,
    parent: Mutex<Weak<Process>>,
    /// The address space, while it has one. Threads have their own reference.
    pub space: Mutex<Option<Arc<AddressSpace<Pc>>>>,
    /// Open files and the working directory.
    pub files: SleepMutex<Files>,
    /// What signals do.
    pub actions: Mutex<Actions>,
    /// Signals for any thread.
    pub pending: Queue,
    /// When it next gets `SIGALRM`.
    pub alarm: Mutex<Schedule>,
    /// The timers that it has made.
    pub timers: Mutex<Vec<Timer>>,
    /// The timers that count its processor time.
    pub cpu_timers: CpuTimers,
    /// The signal that it gets when its parent ends; 0 for none.
    pub death_signal: AtomicU32,
    /// The commands of `membarrier` that it has registered for.
    pub barriers: AtomicU32,
    /// Who traces it.
    trace: trace::Trace,
    /// Who it is.
    pub identity: Mutex<Identity>,
    /// What it may use.
    pub limits: Mutex<LimitTable>,
    /// The bits that are taken from the mode of new files.
    pub umask: AtomicU32,
    /// The numbers of its threads.
    pub threads: Mutex<Vec<u32>>,
    children: Mutex<Vec<Arc<Process>>>,
    /// Counts what a parent may wait for: children that ended, and signals.
    pub event: AtomicU32,
    /// Set when all threads are to end.
    pub ending: Mutex<Option<Death>>,
    /// Which threads may go on: [`EVERYONE`], [`NOBODY`], or the number of the one that makes an
    /// exec. Looked at where no lock may be taken.
    survivor: AtomicU32,
    ended: AtomicBool,
    /// The program's path.
    pub name: Mutex<String>,
    /// The name that it goes by, at most 15 bytes.
    pub comm: Mutex<String>,
    /// The arguments that it was started with, a zero byte after each.
    pub command_line: Mutex<Vec<u8>>,
    /// Where its stack began.
    pub stack: AtomicU64,
    /// The process group and the session.
    pub group: AtomicU32,
    /// See `group`.
    pub session: AtomicU32,
    /// When it was started, in nanoseconds.
    pub started: u64,
    /// What the process used, noted when its address space goes.
    pub usage: Mutex<UsageNow>,
    /// The same of children that were waited for.
    pub children_usage: Mutex<UsageNow>,
    /// The processor time of threads that have ended.
    pub ended_time: Mutex<CpuTime>,
    /// The processor time of children that were waited for, with their own children's.
    pub children_time: Mutex<CpuTime>,
}

/// What programs know of a task.
pub struct Thread {
    /// The process.
    pub process: Arc<Process>,
    /// The memory policy: its mode, above a bit that says whether it names the node.
    pub policy: AtomicU32,
    /// Where FS points.
    pub pointer: AtomicU64,
    /// Where to write zero and wake a waiter when the thread ends (`set_tid_address`).
    pub clear_tid: AtomicU64,
    /// The signals that are blocked.
    pub mask: AtomicU64,
    /// Signals that end its wait though they are blocked (`sigtimedwait`).
    pub awaited: AtomicU64,
    /// Signals for this thread.
    pub pending: Queue,
    /// Why it was trapped the last time.
    pub cause: Cause,
    /// The name that the thread goes by, if it is not the process's.
    pub name: Mutex<Option<String>>,
    /// The mask to go back to when a call that changed it for a while is over.
    pub saved_mask: SavedMask,
    /// One more than the number of the call that a signal has just interrupted.
    pub interrupted: AtomicU32,
    /// Where the list of the locks begins that the thread may hold when it ends.
    pub robust_list: AtomicU64,
    /// Where handlers that ask for it have their stack.
    pub alternate_stack: Mutex<AltStack>,
    /// Its parent in a `vfork` waits until this is 1: then the child has left the address space.
    pub waited_for: Mutex<Option<Arc<AtomicU32>>>,
}

impl Thread {
    /// A thread of a process, with the signal mask of the one that makes it.
    pub fn new(process: Arc<Process>, pointer: u64, mask: u64) -> Self {
        Self {
            process,
            policy: AtomicU32::new(0),
            pointer: AtomicU64::new(pointer),
            clear_tid: AtomicU64::new(0),
            mask: AtomicU64::new(mask),
            awaited: AtomicU64::new(0),
            pending: Queue::default(),
            cause: Cause::default(),
            name: Mutex::new(None),
            saved_mask: SavedMask::default(),
            interrupted: AtomicU32::new(0),
            robust_list: AtomicU64::new(0),
            alternate_stack: Mutex::new(AltStack::default()),
            waited_for: Mutex::new(None),
        }
    }

    /// Whether the interrupted call is one of those that `SA_RESTART` is about.
    pub fn may_restart(&self) -> bool {
        let number = self.interrupted.load(Relaxed).wrapping_sub(1);
        crate::syscall::restarts_after_handler(number)
    }
}

/// All processes by number, and all tasks that are threads.
static PROCESSES: Mutex<BTreeMap<u32, Arc<Process>>> = Mutex::new(BTreeMap::new());
static TASKS: Mutex<BTreeMap<u32, Weak<Task>>> = Mutex::new(BTreeMap::new());

impl Process {
    /// A process without threads, a child of `parent`.
    pub fn new(id: u32, parent: Option<&Arc<Self>>, files: Files) -> Arc<Self> {
        fn take<T: Default>(from: Option<&Arc<Process>>, what: impl Fn(&Process) -> T) -> T {
            from.map(|from| what(from)).unwrap_or_default()
        }
        let process = Arc::new(Self {
            id,
            parent: Mutex::new(parent.map_or_else(Weak::new, Arc::downgrade)),
            space: Mutex::new(None),
            files: SleepMutex::new(files),
            actions: Mutex::new(Actions::default()),
            pending: Queue::default(),
            alarm: Mutex::new(Schedule::default()),
            timers: Mutex::new(Vec::new()),
            cpu_timers: CpuTimers::default(),
            death_signal: AtomicU32::new(0),
            barriers: AtomicU32::new(0),
            trace: trace::Trace::default(),
            identity: Mutex::new(take(parent, |parent| parent.identity.lock().clone())),
            limits: Mutex::new(take(parent, |parent| parent.limits.lock().clone())),
            umask: AtomicU32::new(parent.map_or(0o22, |parent| parent.umask.load(Relaxed))),
            threads: Mutex::new(Vec::new()),
            children: Mutex::new(Vec::new()),
            event: AtomicU32::new(0),
            ending: Mutex::new(None),
            survivor: AtomicU32::new(EVERYONE),
            ended: AtomicBool::new(false),
            name: Mutex::new(String::new()),
            comm: Mutex::new(String::new()),
            command_line: Mutex::new(Vec::new()),
            stack: AtomicU64::new(0),
            group: AtomicU32::new(parent.map_or(id, |parent| parent.group.load(Relaxed))),
            session: AtomicU32::new(parent.map_or(id, |parent| parent.session.load(Relaxed))),
            started: clock::nanoseconds(),
            usage: Mutex::new(UsageNow::default()),
            children_usage: Mutex::new(UsageNow::default()),
            ended_time: Mutex::new(CpuTime::default()),
            children_time: Mutex::new(CpuTime::default()),
        });
        PROCESSES.lock().insert(id, process.clone());
        if let Some(parent) = parent {
            parent.children.lock().push(process.clone());
            // Another process's parent may have ended meanwhile and not seen this child.
            if parent.ended.load(Ordering::Acquire) {
                parent.give_children_away();
            }
        }
        process
    }

    /// The number of the parent, 0 if it has none.
    pub fn parent_id(&self) -> u32 {
        self.parent.lock().upgrade().map_or(0, |parent| parent.id)
    }

    /// The parent, if it lives.
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.parent.lock().upgrade()
    }

    /// Whether all its threads are to end.
    pub fn is_killed(&self) -> bool {
        self.survivor.load(Ordering::SeqCst) == NOBODY
    }

    /// Whether the running thread, which is one of its own, is to end.
    pub fn ends_this_thread(&self) -> bool {
        let survivor = self.survivor.load(Ordering::SeqCst);
        survivor != EVERYONE && survivor != cpu::task_id()
    }

    /// Ends all threads of the running process but the running one; `false` if that one is to end
    /// itself.
    pub fn end_other_threads(&self) -> bool {
        let own = cpu::task_id();
        let swap = |from, to| {
            self.survivor.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        if !swap(EVERYONE, own) {
            return false;
        }
        loop {
            let others = self.threads.lock().iter().filter(|id| **id != own).count();
            if others == 0 {
                return swap(own, EVERYONE);
            }
            self.interrupt_threads();
            scheduler::yield_now();
        }
    }

    /// Lets all threads see what has happened.
    pub fn interrupt_threads(&self) {
        for id in self.threads.lock().iter() {
            scheduler::interrupt(*id);
        }
    }

    /// Makes the children of a process that has ended those of the first.
    fn give_children_away(&self) {
        let heir = find(kernel().init);
        let children = mem::take(&mut *self.children.lock());
        for child in children {
            let signal = child.death_signal.load(Relaxed);
            if signal != 0 {
                let address = self.id.into();
                signal::send_with(&child, Info { number: signal, code: 0, address, status: 0 });
            }
            if let Some(heir) = &heir {
                *child.parent.lock() = Arc::downgrade(heir);
                heir.children.lock().push(child.clone());
                // It may have told us, who are gone, instead of its new parent.
                if child.ended.load(Ordering::Acquire) {
                    notify(heir);
                }
            }
        }
    }

    /// What the process uses now.
    pub fn usage(&self) -> UsageNow {
        self.space.lock().as_ref().map_or(*self.usage.lock(), |space| space.usage())
    }
}

/// The process of the running task.
///
/// # Panics
/// In a kernel task.
pub fn current() -> &'static Arc<Process> {
    &thread().process
}

/// The running thread.
///
/// # Panics
/// In a kernel task.
pub fn thread() -> &'static Thread {
    scheduler::current().thread.as_ref().expect("a kernel task is no process")
}

/// The running task's address space.
pub fn space() -> &'static Arc<AddressSpace<Pc>> {
    scheduler::current().space().expect("a thread that runs has an address space")
}

/// All processes that have not ended.
pub fn all() -> Vec<Arc<Process>> {
    let processes = PROCESSES.lock();
    processes.values().filter(|process| !process.ended.load(Ordering::Acquire)).cloned().collect()
}

/// A process by number.
pub fn find(id: u32) -> Option<Arc<Process>> {
    PROCESSES.lock().get(&id).cloned()
}

/// The stacks of processors and of the kernel's own tasks.
const RESERVED_STACKS: usize = 32;

/// Whether there are as many processes and threads as the machine's memory is for: their stacks may
/// be a quarter of it (Linux: `max_threads`). Processes that were not waited for count too.
pub fn are_too_many() -> bool {
    let most = kernel().frames.count() as usize / (4 * stack::PAGES);
    let (processes, tasks) = (PROCESSES.lock().len(), TASKS.lock().len());
    processes.max(tasks) >= most.min(stack::MOST - RESERVED_STACKS)
}

/// How many threads there are.
pub fn count_threads() -> usize {
    TASKS.lock().len()
}

/// A task that is a thread, by number.
pub fn find_task(id: u32) -> Option<Arc<Task>> {
    TASKS.lock().get(&id).and_then(Weak::upgrade)
}

/// Takes back a process that never had a thread.
pub fn forget(process: &Arc<Process>) {
    PROCESSES.lock().remove(&process.id);
    if let Some(parent) = process.parent() {
        parent.children.lock().retain(|child| child.id != process.id);
        // A waiter for it has no process to wait for.
        notify(&parent);
    }
}

/// Starts a thread of a process with the registers in `frame`.
pub fn start_thread(
    id: u32,
    frame: &TrapFrame,
    space: Arc<AddressSpace<Pc>>,
    thread: Thread,
) -> Result<(), Errno> {
    let process = thread.process.clone();
    let task = Task::new(kernel().frames, id, frame, Some(space), Some(thread));
    let task = Arc::new(task.map_err(|_| Errno::ENOMEM)?);
    task.cpus.store(scheduler::current().cpus.load(Relaxed), Relaxed);
    process.threads.lock().push(id);
    register(&task);
    scheduler::add(task);
    Ok(())
}

/// Lets a task be found by its number.
pub fn register(task: &Arc<Task>) {
    TASKS.lock().insert(task.id, Arc::downgrade(task));
}

/// Sends the signals of the running process's timers of processor time that have ended. Called on
/// the way back to its program.
#[inline]
pub fn check_timers(process: &Arc<Process>) {
    process.cpu_timers.check(process, |which| {
        let number = if which == Counts::Program { signal::SIGVTALRM } else { signal::SIGPROF };
        signal::send_with(process, Info { number, code: signal::SI_KERNEL, address: 0, status: 0 });
    });
}

/// Ends all threads of the running process.
pub fn exit_group(death: Death) -> ! {
    kill_threads(current(), death);
    exit_thread(death)
}

/// Tells all threads of a process to end; the first reason stays.
pub fn kill_threads(process: &Process, death: Death) {
    process.ending.lock().get_or_insert(death);
    process.survivor.store(NOBODY, Ordering::SeqCst);
    process.interrupt_threads();
}

/// Ends the running thread, and its process if it was the last: of `death`, if nothing else has
/// ended it before.
pub fn exit_thread(death: Death) -> ! {
    leave_process(death);
    scheduler::end()
}

/// Everything of `exit_thread` that has something to drop.
fn leave_process(death: Death) {
    let thread = thread();
    let process = thread.process.clone();
    futex::abandon(thread.robust_list.load(Relaxed));
    let clear = thread.clear_tid.load(Ordering::Relaxed);
    if clear != 0 && user::write(clear, &0u32.to_le_bytes()).is_ok() {
        futex::wake(futex::Word::at(clear, futex::Scope::Shared), u32::MAX, u32::MAX);
    }
    let id = cpu::task_id();
    TASKS.lock().remove(&id);
    let last = {
        let mut threads = process.threads.lock();
        threads.retain(|other| *other != id);
        *process.ended_time.lock() += scheduler::current().meter.time();
        threads.is_empty()
    };
    if last {
        // Noted before the address space goes.
        let usage = process.usage();
        *process.usage.lock() = usage;
        let space = process.space.lock().take();
        // Not under the lock, for which others may wait without letting us go on.
        drop(space);
    }
    drop(scheduler::current().replace_space(None));
    release(thread);
    if last {
        let death = *process.ending.lock().get_or_insert(death);
        end_process(&process, death);
    }
}

fn end_process(process: &Arc<Process>, death: Death) {
    if process.id == kernel().init {
        finish(death);
    }
    let files = process.files.lock().take_all();
    drop(files);
    locks::unlock_all(locks::Owner::Process(process.id));
    trace::tracer_has_ended(process);
    process.ended.store(true, Ordering::SeqCst);
    process.give_children_away();
    let parent = process.parent.lock().upgrade();
    if let Some(parent) = parent {
        signal::send_with(&parent, death.info(process.id));
        notify(&parent);
    }
}

/// Lets who made a thread with `vfork` go on.
pub fn release(thread: &Thread) {
    let waited_for = thread.waited_for.lock().take();
    if let Some(gone) = waited_for {
        gone.store(1, Ordering::Release);
        scheduler::wake(&gone);
    }
}

/// Wakes the waiters for a change of a process.
pub fn notify(process: &Process) {
    process.event.fetch_add(1, Ordering::AcqRel);
    scheduler::wake(&process.event);
}

/// The first process has ended, and with it the machine.
fn finish(death: Death) -> ! {
    let kernel = kernel();
    kernel.manager.counters().visit(|name, value| report!("counter {name} {value}"));
    let synchronised = kernel.manager.machine().synchronised.load(Ordering::Relaxed);
    report!("counter synchronised {synchronised}");
    shootdown::visit_counters(|name, value| report!("counter {name} {value}"));
    crate::syscall::report_unknown();
    power::off(death.shell_status())
}
