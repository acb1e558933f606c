//! Programs of the host, built statically, on the bare PC: their output and status are compared.
//!
//! Without QEMU each test says so and does nothing.

mod common;

use common::{boot, built, busybox, dynamic, expect, one_is_killed, program, skips};
use pagefault_pc::boot::{Accelerator, BootError};
use pagefault_pc::{Boot, Ended};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

#[test]
fn a_write_barrier_by_signals() {
    let Some(ended) = program("segv", &[], |_| ()) else { return };
    expect(&ended, 0, "1000 faults, 0 wrong, sum 249750.0\n11 1 0x10000008\n");
    let counters = ended.counters();
    assert_eq!(counters["refused"], 1001, "{}", ended.report);
}

#[test]
fn access_prevention_where_the_processor_offers_it() {
    let Some(ended) = program("segv", &[], |boot| boot.processor = "max".into()) else { return };
    expect(&ended, 0, "1000 faults, 0 wrong, sum 249750.0\n11 1 0x10000008\n");
}

/// Handlers get the same cause as on the host; for the kernel's addresses, it does not reveal whether they are
/// mapped.
#[test]
fn causes_of_signals() {
    prints_as_on_the_host("causes");
}

/// Real-time signals are queued, others wait once; the order of their handlers, and what drops them.
#[test]
fn signals_that_wait() {
    prints_as_on_the_host("signals");
}

/// What a call could not move is moved by the next one.
#[test]
fn calls_that_stop_halfway() {
    prints_as_on_the_host("partway");
}

/// Runs a program on the host and on the PC, and compares what it prints.
fn prints_as_on_the_host(name: &str) {
    let directory = built(name);
    let host = Command::new(directory.path().join(name)).output().unwrap();
    assert!(host.status.success(), "{host:?}");
    let Some(ended) = boot(directory.path(), &[&format!("/{name}")], |_| ()) else { return };
    expect(&ended, 0, &String::from_utf8_lossy(&host.stdout));
}

/// In 24 MiB, of which full pipes took 4 before they were closed.
#[test]
fn what_pipes_took_comes_back() {
    let Some(ended) = program("pipes", &[], |boot| boot.memory = 24) else { return };
    expect(&ended, 0, "the pipes' memory is back\n");
}

#[test]
fn a_tree_of_forks() {
    let Some(ended) = program("forktree", &[], |_| ()) else { return };
    expect(&ended, 0, "39 processes, right\n");
    let counters = ended.counters();
    // Each child writes 64 shared pages at least.
    assert!(counters["copy_on_write"] >= 39 * 64 / 2, "{}", ended.report);
}

#[test]
fn threads_with_memory_of_their_own() {
    let Some(ended) = program("threads", &["16", "4"], |_| ()) else { return };
    expect(&ended, 0, "4 threads, 16 MiB, 0 failures\n");
    assert!(ended.counters()["anonymous"] >= 4096, "{}", ended.report);
}

/// Attempts of a program to make the kernel fault on its exit path.
#[test]
fn registers_that_no_program_can_have() {
    let Some(ended) = program("registers", &[], |_| ()) else { return };
    expect(&ended, 0, "flags survive\nthread pointer: -1\nhandler: signal 11\n");
}

#[test]
fn programs_that_never_wait_take_turns() {
    let Some(ended) = program("preempt", &[], |_| ()) else { return };
    expect(&ended, 0, "child 0: signal 9\nchild 1: signal 9\n");
}

#[test]
fn memory_larger_than_the_machine_on_swap() {
    let change = |boot: &mut Boot| (boot.memory, boot.swap) = (32, 128);
    let Some(ended) = program("threads", &["40", "2"], change) else { return };
    expect(&ended, 0, "2 threads, 40 MiB, 0 failures\n");
    let counters = ended.counters();
    // More than the machine has. How much more is evicted depends on when reclaim runs.
    assert!(counters["swap_writes"] >= 2_048, "{}", ended.report);
    // By a fault or ahead of one.
    assert!(counters["swap_reads"] >= 2_048, "{}", ended.report);
}

/// Each would fit; together, and they wait for each other halfway, they thrash, and finish.
#[test]
fn several_programs_at_once_on_swap() {
    let one = "/threads 14 2 3 &";
    let script = format!("mkdir -p /tmp; {one} {one} {one} wait; echo all");
    let Some(files) = busybox() else { return };
    let directory = built("threads");
    let Some(ended) = boot(files.path(), &["/bin/busybox", "sh", "-c", &script], |boot| {
        (boot.memory, boot.swap) = (28, 128);
        boot.files.push(directory.path().to_path_buf());
    }) else {
        return;
    };
    let one = "2 threads, 14 MiB, 0 failures\n";
    expect(&ended, 0, &format!("{one}{one}{one}all\n"));
    // What all have filled is half as large again as the machine.
    assert!(ended.counters()["swap_reads"] > 3_584, "{}", ended.report);
}

#[test]
fn memory_larger_than_the_machine_in_compressed_memory() {
    let change = |boot: &mut Boot| {
        boot.memory = 32;
        boot.settings.push("swap=compressed".into());
    };
    let Some(ended) = program("threads", &["40", "2"], change) else { return };
    expect(&ended, 0, "2 threads, 40 MiB, 0 failures\n");
    assert!(ended.counters()["swap_reads"] >= 2_048, "{}", ended.report);
}

/// Takes a minute or two, and so is done only when asked for.
#[test]
fn memory_three_times_as_large_as_the_machine_on_swap() {
    if std::env::var_os("PAGEFAULT_FULL").is_none() {
        return eprintln!("skipped: PAGEFAULT_FULL is not set");
    }
    let change = |boot: &mut Boot| {
        (boot.memory, boot.swap, boot.limit) = (64, 256, Some(Duration::from_secs(7200)));
    };
    let Some(ended) = program("threads", &["200", "4"], change) else { return };
    expect(&ended, 0, "4 threads, 200 MiB, 0 failures\n");
    assert!(ended.counters()["swap_writes"] >= 34_816, "{}", ended.report);
}

/// Waiting for files, timers, signals, locks and children, and what processor time it takes: as on
/// the host.
#[test]
fn every_way_to_wait() {
    let directory = built("waiting");
    let host = Command::new(directory.path().join("waiting")).output().unwrap();
    let Some(ended) = boot(directory.path(), &["/waiting"], |_| ()) else { return };
    expect(&ended, 0, &String::from_utf8_lossy(&host.stdout));
    assert!(!ended.report.contains("unknown_call"), "{}", ended.report);
}

#[test]
fn memory_larger_than_the_machine_without_swap_kills_one_process() {
    one_is_killed("48 4", |boot| boot.memory = 32);
}

/// Memory taken in small pieces leaves reclaim only the pages of running code, and it cannot take
/// page tables. The process that takes either is killed, and others continue.
#[test]
fn who_takes_all_memory_is_killed() {
    let names = ["blocks", "tables", "blocks"];
    // The last is a computer of a million instructions a second, on which a fault takes longer than a
    // thread's time slice.
    let slow = ["-icount", "shift=10,sleep=off,align=off", "-rtc", "clock=vm"];
    for (swap, pace) in [(0, &[][..]), (16, &[]), (16, &slow)] {
        let change = |boot: &mut Boot| {
            (boot.memory, boot.swap) = (24, swap);
            boot.further.extend(pace.iter().map(ToString::to_string));
        };
        let Some(ended) = program("exhaust", &names, change) else { return };
        let expected = names.map(|name| format!("{name}: signal 9\n")).concat();
        expect(&ended, 0, &format!("{expected}the parent goes on\n"));
    }
}

/// A process that would take all of the kernel's own memory is refused. It keeps what it has, so
/// too little may be left for programs; but the kernel runs to the machine's end.
#[test]
fn regions_without_end_are_refused() {
    let Some(ended) = program("exhaust", &["regions"], |boot| boot.memory = 16) else { return };
    assert!([0, 137].contains(&ended.status), "{}", ended.report);
}

#[test]
fn many_thousand_regions() {
    let change = |boot: &mut Boot| (boot.memory, boot.swap) = (32, 256);
    let Some(ended) = program("regions", &[], change) else { return };
    expect(&ended, 0, "20000 mapped, 0 wrong, 0 left\n");
}

#[test]
fn a_pipeline_of_busybox_tools() {
    let script = "B=/bin/busybox; i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; done \
                  | $B sort -r | $B sed 's/line/row/' > /tmp/x; $B head -n 3 /tmp/x; \
                  $B md5sum < /tmp/x; $B ls /tmp; (exit 3) || echo status $?; exit 7";
    let Some(files) = busybox() else { return };
    let Some(ended) = boot(files.path(), &["/bin/busybox", "sh", "-c", script], |_| ()) else {
        return;
    };
    // The same on the host, in a directory of its own.
    let directory = tempfile::tempdir().unwrap();
    let host = script.replace("/tmp", directory.path().to_str().unwrap());
    let host = Command::new("/bin/busybox").args(["sh", "-c", &host]).output().unwrap();
    expect(&ended, host.status.code().unwrap() as u8, &String::from_utf8_lossy(&host.stdout));
}

/// A file larger than memory goes to its disk page by page and comes back.
#[test]
fn files_on_a_disk_are_written_back_and_read() {
    let script = "B=/bin/busybox; cd /disk; $B seq 900000 | $B tee x | $B md5sum; \
                  $B sync; $B md5sum < x; $B mv x y; $B head -c 1000 y | $B md5sum; \
                  $B truncate -s 5000 y; $B truncate -s 9000 y; $B md5sum < y; \
                  $B rm y; $B dd if=/dev/zero of=z bs=4096 count=5000 2>/dev/null || echo full";
    let Some(files) = busybox() else { return };
    let Some(ended) = boot(files.path(), &["/bin/busybox", "sh", "-c", script], |boot| {
        (boot.memory, boot.disk) = (10, 12);
    }) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    // The host's directory has no end: the last line is ours.
    let host = script.replace("/disk", directory.path().to_str().unwrap());
    let host = host.replace(" || echo full", "; echo full");
    let host = Command::new("/bin/busybox").args(["sh", "-c", &host]).output().unwrap();
    expect(&ended, 0, &String::from_utf8_lossy(&host.stdout));
    let counters = ended.counters();
    assert!(counters["file_writes"] > 900, "{}", ended.report);
    assert!(counters["file_reads"] > 900, "{}", ended.report);
}

#[test]
fn dynamic_programs_of_the_host() {
    let files = dynamic(&["/bin/bash", "/usr/bin/sort", "/usr/bin/seq", "/usr/bin/md5sum"]);
    let script = "export PATH=/usr/bin; seq 1 100000 | sort -n -r | md5sum; \
                  for i in 1 2 3; do (exit $i); echo $?; done; x=$(seq 5); echo $x; exit 4";
    let command = ["/bin/bash", "-c", script];
    let Some(ended) = boot(files.path(), &command, |_| ()) else { return };
    let host = Command::new("/bin/bash").args(["-c", script]).output().unwrap();
    expect(&ended, 4, &String::from_utf8_lossy(&host.stdout));
    // The kernel's heap grew after address spaces were made: they were brought in line by faults.
    assert!(ended.counters()["synchronised"] > 0, "{}", ended.report);
}

#[test]
fn instructions_a_fault_repeat_and_stay_in_bounds() {
    let count = |boot: &mut Boot| {
        (boot.memory, boot.cpus) = (128, 1);
        boot.count_instructions();
    };
    let Some(first) = program("faults", &[], count) else { return };
    let Some(second) = program("faults", &[], count) else { return };
    let medians = |ended: &Ended| -> BTreeMap<String, u64> {
        let output = String::from_utf8_lossy(&ended.output).into_owned();
        let pairs = output.lines().filter_map(|line| line.split_once(' '));
        pairs.map(|(name, value)| (name.into(), value.parse().unwrap())).collect()
    };
    let first = medians(&first);
    assert_eq!(first, medians(&second));
    // A page clear or copy is 512 of them. Linux: 2385, 1154, 2995, 10890.
    let bounds = [
        ("anonymous_write", 512..2000),
        ("anonymous_read", 100..1154),
        ("copy_on_write", 512..4500),
        ("mmap_and_munmap", 100..10_890),
    ];
    for (name, bound) in bounds {
        assert!(bound.contains(&first[name]), "{name}: {}", first[name]);
    }
}

#[test]
fn a_program_that_is_not_there() {
    if skips() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ended = Boot::new(directory.path(), &["/nothing"]).capture();
    assert!(matches!(ended, Err(BootError::NotStarted(2))), "{ended:?}");
}

/// A host's KVM runs the program, or the command says that it cannot.
#[test]
fn kvm_runs_the_program_or_says_that_it_cannot() {
    if skips() {
        return;
    }
    let directory = built("forktree");
    let mut boot = Boot::new(directory.path(), &["/forktree"]);
    boot.accelerator = Accelerator::Kvm;
    match boot.capture() {
        Ok(ended) => expect(&ended, 0, "39 processes, right\n"),
        Err(error @ BootError::Kvm(_)) => {
            let text = error.to_string();
            assert!(text.contains("KVM") && text.ends_with("use --accel tcg"), "{text}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_machine_too_small_for_its_files() {
    if skips() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("large"), vec![0; 20 << 20]).unwrap();
    let mut boot = Boot::new(directory.path(), &["/large"]);
    boot.memory = 16;
    assert!(matches!(boot.capture(), Err(BootError::TooSmall { memory: 16, least: 29 })));
}

/// Off brings all pages back, or says that they have no room.
#[test]
fn swap_is_turned_off_and_on() {
    let change = |boot: &mut Boot| (boot.memory, boot.swap) = (32, 64);
    let Some(ended) = program("swapping", &[], change) else { return };
    let expected = "/dev/vda used 1 priority -1\noff with no room: ENOMEM\nwrong 0\n\
                    /dev/vda used 1 priority -1\noff: ok\nwrong 0\noff twice: EINVAL\non: ok\n\
                    on twice: EBUSY\n/dev/vda used 1 priority 7\nwrong 0\n\
                    what is none: EINVAL\nwhat is not there: ENOENT\nunknown flags: EINVAL\n\
                    without the right: EPERM\n";
    expect(&ended, 0, expected);
}
