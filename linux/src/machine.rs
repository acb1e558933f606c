//! The machine itself: a Linux process that implements the waist.

use crate::buffer::{Buffers, WARM};
use crate::context;
#[cfg(feature = "std")]
use crate::deliver::pager::Pagers;
use crate::frame::{Frames, Location};
use crate::fresh::Zeros;
use crate::host::{self, PAGE};
use crate::lock::{self, SoleMutex, SoleRwLock};
use crate::moves::Streak;
use crate::pipe::{Pipes, Referenced};
use crate::probe::{Delivery, Probe, ProbeError};
use crate::quota::{Credits, Quota};
use crate::reserve::ReserveError;
use crate::space::{HOST_END, Layout, LinuxSpace};
use crate::stats::{Counter, Counters, MachineStats};
use crate::sweep::{BATCH, Sweep};
use crate::sys;
use crate::table::{FILE_INDEX_LIMIT, SPAN};
use crate::uffd::{Device, Mapped, Userfault};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::AtomicU32;
use pagefault_machine::machine::Page;
use pagefault_machine::{
    Capabilities, ContextId, Frame, Machine, NoSpace, OutOfFrames, PAGE_SIZE, Part, Stale, VirtAddr,
};
use rustix::io::Errno;

/// The configuration of a machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of frames: the most pages with resident content, mapped or parked.
    ///
    /// The machine needs up to [`Config::OVERHEAD`] more resident pages for content in transit.
    pub frames: u32,
    /// The kind of its address spaces.
    pub layout: Layout,
    /// How faults reach the memory manager.
    pub delivery: Delivery,
    /// Where the kernel's addresses begin; by default at the end of the window, and for an identity
    /// space as on the host.
    pub task_size: Option<VirtAddr>,
}

impl Config {
    /// The pages that may be resident beyond the frames: unused warm buffers, and pages that are
    /// being parked and exist twice for a moment.
    pub const OVERHEAD: u32 = WARM + BATCH as u32;

    /// A machine of `frames` frames with windows of 64 GiB from address 0 on, and inline delivery.
    pub const fn new(frames: u32) -> Self {
        let layout = Layout::Windows { origin: VirtAddr::ZERO, bytes: 64 << 30 };
        Self { frames, layout, delivery: Delivery::Inline, task_size: None }
    }
}

/// Why a machine could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The kernel lacks a feature, or this user a right.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The host refuses the address space for the machine's tables; only touched parts would use
    /// memory.
    #[error(
        "the host refuses address space for the page tables ({0}): raise the limit of addresses \
         (ulimit -v unlimited), and allow overcommit (vm.overcommit_memory=0 or 1)"
    )]
    AddressSpace(Errno),
    /// No frames, or too many to number.
    #[error("a machine needs between 1 and {} frames", MAX_FRAMES)]
    Frames,
    /// The window is empty, too long, or not aligned.
    #[error("a window must be aligned to 2 MiB and end below 2^47")]
    Window,
}

impl From<ReserveError> for BuildError {
    fn from(error: ReserveError) -> Self {
        Self::AddressSpace(error.errno)
    }
}

/// The most frames of a machine (4 TiB).
pub const MAX_FRAMES: u32 = (1 << 30) - 2;

/// The most pages of zeros worth giving at once to sequential first stores
/// ([`pagefault::Config::populate_ahead`]): a fault costs a signal or two thread switches, and one
/// call fills all these pages.
pub const POPULATE_AHEAD: u32 = 32;

/// A Linux process as a machine: real faults of real programs, through userfaultfd.
///
/// Cloning gives another handle on the same machine.
#[derive(Clone)]
pub struct LinuxMachine {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub layout: Layout,
    pub delivery: Delivery,
    pub task_size: VirtAddr,
    pub probe: Probe,
    pub descriptor: Userfault,
    /// Kept for a forked child that has lost the right to open a descriptor.
    pub device: Option<Device>,
    pub sweep: Sweep,
    pub pipes: Pipes,
    /// The nominal number of frames; there may be more.
    pub budget: u32,
    pub frames: Frames,
    pub buffers: Buffers,
    pub zeros: Zeros,
    pub streak: Streak,
    #[cfg(feature = "std")]
    pub pagers: Pagers,
    pub credits: Credits,
    pub counters: Counters,
}

impl LinuxMachine {
    /// Builds a machine, or returns what the kernel lacks.
    pub fn new(config: &Config) -> Result<Self, BuildError> {
        let machine = Self::build(config, Credits::new(None), config.frames)?;
        machine.prepare_for_threads();
        Ok(machine)
    }

    /// Builds a machine that pays for its frames from a quota shared with other machines. The quota
    /// may grow beyond the frames of the configuration, up to `most`. It is for one thread until
    /// [`prepare_for_threads`](Self::prepare_for_threads).
    pub fn with_quota(
        config: &Config,
        quota: Box<dyn Quota>,
        most: u32,
    ) -> Result<Self, BuildError> {
        Self::build(config, Credits::new(Some(quota)), most.max(config.frames))
    }

    fn build(config: &Config, credits: Credits, most: u32) -> Result<Self, BuildError> {
        if config.frames == 0 || most > MAX_FRAMES {
            return Err(BuildError::Frames);
        }
        let end = match config.layout {
            Layout::Windows { origin, bytes } => check_window(origin, bytes)?,
            Layout::Identity => VirtAddr(HOST_END - PAGE_SIZE),
        };
        let sweep = Sweep::new();
        let (probe, descriptor) = Probe::begin(config.delivery, &sweep)?;
        let needs_right = config.delivery != Delivery::Inline;
        Ok(Self {
            shared: Arc::new(Shared {
                layout: config.layout,
                delivery: config.delivery,
                task_size: config.task_size.unwrap_or(end),
                probe,
                descriptor,
                device: needs_right.then(Device::open).flatten(),
                sweep,
                pipes: Pipes::new(),
                budget: config.frames,
                frames: Frames::new(most)?,
                buffers: Buffers::new(most)?,
                zeros: Zeros::new()?,
                streak: Streak::default(),
                #[cfg(feature = "std")]
                pagers: Pagers::new(),
                credits,
                counters: Counters::new(),
            }),
        })
    }

    /// Opens the descriptors that make evictions cheap while several threads run. To be called before a second
    /// thread starts: it uses low descriptor numbers for a moment. Any number of calls do no harm.
    pub fn prepare_for_threads(&self) {
        self.shared.pipes.open();
    }

    /// Makes an address space, or returns the host's error: `EBUSY` for a second identity space,
    /// `ENOMEM` for lack of addresses.
    pub fn new_space(&self) -> Result<LinuxSpace, Errno> {
        LinuxSpace::new(&self.shared)
    }

    /// Grants frames that are already charged to the quota.
    pub fn grant_frames(&self, frames: u32) {
        self.shared.credits.grant(frames);
    }

    /// Gives back granted frames that are not in use.
    pub fn give_back_frames(&self) {
        self.shared.credits.give_back();
    }

    /// The most frames that were in use at once.
    pub fn peak_frames(&self) -> u32 {
        self.shared.frames.used()
    }

    /// The work of the machine so far.
    pub fn counters(&self) -> MachineStats {
        let mut stats = self.shared.counters.sum();
        stats.buffers_resident = self.shared.buffers.resident();
        stats
    }
}

fn check_window(origin: VirtAddr, bytes: u64) -> Result<VirtAddr, BuildError> {
    let end = origin.checked_add(bytes).ok_or(BuildError::Window)?;
    let aligned = origin.value().is_multiple_of(SPAN) && bytes.is_multiple_of(SPAN);
    if aligned && bytes > 0 && end.value() <= HOST_END { Ok(end) } else { Err(BuildError::Window) }
}

/// A page of zeros to copy from.
static ZEROS: Page = [0; PAGE];

impl Shared {
    /// Whether the calling thread is known to be the only one that could store to managed memory.
    pub fn is_alone(&self) -> bool {
        self.delivery == Delivery::Inline && context::is_alone()
    }

    /// The page from which a frame that is not mapped can be copied.
    ///
    /// Valid while the frame is held.
    pub fn parked_page(&self, location: Location) -> *const Page {
        match location {
            Location::Buffer(slot) => self.buffers.page(slot),
            Location::At(page, _) => page as *const Page,
            Location::Free | Location::Blank | Location::Zero => &raw const ZEROS,
        }
    }

    /// Takes the buffer or the host page's content away from a frame that is being emptied.
    fn forget(&self, held: &crate::frame::Held<'_>) {
        match held.location() {
            Location::Buffer(slot) => self.buffers.give(slot, &self.sweep),
            Location::At(page, _) => self.drop_page(page),
            Location::Free | Location::Blank | Location::Zero => {}
        }
    }
}

impl Machine for LinuxMachine {
    type Space = LinuxSpace;
    type Mutex = SoleMutex;
    type RwLock = SoleRwLock;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            accessed: false,
            dirty: false,
            task_size: self.shared.task_size,
            no_execute: true,
            file_index_limit: FILE_INDEX_LIMIT,
            last_swap_slot: u32::MAX,
        }
    }

    fn frames(&self) -> u32 {
        self.shared.budget
    }

    fn most_frames(&self) -> u32 {
        self.shared.frames.len()
    }

    fn free_frames(&self) -> u32 {
        self.shared.frames.free_count().min(self.shared.credits.free())
    }

    fn zero_frame(&self) -> Option<Frame> {
        None
    }

    fn allocate(&self) -> Result<Frame, OutOfFrames> {
        let shared = &self.shared;
        if !shared.credits.spend() {
            return Err(OutOfFrames);
        }
        shared.frames.allocate(context::current()).ok_or_else(|| {
            shared.credits.refund();
            OutOfFrames
        })
    }

    fn free(&self, frame: Frame) {
        let held = self.shared.frames.hold(frame);
        debug_assert_ne!(held.location(), Location::Free, "{frame:?} is freed twice");
        self.shared.forget(&held);
        self.shared.credits.release(frame);
        self.shared.frames.release(held, context::current());
    }

    fn zero(&self, frame: Frame) {
        let held = self.shared.frames.hold(frame);
        self.shared.forget(&held);
        self.shared.credits.own(frame);
        held.set_location(Location::Zero);
    }

    fn copy(&self, from: Frame, to: Frame) {
        let shared = &self.shared;
        let slot = shared.buffers.take();
        let source = shared.frames.hold(from);
        shared.copy_held(&source, slot);
        drop(source);
        let target = shared.frames.hold(to);
        shared.forget(&target);
        shared.credits.own(to);
        target.set_location(Location::Buffer(slot));
        shared.counters.add(Counter::Copied, 1);
    }

    fn fill<R>(&self, frame: Frame, f: impl FnOnce(&mut Page) -> R) -> R {
        let shared = &self.shared;
        let held = shared.frames.hold(frame);
        let slot = match held.location() {
            Location::Buffer(slot) => slot,
            Location::At(..) => shared.park(&held),
            location => {
                shared.credits.own(frame);
                let slot = shared.buffers.take();
                if location != Location::Blank {
                    // SAFETY: the buffer just taken is nobody else's.
                    unsafe { shared.buffers.page(slot).write_bytes(0, 1) };
                }
                held.set_location(Location::Buffer(slot));
                slot
            }
        };
        // SAFETY: the buffer belongs to the held frame, is mapped nowhere else, and every byte
        // pattern is a page.
        f(unsafe { &mut *shared.buffers.page(slot) })
    }

    fn drain<R>(&self, frame: Frame, f: impl FnOnce(&Page) -> R) -> R {
        let shared = &self.shared;
        let held = shared.frames.hold(frame);
        let is_open =
            matches!(held.location(), Location::At(_, Mapped::Writable)) && !shared.is_alone();
        if !is_open {
            // SAFETY: while the frame is held its content is neither moved nor dropped, and nobody stores
            // to it: it is parked, or write-protected on the host, or there is no other thread.
            return f(unsafe { &*shared.parked_page(held.location()) });
        }
        let slot = shared.buffers.take();
        shared.copy_held(&held, slot);
        // SAFETY: the buffer just taken is nobody else's, and every byte pattern is a page.
        let result = f(unsafe { &*shared.buffers.page(slot) });
        shared.buffers.give(slot, &shared.sweep);
        result
    }

    /// Never for lack of frames; [`LinuxMachine::new_space`] returns the host's error.
    fn space(&self) -> Result<LinuxSpace, NoSpace> {
        self.new_space().map_err(|_| NoSpace::Refused)
    }

    fn flush(&self, space: &LinuxSpace, stale: &[Stale]) {
        self.shared.flush(&space.core, stale);
    }

    fn prefetch(&self, frame: Frame, part: Part) {
        match part {
            Part::State => {
                self.shared.frames.prefetch(frame);
                self.shared.credits.prefetch(frame);
            }
            Part::Content => match self.shared.frames.peek(frame) {
                Location::Buffer(slot) => {
                    host::prefetch_page(self.shared.buffers.page(slot).cast())
                }
                Location::At(page, _) => host::prefetch_page(page as *const u8),
                Location::Free | Location::Blank | Location::Zero => {}
            },
        }
    }

    /// A frame shared with a relative is at the same place for both; a copy elsewhere costs memory.
    fn keeps_unmapped(&self, frame: Frame) -> bool {
        !self.shared.credits.is_shared(frame)
    }

    fn is_alone(&self, _space: &LinuxSpace) -> bool {
        self.shared.is_alone()
    }

    fn is_sole(&self) -> bool {
        lock::is_sole()
    }

    /// The flush of a thread that is alone interrupts no other processor. Otherwise a pipe has room for as many
    /// pages.
    fn direct_batch(&self) -> usize {
        if self.shared.is_alone() { 4 } else { Referenced::MOST }
    }

    fn context(&self) -> ContextId {
        ContextId(context::current())
    }

    fn wait(&self, word: &AtomicU32, value: u32) {
        lock::wait(word, value);
    }

    fn wake(&self, word: &AtomicU32) {
        lock::wake_all(word);
    }

    fn pause(&self) {
        rustix::thread::sched_yield();
    }

    fn now(&self) -> u64 {
        sys::monotonic_clock()
    }
}
