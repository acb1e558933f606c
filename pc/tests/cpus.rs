//! The bare PC with several processors: what its programs print is what one processor prints.
//!
//! Without QEMU each test says so and does nothing.

mod common;

use common::{boot, busybox, dynamic, expect, one_is_killed, program};
use pagefault_pc::boot::MOST_CPUS;
use std::path::Path;

#[test]
fn programs_are_told_how_many_there_are() {
    let Some(files) = busybox() else { return };
    let command = [
        "/bin/busybox",
        "sh",
        "-c",
        "/bin/busybox nproc; /bin/busybox grep -c processor /proc/cpuinfo",
    ];
    for cpus in [1, 4, MOST_CPUS] {
        let Some(ended) = boot(files.path(), &command, |boot| boot.cpus = cpus) else { return };
        expect(&ended, 0, &format!("{cpus}\n{cpus}\n"));
        assert_eq!(ended.counters()["cpus"], u64::from(cpus), "{}", ended.report);
    }
}

/// Spec G1 and G3: when a call that takes memory away has returned, no processor uses it any more.
#[test]
fn no_translation_outlives_its_mapping() {
    for cpus in [2, 4] {
        let change = |boot: &mut pagefault_pc::Boot| boot.cpus = cpus;
        let Some(ended) = program("stale", &["20", "3"], change) else { return };
        expect(&ended, 0, "20 rounds, 0 stale\n");
        let counters = ended.counters();
        assert!(counters["shootdowns_sent"] > 20, "{}", ended.report);
        assert_eq!(counters["shootdowns_sent"], counters["shootdowns_answered"]);
    }
}

#[test]
fn a_write_barrier_by_signals() {
    let Some(ended) = program("segv", &[], |boot| boot.cpus = 2) else { return };
    expect(&ended, 0, "1000 faults, 0 wrong, sum 249750.0\n11 1 0x10000008\n");
}

#[test]
fn a_tree_of_forks() {
    let Some(ended) = program("forktree", &[], |boot| boot.cpus = 4) else { return };
    expect(&ended, 0, "39 processes, right\n");
}

/// A kill reaches a program that runs on another processor and asks nothing of the kernel.
#[test]
fn programs_that_never_wait_are_killed() {
    let Some(ended) = program("preempt", &[], |boot| boot.cpus = 4) else { return };
    expect(&ended, 0, "child 0: signal 9\nchild 1: signal 9\n");
}

#[test]
fn threads_on_four_processors() {
    let Some(ended) = program("threads", &["16", "4"], |boot| boot.cpus = 4) else { return };
    expect(&ended, 0, "4 threads, 16 MiB, 0 failures\n");
}

#[test]
fn memory_larger_than_the_machine_on_swap() {
    let change = |boot: &mut pagefault_pc::Boot| {
        (boot.memory, boot.swap, boot.cpus) = (32, 128, 2);
    };
    let Some(ended) = program("threads", &["40", "4"], change) else { return };
    expect(&ended, 0, "4 threads, 40 MiB, 0 failures\n");
    assert!(ended.counters()["swap_writes"] >= 2_048, "{}", ended.report);
}

/// In little memory: passes that overlap must be many before it is certain that there is none.
#[test]
fn one_process_is_killed_when_memory_is_out() {
    one_is_killed("16 4", |boot| (boot.memory, boot.cpus) = (12, 4));
}

/// Eight writers share one offset, and eight append through offsets of their own: no line is lost
/// and none is torn.
#[test]
fn writers_take_turns() {
    let Some(files) = busybox() else { return };
    let script = "export PATH=/bin; b=/bin/busybox; \
                  exec 3> /tmp/shared; \
                  for i in 1 2 3 4 5 6 7 8; do \
                    (for j in 1 2 3 4 5 6 7 8 9 10; do echo shared $i $j >&3; \
                     echo append $i $j >> /tmp/append; done) & \
                  done; wait; \
                  for f in shared append; do \
                    $b sort -u /tmp/$f | $b grep -c -E \"^$f [1-8] [0-9]+\\$\"; \
                  done";
    let change = |boot: &mut pagefault_pc::Boot| boot.cpus = 4;
    let Some(ended) = boot(files.path(), &["/bin/busybox", "sh", "-c", script], change) else {
        return;
    };
    expect(&ended, 0, "80\n80\n");
}

/// Each stressor checks what it finds.
#[test]
fn stress_ng_on_four_processors() {
    let path = "/usr/bin/stress-ng";
    if !Path::new(path).exists() {
        eprintln!("skipped: {path} is not installed (Debian: stress-ng)");
        return;
    }
    let files = dynamic(&[path]);
    let command = [path, "--verify", "--vm", "4", "--vm-bytes", "8M", "--vm-ops", "40"];
    let Some(ended) = boot(files.path(), &command, |boot| {
        (boot.memory, boot.swap, boot.cpus) = (128, 64, 4);
    }) else {
        return;
    };
    let output = String::from_utf8_lossy(&ended.output);
    assert!(ended.status == 0 && !output.contains("fail:"), "{output}{}", ended.report);
    assert!(output.contains("successful run completed"), "{output}{}", ended.report);
}
