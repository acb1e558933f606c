//! Scripts in a Linux process: real loads and stores, answered inline.

use crate::machine::{Setup, StartError};
use crate::managed::{Managed, Processor, Stopped, config};
use crate::{USER_END, WINDOW_END, WINDOW_START};
use pagefault::Mm;
use pagefault::entry::{SegvCode, Signal};
use pagefault::machine::{Protection, Space, VirtAddr};
use pagefault_linux::runtime::{Attached, Reclaim, Runtime};
use pagefault_linux::{Config, Faulted, Layout, LinuxMachine, LinuxSpace};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The processor of this program.
pub(super) struct LinuxProcessor {
    /// Dropped before the machine stops answering.
    attached: BTreeMap<u32, Attached>,
    runtime: Runtime,
}

pub(super) fn start(setup: &Setup) -> Result<Managed<LinuxMachine, LinuxProcessor>, StartError> {
    let frames = u32::try_from(setup.sizes.frames).map_err(|_| StartError::Sizes)?;
    let bytes = WINDOW_END - WINDOW_START;
    let layout = Layout::Windows { origin: VirtAddr(WINDOW_START), bytes };
    let task_size = Some(VirtAddr(USER_END));
    let config_of_machine = Config { layout, task_size, ..Config::new(frames) };
    let machine = LinuxMachine::new(&config_of_machine)
        .map_err(|error| StartError::Machine(Box::new(error)))?;
    let runtime = Runtime::start(machine, config(), Reclaim::OnDemand)
        .map_err(|errno| StartError::System(errno.into()))?;
    let manager = runtime.manager().clone();
    Managed::new(manager, LinuxProcessor { attached: BTreeMap::new(), runtime }, setup)
}

fn stopped(result: Result<(), Faulted>) -> Result<(), Stopped> {
    result.map_err(|fault| {
        let signal = match fault.signal {
            pagefault_linux::Signal::NotMapped => Signal::Segv(SegvCode::MapErr),
            pagefault_linux::Signal::Forbidden => Signal::Segv(SegvCode::AccErr),
            pagefault_linux::Signal::NoContent => Signal::Bus,
        };
        Stopped::Signal(signal, fault.address.value())
    })
}

/// The instruction that a script executes.
const RET: u8 = 0xc3;

fn executable(mm: &Arc<Mm<LinuxMachine>>, address: u64) -> bool {
    let regions = mm.maps(VirtAddr(address)..VirtAddr(address + 1));
    regions.first().is_some_and(|region| region.protection.contains(Protection::EXECUTE))
}

fn space(mm: &Arc<Mm<LinuxMachine>>) -> &LinuxSpace {
    mm.space()
}

impl Processor<LinuxMachine> for LinuxProcessor {
    fn load(
        &mut self,
        mm: &Arc<Mm<LinuxMachine>>,
        address: u64,
        bytes: &mut [u8],
    ) -> Result<(), Stopped> {
        stopped(space(mm).load(VirtAddr(address), bytes))
    }

    fn store(
        &mut self,
        mm: &Arc<Mm<LinuxMachine>>,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), Stopped> {
        stopped(space(mm).store(VirtAddr(address), bytes))
    }

    fn fetch(&mut self, mm: &Arc<Mm<LinuxMachine>>, address: u64) -> Result<(), Stopped> {
        // Code other than a `ret` could do anything, so the script only checks whether it may be
        // fetched, as on the host.
        let mut byte = [0];
        let foreign = self.load(mm, address, &mut byte).is_ok() && byte[0] != RET;
        if foreign && executable(mm, address) {
            return Ok(());
        }
        // SAFETY: a `ret` stands there, or the fetch is refused.
        stopped(unsafe { space(mm).fetch(VirtAddr(address)) })
    }

    fn started(&mut self, mm: &Arc<Mm<LinuxMachine>>) {
        let id = space(mm).id();
        self.attached.insert(id, self.runtime.attach_mm(mm));
    }

    fn ended(&mut self, mm: &Arc<Mm<LinuxMachine>>) {
        self.attached.remove(&space(mm).id());
    }
}
