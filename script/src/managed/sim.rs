//! Scripts on the simulated computer.

use crate::Window;
use crate::ast::Arch;
use crate::machine::{Machine, Setup, StartError};
use crate::managed::{Managed, Processor, Stopped, config};
use pagefault::exception::{ExceptionTable, ExceptionTables};
use pagefault::machine::{
    Cursor, DeviceMemory, Entry, Machine as _, Mode, PAGE_SIZE, PageFault, Protection, Space,
    VirtAddr,
};
use pagefault::{Manager, Mm};
use pagefault_sim::{
    Alpha, Architecture, Computer, Config, Cpu, Ia32, Pae, Registers, SimSpace, X86_64,
};
use std::sync::Arc;

/// The CPUs of the computer, which take turns with a script's accesses.
struct SimProcessor<A: Architecture> {
    sim: Computer<A>,
    arch: Arch,
    manager: Arc<Manager<Computer<A>>>,
    exceptions: ExceptionTables,
    turn: u32,
}

/// Starts a computer of a kind, with the processors, the sizes and the seed of the script.
pub(super) fn start(setup: &Setup, kind: Config) -> Result<Box<dyn Machine>, StartError> {
    // The page size is a constant: computers with other pages are not compiled.
    match setup.sizes.arch {
        Arch::X86_64 if PAGE_SIZE == 4096 => start_on::<X86_64>(setup, kind),
        Arch::Ia32 if PAGE_SIZE == 4096 => start_on::<Ia32>(setup, kind),
        Arch::Pae if PAGE_SIZE == 4096 => start_on::<Pae>(setup, kind),
        Arch::Alpha if PAGE_SIZE == 8192 => start_on::<Alpha>(setup, kind),
        Arch::X86_64 | Arch::Ia32 | Arch::Pae | Arch::Alpha => Err(StartError::PageSize),
    }
}

fn start_on<A: Architecture>(setup: &Setup, kind: Config) -> Result<Box<dyn Machine>, StartError> {
    let number = |n: u64| u32::try_from(n).map_err(|_| StartError::Sizes);
    let frames = number(setup.sizes.frames)?;
    let cpus = number(setup.sizes.cpus)?;
    let device_frames = number(setup.device_pages)?;
    let kind = Config { frames, device_frames, cpus, seed: setup.seed, ..kind };
    let sim = Computer::<A>::try_new(kind).map_err(|_| StartError::Sizes)?;
    let mut rules = config();
    rules.file_read_ahead = setup.sizes.read_ahead.unwrap_or(rules.file_read_ahead);
    let manager = Manager::new(Arc::new(sim.clone()), rules);
    let exceptions = ExceptionTables::new(ExceptionTable::default());
    let arch = setup.sizes.arch;
    let processor = SimProcessor { sim, arch, manager: manager.clone(), exceptions, turn: 0 };
    Ok(Box::new(Managed::new(manager, processor, setup)?))
}

impl<A: Architecture> SimProcessor<A> {
    /// Repeats an access until it succeeds or a fault is refused.
    fn run(
        &mut self,
        mm: &Arc<Mm<Computer<A>>>,
        mut access: impl FnMut(&Cpu<A>, &SimSpace<A>, u64) -> Result<(), PageFault>,
    ) -> Result<(), Stopped> {
        let mut from = 0;
        loop {
            // Another CPU each time, so that stale translations of one meet changes by another.
            self.turn = (self.turn + 1) % self.sim.cpus();
            let cpu = self.sim.cpu(self.turn);
            let Err(fault) = access(&cpu, mm.space(), from) else { return Ok(()) };
            from = fault.address.value();
            let verdict = self.manager.page_fault(Some(mm), &fault, &self.exceptions);
            if let Some(stopped) = Stopped::by(verdict, from) {
                return Err(stopped);
            }
        }
    }

    fn load_as(
        &mut self,
        mm: &Arc<Mm<Computer<A>>>,
        address: u64,
        bytes: &mut [u8],
        mode: Mode,
    ) -> Result<(), Stopped> {
        self.run(mm, |cpu, space, from| {
            let done = from.saturating_sub(address) as usize;
            let at = VirtAddr(address + done as u64);
            cpu.load_bytes(space, at, mode, &mut bytes[done..])
        })
    }

    fn store_as(
        &mut self,
        mm: &Arc<Mm<Computer<A>>>,
        address: u64,
        bytes: &[u8],
        mode: Mode,
    ) -> Result<(), Stopped> {
        self.run(mm, |cpu, space, from| {
            let done = from.saturating_sub(address) as usize;
            let at = VirtAddr(address + done as u64);
            cpu.store_bytes(space, at, mode, &bytes[done..])
        })
    }
}

/// Maps frames for the kernel itself, in the reference table only. Returns whether there was
/// memory.
pub fn map_for_kernel<A: Architecture>(sim: &Computer<A>, address: u64, length: u64) -> bool {
    (0..length.div_ceil(PAGE_SIZE)).all(|page| {
        let at = VirtAddr(address + page * PAGE_SIZE);
        let Ok(frame) = sim.allocate() else { return false };
        sim.zero(frame);
        let Ok(mut cursor) = sim.kernel().lock(at..at + PAGE_SIZE) else {
            sim.free(frame);
            return false;
        };
        let protection = Protection::READ | Protection::WRITE;
        let entry = Entry::Present { frame, protection, accessed: true, dirty: true };
        cursor.replace(at, entry);
        true
    })
}

impl<A: Architecture> Processor<Computer<A>> for SimProcessor<A> {
    fn window(&self) -> Window {
        Window::of(self.arch)
    }

    fn load(
        &mut self,
        mm: &Arc<Mm<Computer<A>>>,
        address: u64,
        bytes: &mut [u8],
    ) -> Result<(), Stopped> {
        self.load_as(mm, address, bytes, Mode::User)
    }

    fn store(
        &mut self,
        mm: &Arc<Mm<Computer<A>>>,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), Stopped> {
        self.store_as(mm, address, bytes, Mode::User)
    }

    fn fetch(&mut self, mm: &Arc<Mm<Computer<A>>>, address: u64) -> Result<(), Stopped> {
        self.run(mm, |cpu, space, _| cpu.fetch(space, VirtAddr(address), Mode::User).map(drop))
    }

    fn prefetch(
        &mut self,
        mm: &Arc<Mm<Computer<A>>>,
        code: u64,
        address: u64,
    ) -> Result<(), Stopped> {
        let registers = Registers { ip: VirtAddr(code), ..Registers::default() };
        self.run(mm, |cpu, space, _| {
            cpu.with(registers).prefetch(space, VirtAddr(address), Mode::User)
        })
    }

    fn kernel_load(
        &mut self,
        mm: &Arc<Mm<Computer<A>>>,
        address: u64,
        bytes: &mut [u8],
    ) -> Result<(), Stopped> {
        self.load_as(mm, address, bytes, Mode::Kernel)
    }

    fn kernel_store(
        &mut self,
        mm: &Arc<Mm<Computer<A>>>,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), Stopped> {
        self.store_as(mm, address, bytes, Mode::Kernel)
    }

    fn kernel_map(&mut self, address: u64, length: u64) -> bool {
        map_for_kernel(&self.sim, address, length)
    }

    fn device(&mut self, pages: u32) -> Option<Arc<dyn DeviceMemory>> {
        Some(Arc::new(self.sim.device(pages)?))
    }

    fn fail_allocation(&mut self, nth: u64) {
        self.sim.fail_nth_allocation(nth);
    }

    fn check(&self) -> Result<(), String> {
        self.sim.check_tlbs().map_err(|violation| violation.to_string())
    }
}
