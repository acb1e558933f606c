//! A small x86-64 kernel whose only subject is memory.
//!
//! It gives its hardware to the memory manager through the waist and runs unmodified Linux programs
//! whose every page arrives by a real page fault. In the order in which things happen:
//!
//! | module | what it does |
//! |---|---|
//! | `boot`, `start_info`, `layout` | from the loader to Rust; what memory there is; where things are |
//! | `direct`, `buddy`, `frames` | the direct map; which frames are free |
//! | `cpu`, `entry`, `trap` | descriptor tables; the way in and out; what to do about it |
//! | `vmalloc`, `heap` | the kernel's own memory, mapped on demand of other page tables |
//! | `machine`, `space`, `shootdown` | the waist: [`Machine`](pagefault::machine::Machine) and its page tables |
//! | `user` | the kernel's accesses to programs' memory, and the exception table |
//! | `task`, `stack`, `scheduler`, `apic`, `clock` | who runs, on which stack, and for how long |
//! | `acpi`, `smp` | how many CPUs there are, and how the others begin |
//! | `process`, `exec`, `signal`, `timer`, `times`, `futex` | what programs are made of |
//! | `fs`, `procfs`, `syscall` | what else they ask for |
//! | `disk`, `ramswap`, `sleep` | the swap device and the file disk; swap in compressed memory |
//! | `failures` | what shall fail, for tests |
#![no_std]
#![no_main]

extern crate alloc;

mod acpi;
mod apic;
mod boot;
mod buddy;
mod bytes;
mod clock;
mod cpu;
mod direct;
mod disk;
mod entry;
mod errno;
mod exec;
mod failures;
mod frames;
mod fs;
mod futex;
mod heap;
mod layout;
mod lock;
mod machine;
mod power;
mod process;
mod procfs;
mod ramswap;
mod random;
mod scheduler;
mod serial;
mod shm;
mod shootdown;
mod signal;
mod sleep;
mod smp;
mod space;
mod stack;
mod start_info;
mod swap;
mod syscall;
mod task;
mod timer;
mod times;
mod trap;
mod user;
mod vmalloc;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::panic::PanicInfo;
use direct::Early;
use disk::Disks;
use exec::{Arguments, Program};
use frames::{Frames, Reserved};
use fs::{Files, Follow};
use machine::Pc;
use pagefault::exception::ExceptionTables;
use pagefault::machine::SwapDevice;
use pagefault::{Config, Manager, NonlinearPolicy, Overcommit};
use process::{Process, Thread};
use ramswap::CompressedRam;
use start_info::BootInfo;
use task::Task;

/// What the kernel is made of, from the moment when there is a memory manager.
pub struct Kernel {
    /// The memory manager.
    pub manager: Arc<Manager<Pc>>,
    /// Which instructions may fault on programs' addresses.
    pub exceptions: ExceptionTables,
    /// The frames, for the kernel's own use.
    pub frames: &'static Frames,
    /// The number of the first process.
    pub init: u32,
}

static FRAMES: spin::Once<Frames> = spin::Once::new();
static KERNEL: spin::Once<Kernel> = spin::Once::new();

/// The kernel.
///
/// # Panics
/// Before it is put together, at the end of boot.
pub fn kernel() -> &'static Kernel {
    KERNEL.get().expect("the kernel has been put together")
}

/// The first Rust code: puts the kernel together and starts the first program.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: u64) -> ! {
    serial::CONSOLE.start();
    serial::REPORT.start();
    // SAFETY: the boot code passes what the loader passed, and its page table is still loaded.
    let info = match unsafe { BootInfo::read(start_info) } {
        Ok(info) => info,
        Err(error) => {
            // The line's lock is none yet: this CPU does not know itself.
            serial::take_line();
            report!("cannot boot: {error:?}");
            power::fail()
        }
    };
    let mut early = Early::new(&info).expect("the kernel is in memory");
    let reserved = Reserved::new(&info, &mut early);
    let reference = direct::build(&info, &mut early);
    // SAFETY: called once, with interrupts disabled, as the loader left them.
    unsafe { cpu::start(0, reference) };
    let frames = FRAMES.call_once(|| Frames::new(&info, &reserved, &early.used()));
    heap::start(frames, reference);
    stack::start(frames, reference).expect("memory for a stack");
    let result = start(&info, frames, reference);
    if let Err(error) = result {
        report!("cannot start the first program: {error:?}");
        power::off(127)
    }
    scheduler::idle()
}

fn start(
    info: &BootInfo,
    frames: &'static Frames,
    reference: pagefault::machine::Frame,
) -> Result<(), errno::Errno> {
    let no_memory = |_| errno::Errno::ENOMEM;
    let machine = Arc::new(Pc::new(frames, reference).map_err(no_memory)?);
    let manager = Manager::new(machine, config(info));
    let exceptions = user::exception_tables();
    let init = task::next_id();
    KERNEL.call_once(|| Kernel { manager, exceptions, frames, init });
    scheduler::start(Task::idle(0));
    apic::start(frames, reference).map_err(no_memory)?;
    // From here on this is the first CPU's idle task, which any interrupt finds in order.
    x86_64::instructions::interrupts::enable();
    let disks = Disks::find();
    // SAFETY: the archive's frames were kept from the allocator.
    fs::start(unsafe { direct::bytes(info.archive.clone()) }, disks.files);
    if info.has("swap=compressed") {
        swap_on(CompressedRam::new(frames.count()));
    }
    if let Some(disk) = disks.swap {
        swap_on(disk);
    }
    fs::add_swap_devices();
    let background = Task::kernel(frames, reclaim).map_err(no_memory)?;
    scheduler::add(Arc::new(background));
    let timers = Task::kernel(frames, timer::run).map_err(no_memory)?;
    scheduler::add(Arc::new(timers));
    smp::start(info, frames, reference).map_err(no_memory)?;
    let (count, free) = (frames.count(), frames.free_frames());
    report!("booted: {} CPUs, {count} frames, {free} free", smp::count());
    // Last, since its report would mix with any other's.
    if info.has("test=overflow") {
        scheduler::add(Arc::new(Task::kernel(frames, overflow).map_err(no_memory)?));
    }
    start_init(init, frames)
}

/// Gives the memory manager a swap area after those that it has.
fn swap_on(device: impl SwapDevice + 'static) {
    if let Err(error) = swap::add(device) {
        report!("the swap device cannot be used: {error:?}");
        power::fail()
    }
}

/// What the host chose about the memory manager.
fn config(info: &BootInfo) -> Config {
    let mut config = Config::default();
    if info.has("nonlinear=regions") {
        config.nonlinear = NonlinearPolicy::Regions;
    }
    if info.has("overcommit=always") {
        config.overcommit = Overcommit::Always;
    }
    if info.has("file_read_ahead=1") {
        config.file_read_ahead = 1;
    }
    if info.has("fault_around=1") {
        config.fault_around = 1;
    }
    config
}

/// Starts the first process, in a task that begins in the kernel.
fn start_init(init: u32, frames: &'static Frames) -> Result<(), errno::Errno> {
    let process = Process::new(init, None, Files::with_console()?);
    let space = Program::space()?;
    *process.space.lock() = Some(space.clone());
    process.threads.lock().push(init);
    let thread = Thread::new(process, 0, 0);
    let task = Task::new_in_kernel(frames, init, run_init, space, thread);
    let task = Arc::new(task.map_err(|_| errno::Errno::ENOMEM)?);
    process::register(&task);
    scheduler::add(task);
    Ok(())
}

/// Where the host says what to run: arguments that end with a zero byte each.
const COMMAND: &str = "/.pagefault/command";

/// The first process's beginning: loads the program and goes to it.
extern "C" fn run_init() -> ! {
    match load_init() {
        Ok(frame) => entry::leave_kernel(&frame),
        Err(error) => {
            report!("cannot start the first program: {error:?}");
            power::off(127)
        }
    }
}

fn load_init() -> Result<entry::TrapFrame, errno::Errno> {
    let command = fs::find(COMMAND, Follow::Yes)?;
    let mut bytes = alloc::vec![0; command.len() as usize];
    command.content()?.read_at(0, &mut bytes)?;
    let arguments: Vec<Vec<u8>> = bytes
        .split_inclusive(|byte| *byte == 0)
        .map(|text| text.strip_suffix(&[0]).unwrap_or(text).to_vec())
        .collect();
    let path = arguments.first().cloned().ok_or(errno::Errno::ENOENT)?;
    let path = String::from_utf8(path).map_err(|_| errno::Errno::ENOENT)?;
    let environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=dumb"];
    let environment = environment.iter().map(|text| text.as_bytes().to_vec()).collect();
    let program = Program::open(&find_program(&path)?, Arguments { arguments, environment })?;
    let process = process::current();
    program.introduce(process);
    let frame = program.load(process::space())?;
    process.stack.store(frame.rsp, core::sync::atomic::Ordering::Relaxed);
    Ok(frame)
}

/// Looks a program up: a path as it is, a name in the usual places.
fn find_program(name: &str) -> Result<String, errno::Errno> {
    if name.contains('/') {
        return Ok(fs::absolute("/", name));
    }
    ["/bin", "/usr/bin", "/sbin", "/usr/sbin", "/"]
        .into_iter()
        .map(|directory| fs::absolute(directory, name))
        .find(|path| fs::find(path, Follow::Yes).is_ok())
        .ok_or(errno::Errno::ENOENT)
}

/// Overflows the stack, for a test.
extern "C" fn overflow() -> ! {
    fn deeper(depth: u64) -> u64 {
        let room = core::hint::black_box([depth; 64]);
        let below = if depth == u64::MAX { 0 } else { deeper(depth + 1) };
        below + core::hint::black_box(&room)[63]
    }
    report!("a stack without end has {} frames", deeper(0));
    power::fail()
}

/// Keeps frames free ahead of need, for as long as the machine runs.
extern "C" fn reclaim() -> ! {
    let never = core::sync::atomic::AtomicBool::new(false);
    loop {
        kernel().manager.background(&never);
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    serial::take_line();
    report!("kernel {info}");
    power::fail()
}
