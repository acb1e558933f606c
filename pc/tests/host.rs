//! Small programs, one for each kind of call, that print what came of it: on the bare PC the same as
//! on the host.
//!
//! Without QEMU each test says so and does nothing.

mod common;

use common::{boot, built, expect};
use pagefault_pc::Boot;
use std::process::Command;

/// Runs a program on the host and on the PC.
#[track_caller]
fn is_as_on_the_host(name: &str, change: impl FnOnce(&mut Boot)) {
    let directory = built(name);
    let path = format!("/{name}");
    let Some(ended) = boot(directory.path(), &[&path], change) else { return };
    let host = Command::new(directory.path().join(name)).output().unwrap();
    expect(&ended, 0, &String::from_utf8_lossy(&host.stdout));
    assert!(host.status.success(), "{host:?}");
    assert!(!ended.report.contains("unknown_call"), "{}", ended.report);
}

/// The types, flags and addresses of mmap, and what msync, mprotect, madvise and their like refuse.
#[test]
fn what_mappings_are_checked_for() {
    is_as_on_the_host("mapchecks", |_| ());
}

#[test]
fn buffers_that_end_where_memory_does() {
    is_as_on_the_host("halfvalid", |_| ());
}
