//! The computer as a [`Machine`].

use crate::arch::{Architecture, Ia32, X86_64};
use crate::config::{Config, ConfigError};
use crate::context;
use crate::cpu::{Cpu, Registers, local_cpu};
use crate::frames::Owner;
use crate::hardware::Hardware;
use crate::kernel::SyncError;
use crate::lock::{SimMutex, SimRwLock};
use crate::schedule;
use crate::shootdown::Flush;
use crate::space::{SimSpace, cursors_held};
use crate::stats::{Stats, count};
use crate::violation::{Operation, Staleness, Violation};
use crate::wait;
use crate::walk::{Marks, Walked, walk};
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use pagefault_machine::machine::Page;
use pagefault_machine::{
    Capabilities, ContextId, Erratum, Frame, Machine, NoSpace, OutOfFrames, PageFault, Rights,
    Stale, VirtAddr,
};
use std::sync::Arc;

/// A simulated computer with x86-64 processors.
pub type Sim = Computer<X86_64>;

/// A simulated computer with IA-32 processors, whose tables have two levels.
pub type Sim32 = Computer<Ia32>;

/// A simulated computer.
///
/// A value is only a handle; clones name the same computer, so that a test keeps one while the
/// memory manager owns another.
pub struct Computer<A: Architecture> {
    pub(crate) hw: Arc<Hardware<A>>,
    kernel: Arc<SimSpace<A>>,
}

/// How many frames are used for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Frames that are free.
    pub free: u32,
    /// Frames that the memory manager has allocated.
    pub allocated: u32,
    /// Frames that hold page tables, the reference table's among them.
    pub tables: u32,
}

impl<A: Architecture> Computer<A> {
    /// Builds a computer from a configuration that is known to be valid. [`Computer::try_new`] returns an
    /// error instead.
    ///
    /// # Panics
    /// If it is not valid.
    pub fn new(config: Config) -> Self {
        match Self::try_new(config) {
            Ok(computer) => computer,
            Err(error) => panic!("{error}"),
        }
    }

    /// Builds a computer, or returns which number is out of range.
    pub fn try_new(config: Config) -> Result<Self, ConfigError> {
        let hw = Arc::new(Hardware::new(config)?);
        let kernel = Arc::new(SimSpace::new(hw.clone(), hw.reference.clone()));
        Ok(Self { hw, kernel })
    }

    /// A CPU by number.
    ///
    /// # Panics
    /// If there is no such CPU.
    pub fn cpu(&self, number: u32) -> Cpu<A> {
        assert!(number < self.cpus(), "there are {} CPUs", self.cpus());
        Cpu { hw: self.hw.clone(), number, registers: Registers::default() }
    }

    /// The number of CPUs.
    pub fn cpus(&self) -> u32 {
        self.hw.cpus.len() as u32
    }

    /// The reference table of kernel addresses (Linux: `init_mm`). Other spaces take its top-level
    /// entries over when they are made, and later ones by [`Machine::synchronise`].
    pub fn kernel(&self) -> &SimSpace<A> {
        &self.kernel
    }

    /// What the computer was built from.
    pub fn config(&self) -> &Config {
        &self.hw.config
    }

    /// What the computer has done so far.
    pub fn stats(&self) -> Stats {
        self.hw.counters.read()
    }

    /// How many frames are used for what.
    pub fn usage(&self) -> Usage {
        let free = self.hw.frames.free_count();
        let tables = self.hw.frames.tables();
        let zeros = u32::from(self.hw.zeros.is_some());
        Usage { free, allocated: self.frames() - free - tables - zeros, tables }
    }

    /// Whether the memory manager has this frame.
    pub fn is_allocated(&self, frame: Frame) -> bool {
        self.hw.frames.contains(frame) && self.hw.frames.owner(frame) == Owner::Manager
    }

    /// Makes the `nth` allocation of a frame from now on fail, the next one being the first;
    /// frames for page tables count too. 0 lets all succeed.
    pub fn fail_nth_allocation(&self, nth: u64) {
        self.hw.frames.fail_nth(nth);
    }

    /// Lets time pass on the computer's clock, which otherwise counts accesses.
    pub fn advance(&self, nanoseconds: u64) {
        self.hw.tick(nanoseconds);
    }

    /// The rules broken so far, with [`OnViolation::Record`](crate::OnViolation::Record).
    pub fn violations(&self) -> Vec<Violation> {
        self.hw.violations()
    }

    /// Checks that every translation in every TLB is one that the page table still makes, with no
    /// more rights (spec I19), and none names a free frame (spec I4).
    ///
    /// Call it while no thread uses the computer: between the change of an entry and its flush a stale
    /// translation breaks no rule.
    pub fn check_tlbs(&self) -> Result<(), Violation> {
        (0..self.cpus()).try_for_each(|cpu| self.check_tlb(cpu))
    }

    fn check_tlb(&self, cpu: u32) -> Result<(), Violation> {
        let state = self.hw.cpus[cpu as usize].lock();
        for cached in state.tlb.iter() {
            let address = VirtAddr(cached.page * pagefault_machine::PAGE_SIZE);
            let walked = walk::<A>(&self.hw.frames, state.loaded.root, address, Marks::Leave);
            let staleness = match walked {
                _ if self.hw.frames.owner(cached.frame) == Owner::Nobody => Staleness::Free,
                Walked::Missing | Walked::Reserved => Staleness::Absent,
                Walked::Found(leaf) if leaf.frame != cached.frame => Staleness::Frame(leaf.frame),
                Walked::Found(leaf) => {
                    let (now, then) = (leaf.rights, cached.rights);
                    let is_clean = leaf.raw & A::DIRTY == 0;
                    if then.write && !now.write {
                        Staleness::Write
                    } else if then.user && !now.user {
                        Staleness::User
                    } else if then.execute && !now.execute {
                        Staleness::Execute
                    } else if cached.dirty && is_clean && self.hw.config.dirty_bits {
                        Staleness::Dirty
                    } else {
                        continue;
                    }
                }
            };
            let (space, frame) = (state.loaded.id, cached.frame);
            return Err(Violation::StaleTranslation { cpu, space, address, frame, staleness });
        }
        Ok(())
    }

    /// Which CPU's TLB translates which page to a frame.
    fn translation_to(&self, frame: Frame) -> Option<Violation> {
        (0..).zip(&self.hw.cpus).find_map(|(cpu, state)| {
            let state = state.lock();
            let cached = state.tlb.iter().find(|cached| cached.frame == frame)?;
            let address = VirtAddr(cached.page * pagefault_machine::PAGE_SIZE);
            Some(Violation::FreedWhileMapped { frame, cpu, address })
        })
    }
}

impl<A: Architecture> Machine for Computer<A> {
    type Space = SimSpace<A>;
    type Mutex = SimMutex;
    type RwLock = SimRwLock;
    const RIGHTS: Rights = A::RIGHTS;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            accessed: self.hw.config.accessed_bits,
            dirty: self.hw.config.dirty_bits,
            task_size: A::TASK_SIZE,
            no_execute: A::NO_EXECUTE,
            file_index_limit: A::LIMITS.file_index,
            last_swap_slot: A::LIMITS.slot,
        }
    }

    fn frames(&self) -> u32 {
        self.hw.frames.count()
    }

    fn free_frames(&self) -> u32 {
        self.hw.frames.free_count()
    }

    fn zero_frame(&self) -> Option<Frame> {
        self.hw.zeros
    }

    fn allocate(&self) -> Result<Frame, OutOfFrames> {
        self.step();
        let frame = self.hw.allocate()?;
        count(&self.hw.counters.allocations, 1);
        Ok(frame)
    }

    fn free(&self, frame: Frame) {
        self.step();
        if self.hw.frames.has_translations(frame) {
            // The translation may be dropped between the two looks, by a CPU's own choice.
            self.hw.expect(self.translation_to(frame).map_or(Ok(()), Err));
        }
        self.hw.expect(self.hw.frames.free(frame, Owner::Manager));
        count(&self.hw.counters.frees, 1);
    }

    fn zero(&self, frame: Frame) {
        self.step();
        if self.may(frame, Operation::Zero) {
            self.hw.frames.zero(frame);
        }
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.step();
        if self.may(from, Operation::CopyFrom) && self.may(to, Operation::CopyTo) {
            self.hw.frames.copy(from, to);
        }
    }

    /// Words that `f` leaves as they are keep what CPUs store in them meanwhile.
    fn fill<R>(&self, frame: Frame, f: impl FnOnce(&mut Page) -> R) -> R {
        self.step();
        let allowed = self.may(frame, Operation::Fill);
        let old = if allowed { self.hw.frames.read(frame) } else { [0; _] };
        let mut new = old;
        let result = f(&mut new);
        if allowed && self.may(frame, Operation::Fill) {
            self.hw.frames.write_changes(frame, &old, &new);
        }
        result
    }

    fn drain<R>(&self, frame: Frame, f: impl FnOnce(&Page) -> R) -> R {
        self.step();
        let allowed = self.may(frame, Operation::Drain);
        f(&if allowed { self.hw.frames.read(frame) } else { [0; _] })
    }

    fn space(&self) -> Result<SimSpace<A>, NoSpace> {
        let table = self.hw.new_table()?;
        Ok(SimSpace::new(self.hw.clone(), Arc::new(table)))
    }

    /// Exactly the pages listed are forgotten, so that one that is missing in the list stays stale.
    fn flush(&self, space: &SimSpace<A>, stale: &[Stale]) {
        if stale.is_empty() {
            return;
        }
        self.step();
        if cursors_held() != 0 {
            self.hw.expect(Err(Violation::FlushUnderCursor { space: space.table.id }));
        }
        let pages: Vec<u64> = stale.iter().map(|stale| stale.address.page_number()).collect();
        let interrupts = self.hw.shoot_down(&space.table, Flush::Pages(&pages));
        count(&self.hw.counters.flushes, 1);
        count(&self.hw.counters.flushed_pages, pages.len() as u64);
        count(&self.hw.counters.interrupts, interrupts);
    }

    fn flush_here(&self, space: &SimSpace<A>, stale: Stale) -> bool {
        let flushed = self.hw.forget_here(&space.table, stale.address.page_number());
        if flushed {
            count(&self.hw.counters.flushes, 1);
            count(&self.hw.counters.flushed_pages, 1);
        }
        flushed
    }

    fn is_alone(&self, _space: &SimSpace<A>) -> bool {
        self.hw.config.alone
    }

    fn is_sole(&self) -> bool {
        self.hw.config.alone
    }

    fn erratum(&self, fault: &PageFault) -> Option<Erratum> {
        let cpu = local_cpu(self.cpus()) as usize;
        let root = self.hw.cpus[cpu].lock().loaded.root;
        self.hw.erratum(root, fault)
    }

    /// Starts at the root that the calling thread's CPU has loaded.
    fn synchronise(&self, address: VirtAddr) -> bool {
        let cpu = local_cpu(self.cpus()) as usize;
        let root = self.hw.cpus[cpu].lock().loaded.root;
        match self.hw.synchronise(root, address) {
            Ok(()) => true,
            Err(SyncError::OutOfRange | SyncError::Unmapped) => false,
            Err(error @ SyncError::Mismatch { .. }) => panic!("at {address}: {error}"),
        }
    }

    fn context(&self) -> ContextId {
        context::current()
    }

    fn wait(&self, word: &AtomicU32, value: u32) {
        wait::wait(word, value, || self.hw.clock.load(Ordering::Relaxed));
    }

    fn wake(&self, word: &AtomicU32) {
        wait::wake(word);
    }

    fn pause(&self) {
        self.hw.tick(1);
        schedule::pause();
    }

    fn now(&self) -> u64 {
        self.hw.tick(1)
    }
}

impl<A: Architecture> Computer<A> {
    /// Every call takes a step of time, and another thread may run before it.
    fn step(&self) {
        self.hw.tick(1);
        schedule::point();
    }

    /// Whether a frame may be used in this way; reports it if not.
    fn may(&self, frame: Frame, operation: Operation) -> bool {
        let result = self.hw.frames.check_use(frame, operation);
        self.hw.expect(result);
        result.is_ok()
    }
}

impl<A: Architecture> Clone for Computer<A> {
    fn clone(&self) -> Self {
        Self { hw: self.hw.clone(), kernel: self.kernel.clone() }
    }
}

impl<A: Architecture> fmt::Debug for Computer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computer")
            .field("config", &self.hw.config)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
