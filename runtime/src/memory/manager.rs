//! The memory manager of this process.
//!
//! The machine is the process itself (`pagefault-linux` in its identity layout). There is one
//! address space, whose regions are the program's private anonymous mappings.

use super::quota::Tree;
use super::statistics::Observer;
use super::{GATE, addresses, events, passive, swap};
use crate::lock::Mutex;
use crate::process;
use crate::quiescence;
use crate::stops;
use crate::sys::{self, Errno, Result};
use crate::thread::Thread;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::AtomicU64;
use once_cell::race::OnceBox;
use pagefault::{AddressSpace, Limits, Manager as MemoryManager, Mm, Overcommit};
use pagefault_control::{Control, Delivery as Asked};
use pagefault_linux::machine::{MAX_FRAMES, POPULATE_AHEAD};
use pagefault_linux::room;
use pagefault_linux::space::HOST_END;
use pagefault_linux::{Config, Delivery, Layout, LinuxMachine, Probe};
use pagefault_machine::{Machine, PAGE_SIZE, Protection, VirtAddr};

/// The manager, once it has started.
static MANAGER: OnceBox<Manager> = OnceBox::new();

type Memory = MemoryManager<LinuxMachine>;

/// The fewest frames with which a program makes progress.
const LEAST_FRAMES: u64 = 64;

/// The manager of this process.
pub struct Manager {
    pub(super) machine: LinuxMachine,
    /// Where faults are answered.
    pub(super) delivery: Delivery,
    pub(super) space: AddressSpace<LinuxMachine>,
    pub(super) swap: swap::Areas,
    pub(super) tree: &'static Tree,
    /// The charge of the process while it is passive.
    pub(super) bound: Mutex<passive::Bound>,
}

/// The manager, if the command asked for one.
pub fn current() -> Option<&'static Manager> {
    MANAGER.get()
}

/// Prepares the manager for a further thread, before it starts.
pub fn prepare_for_threads() {
    if let Some(manager) = current() {
        manager.machine.prepare_for_threads();
    }
}

/// Tells the manager how to number and count threads, once the calling one runs on its own stack; from
/// then on events can be kept.
pub fn begin_threads() {
    // SAFETY: a thread is alone in a section, and others come back to the program only after its end
    // (`quiescence`).
    unsafe { pagefault_linux::set_alone(|| quiescence::is_alone(Thread::current())) };
    pagefault_linux::set_context(|| Thread::current().context());
    stops::begin();
    events::start();
}

/// Starts the manager as the control memory has it.
pub fn start() {
    let Some(control) = process::control() else { return };
    let delivery = delivery(control);
    let (machine, tree) = machine(control, delivery);
    let memory = MemoryManager::new(
        Arc::new(machine.clone()),
        pagefault::Config {
            // The host has already made every mapping, and its policy decides.
            overcommit: Overcommit::Always,
            max_regions: i32::MAX as usize,
            populate_ahead: POPULATE_AHEAD,
            observer: Some(Box::new(Observer { control })),
            ..pagefault::Config::default()
        },
    );
    require_heap();
    let swap = match swap::Areas::open(control, &memory) {
        Ok(swap) => swap,
        Err(error) => process::stop(format_args!("{error}")),
    };
    let space = space(&machine, &memory);
    let bound = passive::no_bound();
    let _ = MANAGER.set(Box::new(Manager { machine, delivery, space, swap, tree, bound }));
    if let Some(manager) = current() {
        super::image::adopt(manager);
    }
}

/// This process as a machine, whose frames are the tree's.
fn machine(control: &'static Control, delivery: Delivery) -> (LinuxMachine, &'static Tree) {
    let frames = frames(control);
    let config = Config { frames, layout: Layout::Identity, delivery, task_size: None };
    let boot = process::boot();
    let tree = match Tree::new(control, boot.slot, boot.control_fd as u32) {
        Ok(tree) => &*Box::leak(Box::new(tree)),
        Err(errno) => {
            process::stop(format_args!("no address space for the tree's frames: error {}", errno.0))
        }
    };
    let most = u32::try_from(control.most_bytes() / PAGE_SIZE).unwrap_or(u32::MAX).min(MAX_FRAMES);
    match LinuxMachine::with_quota(&config, Box::new(tree), most) {
        Ok(machine) => (machine, tree),
        Err(error) => process::stop(format_args!("{error}")),
    }
}

/// The frames of the tree under its limit. The machine's resident overhead counts too: the limit is a promise.
fn frames(control: &Control) -> u32 {
    let overhead = u64::from(Config::OVERHEAD);
    const { assert!(pagefault_control::OVERHEAD == Config::OVERHEAD as u64) };
    let frames = (control.limit_bytes() / PAGE_SIZE).saturating_sub(overhead);
    if frames < LEAST_FRAMES {
        let least = (overhead + LEAST_FRAMES) * PAGE_SIZE / 1024;
        process::stop(format_args!("--memory: too small to work; give at least {least}K"));
    }
    u32::try_from(frames).unwrap_or(u32::MAX).min(MAX_FRAMES)
}

/// The program's address space, which has no regions yet.
fn space(machine: &LinuxMachine, memory: &Arc<Memory>) -> AddressSpace<LinuxMachine> {
    let limits = Limits {
        // Locked memory cannot be evicted; the rest must have room.
        locked: AtomicU64::new(u64::from(machine.frames()) / 2 * PAGE_SIZE),
        stack: AtomicU64::new(0),
        ..Limits::default()
    };
    let layout = pagefault::Layout::over(VirtAddr::ZERO..VirtAddr(HOST_END - PAGE_SIZE));
    let table = match machine.new_space() {
        Ok(table) => table,
        Err(errno) => process::stop(format_args!("no address space for the page table: {errno}")),
    };
    AddressSpace::with_space(memory, layout, limits, table)
}

/// Ends a program without address space for the manager's heap.
fn require_heap() {
    const LEAST: usize = 4 << 20;
    if room::has(LEAST) {
        return;
    }
    let needed = sys::map_private(LEAST, linux_raw_sys::general::PROT_READ);
    // SAFETY: just mapped, and used by nobody.
    if needed.and_then(|start| unsafe { sys::unmap(start, LEAST) }).is_err() {
        process::stop(format_args!("no address space for the memory manager; is `ulimit -v` set?"));
    }
}

/// Decides where faults are answered. A program that is executed without the right to a server
/// answers its own.
fn delivery(control: &Control) -> Delivery {
    if control.delivery() != Some(Asked::Threads) {
        return Delivery::Inline;
    }
    match Probe::new().and_then(|probe| probe.require_kernel_faults()) {
        // The server would be the first process of the children's namespace.
        Ok(()) if process::makes_children_elsewhere() => Delivery::Inline,
        Ok(()) => Delivery::Threads(1),
        Err(error) if super::swap::is_first() => process::stop(format_args!("{error}")),
        Err(_) => Delivery::Inline,
    }
}

impl Manager {
    /// The address space.
    pub fn mm(&self) -> &Arc<Mm<LinuxMachine>> {
        &self.space
    }

    /// [`parts`](Self::parts) as they are now, for a caller that does not hold the gate.
    pub fn parts_now(&self, range: &Range<u64>) -> Vec<(Range<u64>, Protection)> {
        let _gate = GATE.read();
        self.parts(range)
    }

    /// The managed parts of a range with their rights, from the lowest up. As in every look-up, the gate
    /// is held: a fork would otherwise copy the lock of a look-up to a child where nobody releases it.
    pub fn parts(&self, range: &Range<u64>) -> Vec<(Range<u64>, Protection)> {
        let report = self.mm().maps(addresses(range));
        let cut = |region: &Range<VirtAddr>| {
            region.start.value().max(range.start)..region.end.value().min(range.end)
        };
        report.iter().map(|region| (cut(&region.range), region.protection)).collect()
    }

    /// Whether any page of a range is managed now. The gate is not held.
    pub fn manages_any(&self, range: &Range<u64>) -> bool {
        let _gate = GATE.read();
        self.mm().first_mapped(addresses(range)).is_some()
    }
}

/// An error of the memory manager's as the host's number.
pub fn refused(error: impl Into<pagefault::error::Errno>) -> Errno {
    Errno(error.into().number())
}

/// The same for a result that carries nothing.
pub fn done<T, E: Into<pagefault::error::Errno>>(result: core::result::Result<T, E>) -> Result<()> {
    result.map(drop).map_err(refused)
}
