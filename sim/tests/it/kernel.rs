//! Kernel addresses: shared tables, and the lazy copy of the top level (spec A4 to A6).

use crate::common::{PAGE, RW, map, present, set, stale};
use pagefault_machine::{Entry, ErrorCode, Machine, Mode, Protection, Space, VirtAddr};
use pagefault_sim::{Architecture, Computer, Config, Ia32, Pae, Sim, SyncError, X86_64};

/// The first address that is synchronised.
fn vmalloc<A: Architecture>() -> VirtAddr {
    VirtAddr(A::SYNCHRONISED.start)
}

#[test]
fn a_space_follows_the_reference_table_when_it_first_needs_to() {
    fn check<A: Architecture>() {
        let sim = Computer::<A>::new(Config::calm());
        let cpu = sim.cpu(0);
        let space = sim.space().unwrap();
        let address = vmalloc::<A>();
        assert_eq!(sim.synchronise_root(cpu.root(), address), Err(SyncError::Unmapped));
        let frame = map(&sim, sim.kernel(), address, RW);
        sim.fill(frame, |page| page[0] = 42);
        // The space was made before the mapping, so its own top level lacks it.
        let fault = cpu.load(&space, address, Mode::Kernel).unwrap_err();
        assert_eq!(fault.code, ErrorCode::empty());
        assert_eq!(sim.synchronise_root(cpu.root(), address), Ok(()));
        assert_eq!(cpu.load(&space, address, Mode::Kernel), Ok(42));
        assert_eq!(sim.stats().synchronisations, 1);
        // User mode is kept out by the entry: present, but forbidden.
        let fault = cpu.load(&space, address, Mode::User).unwrap_err();
        assert_eq!(fault.code, ErrorCode::PROTECTION | ErrorCode::USER);
        // A space made now has it from the start.
        let later = sim.space().unwrap();
        assert_eq!(cpu.load(&later, address, Mode::Kernel), Ok(42));
        // A page that the shared tables do not map is found missing in the reference table.
        assert_eq!(sim.synchronise_root(cpu.root(), address + 4096), Err(SyncError::Unmapped));
        assert_eq!(sim.synchronise_root(cpu.root(), PAGE), Err(SyncError::OutOfRange));
    }
    check::<X86_64>();
    check::<Ia32>();
    check::<Pae>();
}

#[test]
fn the_root_that_is_loaded_counts_not_the_task() {
    let sim = Sim::new(Config { cpus: 2, ..Config::calm() });
    let space = sim.space().unwrap();
    let cpu = sim.cpu(1);
    cpu.switch(&space);
    cpu.idle();
    map(&sim, sim.kernel(), vmalloc::<X86_64>(), RW);
    assert!(cpu.load_as_loaded(vmalloc::<X86_64>()).is_err());
    assert_eq!(cpu.root(), space.root());
    // As the memory manager asks it, from the thread that the fault interrupted.
    assert!(sim.synchronise(vmalloc::<X86_64>()));
    assert!(!sim.synchronise(vmalloc::<X86_64>() + 4096));
    assert!(!sim.synchronise(PAGE));
    assert_eq!(cpu.load_as_loaded(vmalloc::<X86_64>()), Ok(0));
}

#[test]
fn a_corrupt_top_level_is_told_apart_from_a_missing_one() {
    let sim = Sim::new(Config::calm());
    let space = sim.space().unwrap();
    map(&sim, sim.kernel(), vmalloc::<X86_64>(), RW);
    sim.synchronise_root(space.root(), vmalloc::<X86_64>()).unwrap();
    let wrong = sim.kernel().root();
    let right = space.replace_top(vmalloc::<X86_64>(), Some(wrong));
    let error = sim.synchronise_root(space.root(), vmalloc::<X86_64>());
    let (running, reference) = (wrong, right.unwrap());
    assert_eq!(error, Err(SyncError::Mismatch { running, reference }));
    space.replace_top(vmalloc::<X86_64>(), None);
    assert_eq!(sim.synchronise_root(space.root(), vmalloc::<X86_64>()), Ok(()));
}

#[test]
fn a_flush_of_kernel_pages_reaches_every_cpu_in_any_space() {
    let sim = Sim::new(Config { cpus: 2, ..Config::calm() });
    let address = vmalloc::<X86_64>();
    let frame = map(&sim, sim.kernel(), address, RW);
    let spaces = [sim.space().unwrap(), sim.space().unwrap()];
    for (cpu, space) in (0..).zip(&spaces) {
        sim.cpu(cpu).load(space, address, Mode::Kernel).unwrap();
    }
    // Kernel translations are global: they outlive a switch.
    sim.cpu(0).switch(&spaces[1]);
    assert_eq!(sim.cpu(0).cached(), 1);
    set(sim.kernel(), address, Entry::None);
    assert!(sim.check_tlbs().is_err());
    sim.flush(sim.kernel(), &[stale(address, frame)]);
    assert_eq!(sim.check_tlbs(), Ok(()));
    sim.free(frame);
}

#[test]
#[should_panic(expected = "is not of space")]
fn user_spaces_do_not_lock_kernel_addresses() {
    let sim = Sim::new(Config::calm());
    let space = sim.space().unwrap();
    let address = vmalloc::<X86_64>();
    let _ = space.lock(address..address + 4096);
}

#[test]
fn kernel_pages_of_a_dropped_space_stay() {
    let sim = Sim::new(Config::calm());
    let address = vmalloc::<X86_64>();
    let frame = map(&sim, sim.kernel(), address, RW);
    let tables = sim.usage().tables;
    drop(sim.space().unwrap());
    assert_eq!(sim.usage().tables, tables);
    assert_eq!(set(sim.kernel(), address, Entry::None), present(frame, RW));
    set(sim.kernel(), address, present(frame, Protection::READ));
    let space = sim.space().unwrap();
    // Write protection binds the kernel too (WP).
    let fault = sim.cpu(0).store(&space, address, Mode::Kernel, 1).unwrap_err();
    assert_eq!(fault.code, ErrorCode::PROTECTION | ErrorCode::WRITE);
}
