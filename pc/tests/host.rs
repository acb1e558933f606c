//! Small programs, one for each kind of call, that print what came of it: on the bare PC the same as
//! on the host.
//!
//! Without QEMU each test says so and does nothing; so does one whose calls the host refuses, because
//! it is too old, its user is not the superuser, or a sandbox is around it.

mod common;

use common::{boot, built, expect};
use pagefault_pc::Boot;
use std::process::Command;

/// Runs a program on the host and on the PC. What the host prints has to contain `needed`, or the
/// host cannot say what is right.
#[track_caller]
fn is_as_on_the_host(name: &str, arguments: &[&str], needed: &str, change: impl FnOnce(&mut Boot)) {
    let directory = built(name);
    let host = Command::new(directory.path().join(name)).args(arguments).output().unwrap();
    let host = String::from_utf8_lossy(&host.stdout);
    if !host.contains(needed) {
        return eprintln!("skipped: the host does not say {needed:?}:\n{host}");
    }
    let path = format!("/{name}");
    let command: Vec<&str> = [path.as_str()].into_iter().chain(arguments.iter().copied()).collect();
    let Some(ended) = boot(directory.path(), &command, change) else { return };
    expect(&ended, 0, &host);
    assert!(!ended.report.contains("unknown_call"), "{}", ended.report);
}

/// The types, flags and addresses of mmap, and what msync, mprotect, madvise and their like refuse.
/// Linux 6.3 has the last of the flags.
#[test]
fn what_mappings_are_checked_for() {
    let needed = "memfd both to be executed and not: EINVAL\nprivate: rd wr mr mw me";
    is_as_on_the_host("mapchecks", &[], needed, |_| ());
}

#[test]
fn buffers_that_end_where_memory_does() {
    is_as_on_the_host("halfvalid", &[], "", |_| ());
}

#[test]
fn limits_and_rights() {
    is_as_on_the_host("limits", &[], "given up: ok\n", |_| ());
}

#[test]
fn the_stack_of_handlers() {
    is_as_on_the_host("altstack", &[], "", |_| ());
}

#[test]
fn what_clone_refuses() {
    is_as_on_the_host("cloning", &[], "handlers cleared: 300\n", |_| ());
}

#[test]
fn the_memory_of_other_processes() {
    is_as_on_the_host("crossmem", &[], "read: 20\n", |_| ());
    is_as_on_the_host("crossmem", &[], "read: 20\n", |boot| boot.cpus = 2);
}

/// Linux 6.15 has guards in shared memory.
#[test]
fn guards() {
    is_as_on_the_host("memcalls", &["guards"], "shared: 0\n", |_| ());
}

/// Linux 6.10 has mseal.
#[test]
fn sealed_memory() {
    is_as_on_the_host("memcalls", &["seals"], "seal: 0\n", |_| ());
}

#[test]
fn sealed_files() {
    is_as_on_the_host("memcalls", &["file_seals"], "not executed: 32\n", |_| ());
}

#[test]
fn sealed_files_while_they_are_mapped_and_written() {
    let printed = "mapped and sealed: 0, changed: 0\n";
    is_as_on_the_host("memcalls", &["file_seal_race"], printed, |boot| boot.cpus = 2);
}

#[test]
fn barriers() {
    is_as_on_the_host("memcalls", &["barriers"], "known 1\n", |_| ());
    is_as_on_the_host("memcalls", &["barriers"], "known 1\n", |boot| boot.cpus = 4);
}

#[test]
fn policies_of_one_node() {
    is_as_on_the_host("memcalls", &["policies"], "bind: 0\n", |_| ());
}

#[test]
fn affinity() {
    is_as_on_the_host("memcalls", &["affinity"], "first: 0\n", |_| ());
    is_as_on_the_host("memcalls", &["affinity"], "first: 0\n", |boot| boot.cpus = 4);
}

#[test]
fn vectors_with_offsets() {
    is_as_on_the_host("memcalls", &["vectors"], "", |_| ());
}

#[test]
fn shared_segments() {
    is_as_on_the_host("segments", &[], "made: ok\n", |_| ());
}
