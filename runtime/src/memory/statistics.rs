//! Events counted in the memory shared with the command.

use super::{current, events};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use pagefault::{Ahead, Correction, Event, Weight};
use pagefault_control::{Control, Counters, Kind};

/// Counts events.
pub struct Observer {
    pub control: &'static Control,
}

impl pagefault::Observer for Observer {
    fn event(&self, event: &Event) {
        let counters = &self.control.counters;
        let (page, access, correction, weight) = match event {
            Event::Corrected { address, access, correction, weight, .. } => {
                (address.value(), *access, correction, weight)
            }
            Event::Brought { address, ahead, .. } => {
                let (counts, kind) = guesses(counters, *ahead);
                counts.brought.add(1);
                return events::moved(kind, address.value());
            }
            Event::Used { ahead, pages } => {
                return guesses(counters, *ahead).0.used.add(u64::from(*pages));
            }
            Event::Wasted { ahead } => return guesses(counters, *ahead).0.wasted.add(1),
            Event::Evicted { address, .. } => {
                counters.evicted.add(1);
                say_what_is_stored(self.control);
                return events::moved(Kind::Evicted, address.map_or(0, |page| page.value()));
            }
            _ => return,
        };
        let (count, kind) = match correction {
            Correction::Anonymous => (&counters.anonymous, Kind::Anonymous),
            Correction::Zero => (&counters.zero, Kind::Zero),
            Correction::File | Correction::Nonlinear | Correction::Device => {
                (&counters.file, Kind::File)
            }
            Correction::SwapIn => (&counters.swap_in, Kind::SwapIn),
            Correction::CopyOnWrite => (&counters.copy_on_write, Kind::CopyOnWrite),
            Correction::Reuse => (&counters.first_store, Kind::FirstStore),
            Correction::Standby => (&counters.standby, Kind::Standby),
            Correction::Spurious => (&counters.spurious, Kind::Spurious),
        };
        count.add(1);
        if kind == Kind::SwapIn {
            say_what_is_stored(self.control);
        }
        match weight {
            Weight::Minor => counters.minor.add(1),
            Weight::Major => counters.major.add(1),
        }
        events::corrected(kind, page, access, *weight);
    }
}

/// Where pages that are brought ahead are counted, and what the event is.
const fn guesses(counters: &Counters, ahead: Ahead) -> (&pagefault_control::Ahead, Kind) {
    match ahead {
        Ahead::Swapped => (&counters.read_ahead, Kind::ReadAhead),
        Ahead::Fresh => (&counters.populated_ahead, Kind::PopulatedAhead),
    }
}

/// Reports from time to time how many pages this process has in each swap area.
fn say_what_is_stored(control: &Control) {
    /// The pages that come or go between two reports.
    const EVERY: u32 = 64;
    static MOVED: AtomicU32 = AtomicU32::new(0);
    if !MOVED.fetch_add(1, Relaxed).is_multiple_of(EVERY) {
        return;
    }
    let Some(manager) = current() else { return };
    let Some(slot) = control.slots.get(manager.tree.slot()) else { return };
    for area in manager.mm().manager().swap_areas().statistics() {
        slot.set_stored(area.area.into(), area.in_use);
    }
}
