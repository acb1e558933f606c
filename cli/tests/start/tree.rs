//! Programs that programs start, by the protocol of managed processes.

use crate::harness::{Scratch, number};
use crate::{OPTIONS, output, shell};
use std::fs;
use std::os::unix::fs::symlink;

/// A scratch directory with the names by which the runtime of the tests acts.
pub fn scratch(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    for name in ["relay", "spawn", "thread", "nested", "paused", "held", "brood"] {
        symlink("/bin/echo", scratch.path(name)).unwrap();
    }
    scratch
}

/// Runs a program. Returns its output, its status, and the number of placed runtimes.
#[track_caller]
fn run(scratch: &Scratch, program: &[&str]) -> (String, Option<i32>, u64) {
    let stats = scratch.path("stats");
    let mut options = OPTIONS.to_vec();
    options.extend(["--stats=json", "--stats-file", stats.to_str().unwrap()]);
    let (stdout, stderr, status) = output(&mut scratch.run(&options, program));
    assert_eq!(stderr, "");
    scratch.assert_nothing_left();
    let stats = serde_json::from_str(&fs::read_to_string(&stats).unwrap()).unwrap();
    (stdout, status, number(&stats, "/programs"))
}

#[test]
fn a_program_that_executes_another() {
    let scratch = scratch("relay");
    let found = run(&scratch, &["./relay", "/bin/sh", "-c", "echo $0 $$; exit 3"]);
    assert_eq!((found.1, found.2), (Some(3), 2));
    assert!(found.0.starts_with("/bin/sh "), "{found:?}");
    let (relay, spawn) = (scratch.path("relay"), scratch.path("spawn"));
    let [relay, spawn] = [relay, spawn].map(|path| path.to_str().unwrap().to_owned());
    let chain = [&*relay, &*spawn, &*relay, &*spawn, "/bin/echo", "deep"];
    assert_eq!(run(&scratch, &chain), ("deep\n".to_owned(), Some(0), 5));
}

/// A process continues after a failed exec, and can execute other programs.
#[test]
fn an_exec_that_fails() {
    let scratch = scratch("cancel");
    let found = run(&scratch, &["./relay", "/no/such", "x"]);
    assert_eq!(found, ("/no/such x\n".to_owned(), Some(0), 1));
}

/// A thread other than the process's first becomes the process. In its own PID namespace its ID
/// differs from the supervisor's view.
#[test]
fn a_thread_that_executes() {
    let scratch = scratch("thread");
    let found = run(&scratch, &["./thread", "/bin/sh", "-c", "echo fine; exit 2"]);
    assert_eq!(found, ("fine\n".to_owned(), Some(2), 2));
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("left out: no right to make a process namespace");
    }
    let found = run(&scratch, &["./nested", "/bin/sh", "-c", "echo $$; exit 2"]);
    assert_eq!(found, ("1\n".to_owned(), Some(2), 2));
}

/// A process's charge and slot are freed when it ends.
#[test]
fn slots_are_given_back() {
    let scratch = scratch("slots");
    assert_eq!(run(&scratch, &["./brood", "fine"]), ("fine\n".to_owned(), Some(0), 1));
}

/// With few descriptors the supervisor notices the end of processes without pidfds.
#[test]
fn slots_are_given_back_where_there_are_few_descriptors() {
    let scratch = scratch("few");
    let script = "ulimit -n 14; $RUN ./brood fine";
    let (stdout, stderr, status) = output(&mut shell(&scratch, script));
    assert_eq!((&*stdout, &*stderr, status), ("fine\n", "", Some(0)));
}
