//! The process itself as the address space: ranges of its own mappings, and its forks.

mod toy;

use pagefault_linux::Delivery;
use pagefault_machine::{Machine, VirtAddr};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard};
use toy::{PAGE, Running};

const PAGES: u64 = 64;

/// A process has one identity space at a time.
static ONE: Mutex<()> = Mutex::new(());

struct Mapping(*mut u8, #[allow(dead_code)] MutexGuard<'static, ()>);

impl Mapping {
    fn new() -> Self {
        let one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let len = (PAGES * PAGE) as usize;
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping.
        let start = unsafe { mmap_anonymous(null_mut(), len, flags, MapFlags::PRIVATE) };
        Self(start.unwrap().cast(), one)
    }

    fn word(&self, index: u64) -> *mut u64 {
        // SAFETY: within the mapping.
        unsafe { self.0.add((index * PAGE) as usize).cast() }
    }

    fn write_all(&self, seed: u64) {
        for index in 0..PAGES {
            // SAFETY: mapped, aligned memory that only this thread uses.
            unsafe { self.word(index).write_volatile(index * 3 + seed) };
        }
    }

    fn is(&self, seed: u64) -> bool {
        // SAFETY: as above.
        (0..PAGES).all(|index| unsafe { self.word(index).read_volatile() } == index * 3 + seed)
    }

    fn range(&self) -> std::ops::Range<VirtAddr> {
        let start = VirtAddr(self.0 as u64);
        start..start + PAGES * PAGE
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; the test is over.
        unsafe { munmap(self.0.cast(), (PAGES * PAGE) as usize) }.unwrap();
    }
}

#[test]
fn mappings_of_the_process_are_managed_in_place() {
    let mapping = Mapping::new();
    let run = toy::run_identity(mapping.0, PAGES, 24, Delivery::Threads(2));
    mapping.write_all(5);
    assert!(mapping.is(5));
    assert!(toy::resident(mapping.0, PAGES as usize) <= 24);
    assert!(run.toy.faults() >= PAGES);
}

#[test]
fn inline_delivery_manages_them_too() {
    let mapping = Mapping::new();
    let run = toy::run_identity(mapping.0, PAGES, 24, Delivery::Inline);
    mapping.write_all(6);
    assert!(mapping.is(6));
    assert!(run.toy.faults() >= PAGES);
}

#[test]
fn there_is_one_identity_space_at_a_time() {
    let mapping = Mapping::new();
    let run = toy::run_identity(mapping.0, PAGES, 24, Delivery::Inline);
    assert!(run.toy.machine.space().is_err());
    drop(run);
    toy::run_identity(mapping.0, PAGES, 24, Delivery::Inline);
}

#[test]
fn an_unregistered_range_is_the_kernels() {
    let mapping = Mapping::new();
    let run = toy::run_identity(mapping.0, PAGES, 80, Delivery::Threads(1));
    // SAFETY: nothing of the range was used before.
    unsafe { run.toy.space.unregister(mapping.range()) }.unwrap();
    mapping.write_all(1);
    assert!(mapping.is(1));
    assert_eq!(run.toy.faults(), 0);
}

#[test]
fn parent_and_child_go_on_with_their_own_memory() {
    let mapping = Mapping::new();
    let run = toy::run_identity(mapping.0, PAGES, 24, Delivery::Threads(2));
    mapping.write_all(1);
    run.toy.machine.before_fork();
    // SAFETY: the child runs the little that is below and leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let ok =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child(&run, &mapping)));
            // SAFETY: leaves without running the parent's destructors.
            unsafe { libc::_exit(if matches!(ok, Ok(true)) { 0 } else { 1 }) }
        }
        child => {
            // SAFETY: `before_fork` was called above.
            unsafe { run.toy.machine.after_fork_parent() };
            mapping.write_all(2);
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the child saw wrong memory");
            assert!(mapping.is(2));
        }
    }
}

fn child(run: &Running, mapping: &Mapping) -> bool {
    let (toy, faults) = (&run.toy, run.toy.faults());
    let ranges = std::iter::once(mapping.range());
    // SAFETY: the child's only thread; the range is the one that was registered.
    unsafe { toy.machine.after_fork_child(&toy.space, ranges) }.is_ok()
        && mapping.is(1)
        && toy.faults() > faults
        && {
            mapping.write_all(3);
            mapping.is(3)
        }
        && toy::resident(mapping.0, PAGES as usize) <= 24
}

#[test]
fn guarded_accesses_are_of_windows_alone() {
    let mapping = Mapping::new();
    let run = toy::run_identity(mapping.0, PAGES, 24, Delivery::Inline);
    let secret = 7_u64;
    let address = VirtAddr(&raw const secret as u64);
    assert!(run.toy.space.store(address, &[1]).is_err(), "any byte of the process can be written");
    assert!(run.toy.space.load(address, &mut [0]).is_err());
    assert_eq!(secret, 7);
}
