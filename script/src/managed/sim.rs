//! Scripts on the simulated computer.

use crate::machine::{Setup, StartError};
use crate::managed::{Managed, Processor, Stopped, config};
use pagefault::entry::Verdict;
use pagefault::exception::{ExceptionTable, ExceptionTables};
use pagefault::machine::{Mode, PageFault, VirtAddr};
use pagefault::{Manager, Mm};
use pagefault_sim::{Config, Cpu, Sim, SimSpace, X86_64};
use std::sync::Arc;

/// The CPUs of the computer, which take turns in making the accesses of a script.
pub(super) struct SimProcessor {
    sim: Sim,
    manager: Arc<Manager<Sim>>,
    exceptions: ExceptionTables,
    turn: u32,
}

/// Starts a computer of a kind, with the sizes and the seed of the script.
pub(super) fn start(setup: &Setup, kind: Config) -> Result<Managed<Sim, SimProcessor>, StartError> {
    let number = |n: u64| u32::try_from(n).map_err(|_| StartError::Sizes);
    let frames = number(setup.sizes.frames)?;
    let cpus = number(setup.sizes.cpus)?;
    let sim = Sim::try_new(Config { frames, cpus, seed: setup.seed, ..kind })
        .map_err(|_| StartError::Sizes)?;
    let manager = Manager::new(Arc::new(sim.clone()), config());
    let exceptions = ExceptionTables::new(ExceptionTable::default());
    let processor = SimProcessor { sim, manager: manager.clone(), exceptions, turn: 0 };
    Managed::new(manager, processor, setup)
}

impl SimProcessor {
    /// Runs an access again until the memory manager is done with its faults.
    fn run(
        &mut self,
        mm: &Arc<Mm<Sim>>,
        mut access: impl FnMut(&Cpu<X86_64>, &SimSpace<X86_64>, u64) -> Result<(), PageFault>,
    ) -> Result<(), Stopped> {
        let mut from = 0;
        loop {
            // Another CPU each time, so that one's stale translations meet another's changes.
            self.turn = (self.turn + 1) % self.sim.cpus();
            let cpu = self.sim.cpu(self.turn);
            let Err(fault) = access(&cpu, mm.space(), from) else { return Ok(()) };
            from = fault.address.value();
            match self.manager.page_fault(Some(mm), &fault, &self.exceptions) {
                Verdict::Resume => {}
                Verdict::Signal(signal) => return Err(Stopped::Signal(signal, from)),
                Verdict::OutOfMemory => return Err(Stopped::OutOfMemory),
                verdict => return Err(Stopped::Bug(format!("verdict {verdict:?}"))),
            }
        }
    }
}

impl Processor<Sim> for SimProcessor {
    fn load(&mut self, mm: &Arc<Mm<Sim>>, address: u64, bytes: &mut [u8]) -> Result<(), Stopped> {
        self.run(mm, |cpu, space, from| {
            let done = from.saturating_sub(address) as usize;
            let at = VirtAddr(address + done as u64);
            cpu.load_bytes(space, at, Mode::User, &mut bytes[done..])
        })
    }

    fn store(&mut self, mm: &Arc<Mm<Sim>>, address: u64, bytes: &[u8]) -> Result<(), Stopped> {
        self.run(mm, |cpu, space, from| {
            let done = from.saturating_sub(address) as usize;
            let at = VirtAddr(address + done as u64);
            cpu.store_bytes(space, at, Mode::User, &bytes[done..])
        })
    }

    fn fetch(&mut self, mm: &Arc<Mm<Sim>>, address: u64) -> Result<(), Stopped> {
        self.run(mm, |cpu, space, _| cpu.fetch(space, VirtAddr(address), Mode::User).map(drop))
    }

    fn fail_allocation(&mut self, nth: u64) {
        self.sim.fail_nth_allocation(nth);
    }

    fn check(&self) -> Result<(), String> {
        self.sim.check_tlbs().map_err(|violation| violation.to_string())
    }
}
