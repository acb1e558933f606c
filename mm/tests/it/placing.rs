//! Where mappings may be (spec C8, C15): on whole pages, and within the layout. And which page tables go with
//! them.

use crate::common::{PAGE, RW, at, world_with};
use pagefault::machine::VirtAddr;
use pagefault::{
    AddressSpace, Config, Layout, Manager, MapOptions, MapRequest, Move, Placement, RemapRequest,
};
use pagefault_sim::{Call, Log, Sim, Traced};
use std::sync::Arc;

/// A layout whose ends lie within pages offers the whole pages between them.
#[test]
fn c8_a_layout_is_rounded_inward_to_pages() {
    let world = world_with(64, Config::default());
    let layout = Layout::over(at(0) + 1..at(3) - 1);
    let space = AddressSpace::new(&world.manager, layout).unwrap();
    assert_eq!(space.mmap(&MapRequest::anonymous(PAGE)), Ok(at(1)));
    assert!(space.mmap(&MapRequest::anonymous(PAGE)).is_err());
    world.store(space.mm(), 0, at(1), &[1]).unwrap();
    world.manager.check().unwrap();
}

/// So do the bounds of a request.
#[test]
fn c8_bounds_of_a_placement_are_rounded_inward_to_pages() {
    let world = world_with(64, Config::default());
    let space = world.process();
    let between = |start, end| {
        space.mmap(&MapRequest::anonymous(PAGE).placed(Placement::Between(start, end)))
    };
    assert_eq!(between(at(0) + 7, at(2) + 7), Ok(at(1)));
    assert!(between(at(0) + 7, at(2) + 7).is_err());
    assert!(between(VirtAddr(u64::MAX), VirtAddr(u64::MAX)).is_err());
    world.manager.check().unwrap();
}

/// A heap that was never begun starts at address 0, outside the layout.
#[test]
fn c15_a_heap_grows_only_within_the_layout() {
    let world = world_with(64, Config::default());
    let layout = Layout::over(at(0)..at(8));
    let space = AddressSpace::new(&world.manager, layout).unwrap();
    let brk = |wanted| space.brk(wanted, MapOptions::empty());
    assert_eq!(brk(VirtAddr(1)), VirtAddr::ZERO);
    assert_eq!(space.usage().total, 0);
    space.begin_heap(at(0), 0);
    assert_eq!(brk(at(1)), at(1));
    assert_eq!(brk(at(9)), at(1), "past the end of the layout");
    assert!(space.mprotect(at(0), PAGE, RW).is_ok());
    world.manager.check().unwrap();
}

/// A machine may drop every table in the hole that `prune` names: nothing there may be mapped.
#[test]
fn c14_page_tables_of_a_mapping_that_stays_are_not_pruned() {
    let log = Log::new(1000);
    let machine = Traced::new(Sim::new(pagefault_sim::Config::calm()), log.clone());
    let manager = Manager::new(Arc::new(machine), Config::default());
    let space = AddressSpace::new(&manager, Layout::over(at(0)..at(4096))).unwrap();
    let start = space.mmap(&MapRequest::anonymous(8 * PAGE).at(at(1000))).unwrap();
    assert_eq!(space.copy_to_user(start, &[7; 8 * PAGE as usize]), 0);
    log.clear();
    let request = |movement| {
        let (address, length) = (start + 4 * PAGE, 4 * PAGE);
        RemapRequest { address, old_length: length, new_length: length, movement }
    };
    let is_pruned = || log.calls().iter().any(|call| matches!(call, Call::Prune { .. }));
    space.mremap(&request(Move::Leaving(Placement::Fixed(at(3000))))).unwrap();
    assert!(!is_pruned(), "the four pages in front are mapped, and in the same table");
    space.mremap(&request(Move::To(at(2000)))).unwrap();
    assert!(is_pruned(), "nothing is mapped at the old place");
    manager.check().unwrap();
}
