//! A running memory manager on the machine: it takes faults to their address space, and keeps
//! frames free ahead of need.
//!
//! A [`Memory`](crate::Memory) is built on a [`Runtime`]. Use one directly for what a memory does not offer: several
//! address spaces, or a configuration of your own. You then uphold four rules: attach every address space,
//! hold a [`Quiet`] while you call the memory manager, use a mapped address only while its mapping lives, and
//! leave the machine's frames, entries and flushes to the manager.
//!
//! ```
//! use pagefault_linux::pagefault::swap::area::Priority;
//! use pagefault_linux::pagefault::{AddressSpace, Config, Layout, Limits, MapRequest};
//! use pagefault_linux::pagefault_machine::{IoError, Page, SwapDevice, VirtAddr};
//! use pagefault_linux::runtime::{Quiet, Reclaim, Runtime};
//! use pagefault_linux::{LinuxMachine, machine, space};
//! use std::collections::HashMap;
//! use std::sync::Mutex;
//! # if pagefault_linux::Probe::new().is_err() { return Ok(()) }
//!
//! /// A swap device: a table of pages.
//! #[derive(Default)]
//! struct Table(Mutex<HashMap<u32, Box<Page>>>);
//!
//! impl SwapDevice for Table {
//!     fn slots(&self) -> u32 {
//!         10_000
//!     }
//!     fn read(&self, slot: u32, page: &mut Page) -> Result<(), IoError> {
//!         let table = self.0.lock().map_err(|_| IoError::Device)?;
//!         *page = **table.get(&slot).ok_or(IoError::Device)?;
//!         Ok(())
//!     }
//!     fn write(&self, slot: u32, page: &Page) -> Result<(), IoError> {
//!         self.0.lock().map_err(|_| IoError::Device)?.insert(slot, Box::new(*page));
//!         Ok(())
//!     }
//! }
//!
//! // A machine of 1,024 frames, and a window of 64 MiB of addresses.
//! let (bytes, frames) = (64 << 20, 1024);
//! let layout = space::Layout::Windows { origin: VirtAddr::ZERO, bytes };
//! let machine = LinuxMachine::new(&machine::Config { layout, ..machine::Config::new(frames) })?;
//! let runtime = Runtime::start(machine, Config::default(), Reclaim::OnDemand)?;
//! runtime.manager().swap_on(Box::new(Table::default()), Priority::Descending)?;
//!
//! // An address space, attached, and 16 MiB in it.
//! let quiet = Quiet::new();
//! let window = Layout::over(VirtAddr::ZERO..VirtAddr(bytes));
//! let table = runtime.machine().new_space()?;
//! let space = AddressSpace::with_space(runtime.manager(), window, Limits::default(), table);
//! let _attached = runtime.attach(&space);
//! let at = space.mmap(&MapRequest::anonymous(16 << 20))?;
//! drop(quiet);
//!
//! let start = space.space().host_address(at).ok_or("the machine does not map this address")?;
//! // SAFETY: mapped until `space` is dropped, and nobody else uses it.
//! let memory = unsafe { std::slice::from_raw_parts_mut(start, 16 << 20) };
//! for (number, page) in memory.chunks_mut(4096).enumerate() {
//!     page.fill(number as u8);
//! }
//! assert!(memory.chunks(4096).enumerate().all(|(number, page)| page[4095] == number as u8));
//! assert!(runtime.manager().counters().swap_writes > 0);
//!
//! // The end of an address space is a call of the memory manager too.
//! let _quiet = Quiet::new();
//! drop(space);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::deliver::correct;
use crate::machine::LinuxMachine;
use crate::space::MAX_SPACES;
use crate::visit::Visitors;
use crate::{Answering, Pager, Resolution, Signal};
use pagefault::machine::{PageFault, Space};
use pagefault::{AddressSpace, Config, Manager, Mm};
use rustix::io::Errno;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr};
use std::thread::JoinHandle;

/// A memory manager on a Linux machine, answering its faults.
pub struct Runtime {
    // The order matters: our threads end before the rest goes.
    background: Option<Background>,
    answering: Option<Answering>,
    router: Arc<Router>,
}

/// Whether a thread keeps frames free ahead of need (Linux: `kswapd`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reclaim {
    /// A thread evicts when few frames are left, so that faults rarely wait. Each page that it
    /// evicts interrupts the processors on which the program runs.
    Ahead,
    /// A fault that finds no free frame evicts, a batch at a time.
    #[default]
    OnDemand,
}

impl Runtime {
    /// Starts a memory manager.
    ///
    /// `EBUSY`: the machine already has one. Otherwise the host's error when it refuses a thread.
    pub fn start(machine: LinuxMachine, config: Config, reclaim: Reclaim) -> Result<Self, Errno> {
        let manager = Manager::new(Arc::new(machine), config);
        let router = Arc::new(Router {
            manager,
            spaces: Box::new([const { AtomicPtr::new(null_mut()) }; MAX_SPACES]),
            visitors: Visitors::new(),
        });
        let answering = router.manager.machine().answer_with(router.clone())?;
        let mut runtime = Self { background: None, answering: Some(answering), router };
        if reclaim == Reclaim::Ahead {
            runtime.background = Some(Background::start(runtime.manager())?);
        }
        Ok(runtime)
    }

    /// The memory manager.
    pub fn manager(&self) -> &Arc<Manager<LinuxMachine>> {
        &self.router.manager
    }

    /// The machine.
    pub fn machine(&self) -> &LinuxMachine {
        self.manager().machine()
    }

    /// Makes the manager answer the faults in an address space as long as the result lives. Keep the result:
    /// without it an access to the space is a segmentation violation.
    ///
    /// # Panics
    /// If the address space is another manager's, or its page table another machine's.
    pub fn attach(&self, space: &AddressSpace<LinuxMachine>) -> Attached {
        self.attach_mm(space.mm())
    }

    /// The same for the part of an address space that threads share.
    ///
    /// # Panics
    /// As [`attach`](Self::attach) does.
    pub fn attach_mm(&self, mm: &Arc<Mm<LinuxMachine>>) -> Attached {
        let ours = Arc::ptr_eq(mm.manager(), self.manager())
            && Arc::ptr_eq(&mm.space().core.shared, &self.machine().shared);
        assert!(ours, "the address space is another machine's");
        let id = mm.space().id() as usize;
        let mm = Box::into_raw(Box::new(mm.clone()));
        self.router.take_out(self.router.spaces[id].swap(mm, SeqCst));
        Attached { router: self.router.clone(), id }
    }

    /// Ends the thread that evicts ahead, before a process fork, which it would not survive.
    pub fn stop_background(&mut self) {
        self.background = None;
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.background = None;
        self.answering = None;
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Runtime").field(self.manager()).finish()
    }
}

/// An address space whose faults are answered; dropping it waits for faults in progress.
#[must_use = "faults are answered only as long as this lives"]
pub struct Attached {
    router: Arc<Router>,
    id: usize,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.router.take_out(self.router.spaces[self.id].swap(null_mut(), SeqCst));
    }
}

/// Takes faults to their address space.
struct Router {
    manager: Arc<Manager<LinuxMachine>>,
    /// Indexed by the machine's numbers; boxed references, or null.
    spaces: Box<[AtomicPtr<Arc<Mm<LinuxMachine>>>; MAX_SPACES]>,
    visitors: Visitors,
}

impl Router {
    /// Frees the box that an exchange took out of `spaces`, if there was one.
    fn take_out(&self, mm: *mut Arc<Mm<LinuxMachine>>) {
        // In a forked child, threads that may have been inside do not exist.
        if mm.is_null() || self.manager.machine().is_inherited() {
            return;
        }
        self.visitors.wait_until_gone();
        // SAFETY: stored by `attach_mm` from `into_raw`, the exchange made it the caller's alone,
        // and nobody who found it before is still inside.
        drop(unsafe { Box::from_raw(mm) });
    }
}

impl Pager for Router {
    fn fault(&self, space: u32, fault: &PageFault) -> Resolution {
        let _visit = self.visitors.enter();
        // SAFETY: null, or stored by `attach` and freed by `Attached` after the visit.
        let mm = unsafe { self.spaces[space as usize].load(SeqCst).as_ref() };
        let Some(mm) = mm else { return Resolution::Signal(Signal::NotMapped) };
        correct(mm, fault)
    }
}

/// The thread that evicts ahead of need.
struct Background {
    stop: Arc<AtomicBool>,
    manager: Arc<Manager<LinuxMachine>>,
    handle: Option<JoinHandle<()>>,
}

impl Background {
    fn start(manager: &Arc<Manager<LinuxMachine>>) -> Result<Self, Errno> {
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, its_stop) = (manager.clone(), stop.clone());
        let builder = std::thread::Builder::new().name("pagefault-evict".into());
        let _quiet = Quiet::new();
        let handle = builder.spawn(move || theirs.background(&its_stop));
        let handle = handle.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::AGAIN))?;
        Ok(Self { stop, manager: manager.clone(), handle: Some(handle) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.manager.machine().is_inherited() {
            // The thread is the parent's.
            std::mem::forget(self.handle.take());
            return;
        }
        self.stop.store(true, Release);
        self.manager.wake_background();
        if let Some(handle) = self.handle.take() {
            // A thread that panicked has already said so.
            let _ = handle.join();
        }
    }
}

/// Blocks all signals of this thread as long as it lives.
///
/// Every call of the memory manager outside a fault holds one: a signal handler that touched
/// managed memory could otherwise wait for a lock that the interrupted code holds.
///
/// The thread must not touch managed memory meanwhile, nor pass it to the manager as a buffer: a fault's
/// own signal is blocked too, and the kernel would end the process.
#[must_use = "signals are blocked only as long as this lives"]
pub struct Quiet {
    old: libc::sigset_t,
    /// Bound to its thread.
    _thread: PhantomData<*const ()>,
}

impl Quiet {
    /// Blocks all signals.
    pub fn new() -> Self {
        let mut old = MaybeUninit::uninit();
        // SAFETY: fills a set, blocks it for this thread, and stores the mask there was; with these
        // arguments neither call can fail.
        unsafe {
            let mut all = MaybeUninit::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
            Self { old: old.assume_init(), _thread: PhantomData }
        }
    }
}

impl Default for Quiet {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: restores the mask that `new` stored.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.old, std::ptr::null_mut()) };
    }
}
