//! The memory manager of this process.
//!
//! The machine is the process itself (`pagefault-linux` in its identity layout), with threads that
//! answer faults, so that system calls on absent pages work too. There is one address space, whose
//! regions are what the program has mapped.

mod background;
mod regions;
mod statistics;
mod swap;

use crate::shared;
use background::Background;
use pagefault::entry::{SegvCode, Signal as Raised, Verdict};
use pagefault::exception::ExceptionTables;
use pagefault::{AddressSpace, Limits, Manager as MemoryManager, Mm, Overcommit};
use pagefault_control::Control;
use pagefault_linux::space::HOST_END;
use pagefault_linux::{
    BuildError, Delivery, ForkError, Layout, LinuxMachine, Pager, Resolution, Signal,
};
use pagefault_machine::{Machine, PAGE_SIZE, PageFault, VirtAddr};
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

pub use regions::Shape;
pub use swap::SwapError;

/// The manager, once it has started.
static MANAGER: OnceLock<Manager> = OnceLock::new();

/// How many threads answer faults.
const THREADS: usize = 2;

/// The fewest frames with which a program gets anywhere.
const LEAST_FRAMES: u64 = 64;

/// The manager of this process.
pub struct Manager {
    machine: LinuxMachine,
    memory: Arc<MemoryManager<LinuxMachine>>,
    space: AddressSpace<LinuxMachine>,
    swap: swap::Areas,
    background: Background,
}

/// Why the manager cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The shared memory holds no configuration.
    #[error("the configuration is damaged")]
    Config,
    /// The limit leaves too few frames.
    #[error("--memory: too small to work; give at least {}K", .0 * PAGE_SIZE / 1024)]
    TooSmall(u64),
    /// The machine could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A swap area could not be made.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// There is no room for the page table.
    #[error("no address space for the page table; is `ulimit -v` set?")]
    PageTable,
    /// The threads that answer faults could not be started.
    #[error("the threads that answer faults do not start ({0}); is `ulimit -u` set?")]
    Threads(rustix::io::Errno),
}

/// The manager, if it has started.
pub fn current() -> Option<&'static Manager> {
    MANAGER.get()
}

/// Starts the manager as `control` has it.
pub fn start(control: &'static Control) -> Result<(), StartError> {
    let config = control.config().ok_or(StartError::Config)?;
    // What the machine keeps resident beside its frames counts too: the limit is a promise.
    let overhead = u64::from(pagefault_linux::Config::OVERHEAD);
    let pages = config.limit_bytes / PAGE_SIZE;
    if pages < overhead + LEAST_FRAMES {
        return Err(StartError::TooSmall(overhead + LEAST_FRAMES));
    }
    let frames = u32::try_from(pages - overhead).unwrap_or(u32::MAX);
    let machine = LinuxMachine::new(&pagefault_linux::Config {
        frames: frames.min(pagefault_linux::machine::MAX_FRAMES),
        layout: Layout::Identity,
        delivery: Delivery::Threads(THREADS),
        task_size: None,
    })?;
    let observer = statistics::Observer { control, machine: machine.clone() };
    let memory = MemoryManager::new(
        Arc::new(machine.clone()),
        pagefault::Config {
            // The host has made every mapping already, and its policy is the one that counts.
            overcommit: Overcommit::Always,
            populate_ahead: pagefault_linux::machine::POPULATE_AHEAD,
            observer: Some(Box::new(observer)),
            ..pagefault::Config::default()
        },
    );
    let swap = swap::Areas::open(&config, control, &memory)?;
    let limits = Limits {
        // What is locked cannot be evicted; the rest must have room to move.
        locked: AtomicU64::new(u64::from(frames) / 2 * PAGE_SIZE),
        stack: AtomicU64::new(0),
        ..Limits::default()
    };
    let layout = pagefault::Layout::over(VirtAddr(PAGE_SIZE)..VirtAddr(HOST_END - PAGE_SIZE));
    let table = machine.space().map_err(|_| StartError::PageTable)?;
    let space = AddressSpace::with_space(&memory, layout, limits, table);
    let manager = Manager { machine, memory, space, swap, background: Background::new() };
    let manager = MANAGER.get_or_init(|| manager);
    let answerer = Answerer { control, manager, exceptions: ExceptionTables::default() };
    let answering = manager.machine.answer_with(Arc::new(answerer)).map_err(StartError::Threads)?;
    // Faults are answered to the end of the process.
    std::mem::forget(answering);
    Ok(())
}

impl Manager {
    fn mm(&self) -> &Arc<Mm<LinuxMachine>> {
        &self.space
    }

    /// Brings everything to rest before a process fork. The caller sees to it that no thread of the
    /// program is inside.
    pub fn before_fork(&self) {
        self.background.stop(&self.memory);
        self.machine.before_fork();
        self.swap.before_fork();
    }

    /// Goes on in the parent.
    pub fn after_fork_in_parent(&self) {
        self.swap.after_fork();
        self.machine.after_fork_parent();
    }

    /// Goes on in the child, where `ranges` are managed.
    pub fn after_fork_in_child(
        &self,
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(), ForkError> {
        self.swap.after_fork();
        let ranges = ranges.map(|range| VirtAddr(range.start as u64)..VirtAddr(range.end as u64));
        // SAFETY: called by the handler of a fork in the child, with the ranges that were managed.
        unsafe { self.machine.after_fork_child(self.mm().space(), ranges) }
    }
}

/// Answers the machine's faults.
struct Answerer {
    control: &'static Control,
    manager: &'static Manager,
    exceptions: ExceptionTables,
}

impl Pager for Answerer {
    fn fault(&self, _space: u32, fault: &PageFault) -> Resolution {
        let manager = self.manager;
        let begin = manager.machine.now();
        let verdict = manager.memory.page_fault(Some(manager.mm()), fault, &self.exceptions);
        self.control.counters.fault_time.record(manager.machine.now() - begin);
        manager.background.start_if_low(manager);
        match verdict {
            Verdict::Resume => Resolution::Resume,
            Verdict::Signal(Raised::Segv(SegvCode::MapErr)) => {
                Resolution::Signal(Signal::NotMapped)
            }
            Verdict::Signal(Raised::Segv(SegvCode::AccErr)) => {
                Resolution::Signal(Signal::Forbidden)
            }
            // There are no files here: only swap can fail to be read.
            Verdict::Signal(Raised::Bus) => shared::stop(format_args!(
                "a page could not be read back from swap: the device failed"
            )),
            Verdict::OutOfMemory => shared::stop(format_args!(
                "out of memory: all of --memory is in use and the swap areas are full; give more of \
                 either"
            )),
            verdict => shared::stop(format_args!("a fault was answered with {verdict:?}")),
        }
    }
}
