//! A simulated computer with a memory manager on it, for the integration tests.

use pagefault::entry::Verdict;
use pagefault::exception::ExceptionTables;
use pagefault::machine::{Machine, Mode, PageFault, Protection, VirtAddr};
use pagefault::swap::area::Priority;
use pagefault::{AddressSpace, Layout, Manager, MapRequest, Mm, Placement};
use pagefault_sim::{Architecture, Computer, Cpu, SimDisk, X86_64};
use std::sync::Arc;

pub const PAGE: u64 = pagefault::machine::PAGE_SIZE;

/// Where the tests map things unless they say otherwise.
pub const BASE: VirtAddr = VirtAddr(0x4000_0000);

/// To be read and written.
pub const RW: Protection = Protection::READ.union(Protection::WRITE);

/// The address of a page of the tests'.
pub fn at(page: u64) -> VirtAddr {
    BASE + page * PAGE
}

/// Maps private anonymous pages at [`at`].
pub fn map<M: Machine>(space: &AddressSpace<M>, first: u64, pages: u64, protection: Protection) {
    let placement = Placement::Fixed(at(first));
    let request = MapRequest { placement, protection, ..MapRequest::anonymous(pages * PAGE) };
    space.mm().mmap(&request).unwrap();
}

/// An x86-64 computer that holds no surprises.
pub fn world_with(frames: u32, config: pagefault::Config) -> World<X86_64> {
    World::new(pagefault_sim::Config { frames, ..pagefault_sim::Config::calm() }, config)
}

/// Maps pages from the first on, and stores each page's number plus one to it.
pub fn stored(world: &World<X86_64>, space: &AddressSpace<Computer<X86_64>>, pages: u64) {
    map(space, 0, pages, RW);
    for page in 0..pages {
        world.store(space.mm(), 0, at(page), &[(page as u8).wrapping_add(1)]).unwrap();
    }
}

/// After so many faults at one access, the fault is not being corrected.
const PATIENCE: u32 = 10_000;

pub struct World<A: Architecture> {
    pub sim: Computer<A>,
    pub manager: Arc<Manager<Computer<A>>>,
    pub tables: ExceptionTables,
}

impl<A: Architecture> World<A> {
    pub fn new(machine: pagefault_sim::Config, config: pagefault::Config) -> Self {
        let sim = Computer::new(machine);
        let manager = Manager::new(Arc::new(sim.clone()), config);
        Self { sim, manager, tables: ExceptionTables::default() }
    }

    /// Adds a swap area of `slots` slots, the first of which is never used.
    pub fn add_disk(&self, slots: u32, priority: Priority) -> (u8, SimDisk) {
        let disk = SimDisk::new(slots);
        let area = self.manager.swap_on(Box::new(disk.clone()), priority).unwrap();
        (area, disk)
    }

    pub fn with_disk(self, slots: u32) -> (Self, SimDisk) {
        let (_, disk) = self.add_disk(slots, Priority::Descending);
        (self, disk)
    }

    pub fn layout() -> Layout {
        let end = A::TASK_SIZE.min(VirtAddr(1 << 40));
        Layout::over(VirtAddr(0x1_0000)..end)
    }

    pub fn process(&self) -> AddressSpace<Computer<A>> {
        AddressSpace::new(&self.manager, Self::layout()).unwrap()
    }

    /// Makes an access again and again, as a processor does, until it succeeds or is refused.
    pub fn access<T>(
        &self,
        mm: &Arc<Mm<Computer<A>>>,
        cpu: u32,
        mut access: impl FnMut(&Cpu<A>) -> Result<T, PageFault>,
    ) -> Result<T, Verdict> {
        let cpu = self.sim.cpu(cpu);
        for _ in 0..PATIENCE {
            let fault = match access(&cpu) {
                Ok(done) => return Ok(done),
                Err(fault) => fault,
            };
            match self.manager.page_fault(Some(mm), &fault, &self.tables) {
                Verdict::Resume => {}
                refused => return Err(refused),
            }
        }
        panic!("the fault is corrected again and again, and the access still fails");
    }

    pub fn store(
        &self,
        mm: &Arc<Mm<Computer<A>>>,
        cpu: u32,
        at: VirtAddr,
        bytes: &[u8],
    ) -> Result<(), Verdict> {
        self.access(mm, cpu, |cpu| cpu.store_bytes(mm.space(), at, Mode::User, bytes))
    }

    pub fn load(
        &self,
        mm: &Arc<Mm<Computer<A>>>,
        cpu: u32,
        at: VirtAddr,
        bytes: &mut [u8],
    ) -> Result<(), Verdict> {
        self.access(mm, cpu, |cpu| cpu.load_bytes(mm.space(), at, Mode::User, bytes))
    }

    pub fn load_byte(
        &self,
        mm: &Arc<Mm<Computer<A>>>,
        cpu: u32,
        at: VirtAddr,
    ) -> Result<u8, Verdict> {
        self.access(mm, cpu, |cpu| cpu.load(mm.space(), at, Mode::User))
    }

    /// Walks every invariant of the manager and looks into every TLB.
    #[track_caller]
    pub fn check(&self) {
        if let Err(violation) = self.manager.check() {
            panic!("invariant {violation}");
        }
        if let Err(violation) = self.sim.check_tlbs() {
            panic!("{violation}");
        }
    }

    /// Checks that nothing is left once all address spaces and files are gone: no frame, no page
    /// table, no slot, no promise.
    #[track_caller]
    pub fn check_empty(&self) {
        self.check();
        let usage = self.sim.usage();
        assert_eq!((usage.allocated, usage.tables), (0, 1), "frames and tables left: {usage:?}");
        let slots: u32 = self.manager.swap_areas().statistics().map(|area| area.in_use).sum();
        assert_eq!(slots, 0, "swap slots left");
    }

    pub fn free(&self) -> u32 {
        self.sim.free_frames()
    }
}

/// A stream of numbers fixed by its seed (xorshift).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % limit
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Whether the long form of the tests was asked for.
pub fn long() -> bool {
    std::env::var_os("PAGEFAULT_LONG").is_some_and(|value| value == "1")
}

/// Names the seed and step of a run that panics.
pub struct Label {
    pub what: String,
    pub step: u64,
}

impl Drop for Label {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: {}, step {}", self.what, self.step);
        }
    }
}
