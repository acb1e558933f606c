//! Events counted in the memory shared with the command.

use pagefault::{Correction, Event, Weight};
use pagefault_control::Control;
use pagefault_linux::LinuxMachine;
use pagefault_machine::Machine;

/// Counts what happens.
pub struct Observer {
    pub control: &'static Control,
    pub machine: LinuxMachine,
}

impl pagefault::Observer for Observer {
    fn event(&self, event: &Event) {
        let counters = &self.control.counters;
        let (correction, weight) = match event {
            Event::Corrected { correction, weight, .. } => (correction, weight),
            Event::ReadAhead { .. } => return counters.read_ahead.add(1),
            Event::PopulatedAhead { .. } => return counters.populated_ahead.add(1),
            _ => return,
        };
        let count = match correction {
            Correction::Anonymous => &counters.anonymous,
            Correction::Zero => &counters.zero,
            Correction::File | Correction::Nonlinear => &counters.file,
            Correction::SwapIn => &counters.swap_in,
            Correction::CopyOnWrite => &counters.copy_on_write,
            Correction::Reuse => &counters.first_store,
            Correction::Spurious => &counters.spurious,
        };
        count.add(1);
        match weight {
            Weight::Minor => counters.minor.add(1),
            Weight::Major => counters.major.add(1),
        }
        let resident = self.machine.frames() - self.machine.free_frames();
        counters.peak_resident.raise(u64::from(resident));
    }
}
