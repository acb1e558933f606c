//! Forks, as the supervisor sees them.

use crate::harness::{Scratch, compile, message};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

/// A child that has ended before the supervisor hears of it leaves its shares all the same. Its parent has
/// stored to its pages meanwhile, so that the child was the last in each.
#[test]
fn children_that_the_supervisor_hears_of_too_late_cost_nothing() {
    let scratch = Scratch::new("late");
    let Some(program) = compile(&scratch, "late") else { return };
    let mut command = scratch.run(&["--memory", "8M"], &[&program]);
    let mut run = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let mut input = run.stdin.take().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let supervisor = supervisor_of(&run);
    // 10 children of 24 pages each: in 12 rounds more than there are frames.
    for _ in 0..12 {
        signal(supervisor, libc::SIGSTOP);
        input.write_all(b"x").unwrap();
        let line = lines.next();
        signal(supervisor, libc::SIGCONT);
        let Some(Ok(line)) = line else { break };
        assert_eq!(line, "forked");
        // It has come to all of them when it sleeps again.
        wait_until_asleep(supervisor);
    }
    drop(input);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
}

/// Children that are killed before they can tell the supervisor of themselves leave their shares and their
/// slots all the same: 5,000 are more than there are slots, and have more pages than there are frames.
#[test]
fn children_that_are_killed_before_the_supervisor_hears_of_them_cost_nothing() {
    let scratch = Scratch::new("unborn");
    let Some(program) = compile(&scratch, "unborn") else { return };
    scratch.compare("8M", &[&program]);
}

/// A child begins with no lock that another thread of its parent held while it pinned pages for a call.
#[test]
fn a_child_gets_no_lock_of_threads_that_pin_pages() {
    let scratch = Scratch::new("pinners");
    let Some(program) = compile(&scratch, "pinners") else { return };
    scratch.compare("6M", &[&program]);
}

/// The supervisor of a run: a child of the command's.
fn supervisor_of(run: &Child) -> i32 {
    let is_supervisor = |number: &i32| {
        let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
        status.contains("Name:\tpagefault-super\n")
            && status.contains(&format!("PPid:\t{}\n", run.id()))
    };
    let processes = fs::read_dir("/proc").unwrap();
    let numbers =
        processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    numbers.into_iter().find(is_supervisor).expect("the run has a supervisor")
}

fn wait_until_asleep(process: i32) {
    let sleeps = || {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        status.contains("State:\tS")
    };
    while !sleeps() {
        std::thread::yield_now();
    }
}

fn signal(process: i32, signal: libc::c_int) {
    // SAFETY: kill asks nothing of its caller.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0);
}
