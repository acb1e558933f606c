//! The bare PC and programs that ask for what makes no sense, or for too much.
//!
//! Without QEMU each test says so and does nothing.

mod common;

use common::{boot, built, expect, program, skips};
use pagefault_pc::Boot;
use pagefault_pc::boot::BootError;
use std::process::Command;

/// Every system call with arguments of every kind, from nine threads of three processes that are
/// replaced as they die; then what every program expects must still be so.
#[test]
fn calls_with_garbage_leave_the_machine_in_order() {
    for (cpus, seed) in [(1, "1"), (4, "2")] {
        let change = |boot: &mut Boot| (boot.memory, boot.disk, boot.cpus) = (128, 16, cpus);
        let Some(ended) = program("garbage", &[seed, "3", "3"], change) else { return };
        expect(&ended, 0, "0 wrong\n");
    }
}

/// The kernel refuses what the host refuses, with the same error.
#[test]
fn refusals_are_the_hosts() {
    let directory = built("refusals");
    let host = Command::new(directory.path().join("refusals")).output().unwrap();
    for cpus in [1, 4] {
        let change = |boot: &mut Boot| boot.cpus = cpus;
        let Some(ended) = boot(directory.path(), &["/refusals"], change) else { return };
        expect(&ended, 0, &String::from_utf8_lossy(&host.stdout));
    }
}

/// A kernel stack that overflows meets memory that is not mapped, and the kernel says which it was.
#[test]
fn a_kernel_stack_that_overflows_is_reported() {
    for cpus in [1, 2] {
        if skips() {
            return;
        }
        let directory = built("preempt");
        let mut boot = Boot::new(directory.path(), &["/preempt"]);
        (boot.cpus, boot.settings) = (cpus, vec![String::from("test=overflow")]);
        // No status of a program's: the kernel's words.
        let error = boot.capture().expect_err("the kernel stops");
        let BootError::Crashed(report) = error else { panic!("{error}") };
        assert!(report.contains("the kernel stack of task"), "{report}");
        assert!(report.contains("overflowed: vector 14"), "{report}");
    }
}
