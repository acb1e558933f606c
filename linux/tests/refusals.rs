//! Impossible parameters are refused at once, and evict nothing.

use pagefault::error::{ForkError, MapError};
use pagefault::machine::{Access, VirtAddr};
use pagefault::{AddressSpace, Config as Rules, Layout as Addresses, Manager};
use pagefault::{MapRequest, Placement};
use pagefault_linux::{Config, Layout, LinuxMachine};
use std::sync::Arc;

const WINDOW: u64 = 64 << 20;

fn manager(layout: Layout) -> Arc<Manager<LinuxMachine>> {
    let machine = LinuxMachine::new(&Config { layout, ..Config::new(128) }).unwrap();
    let rules = Rules { overcommit: pagefault::Overcommit::Always, ..Rules::default() };
    Manager::new(Arc::new(machine), rules)
}

fn everything() -> Addresses {
    Addresses::over(VirtAddr(0x1_0000)..VirtAddr(0x7fff_ffff_f000))
}

#[test]
fn a_second_identity_space_is_refused_and_not_out_of_memory() {
    let manager = manager(Layout::Identity);
    let first = AddressSpace::new(&manager, everything()).unwrap();
    assert_eq!(AddressSpace::new(&manager, everything()).err(), Some(ForkError::Refused));
    assert_eq!(first.fork().err(), Some(ForkError::Refused));
    assert_eq!(manager.counters().direct_passes, 0);
}

#[test]
fn addresses_outside_of_the_window_cannot_be_mapped() {
    let manager = manager(Layout::Windows { origin: VirtAddr::ZERO, bytes: WINDOW });
    let space = AddressSpace::new(&manager, everything()).unwrap();
    let outside = Placement::Fixed(VirtAddr(WINDOW));
    let request = MapRequest { placement: outside, ..MapRequest::anonymous(4096) };
    assert_eq!(space.mmap(&request), Err(MapError::OutOfRange));
    // Without an address, only what the window has.
    let inside = space.mmap(&MapRequest::anonymous(WINDOW / 2)).unwrap();
    assert!(inside + WINDOW / 2 <= VirtAddr(WINDOW));
    assert!(space.mmap(&MapRequest::anonymous(WINDOW)).is_err());
    drop(space.pin(inside..inside + 4096, Access::Write).unwrap());
    assert_eq!(manager.counters().direct_passes, 0);
}
