//! Exit status and signals are passed through.

use crate::harness::Scratch;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};

#[test]
fn the_status_is_the_program_s() {
    let scratch = Scratch::new("status");
    for status in [0, 1, 42, 255] {
        let program = format!("exit {status}");
        let ended = scratch.run(&[], &["sh", "-c", &program]).status().unwrap();
        assert_eq!(ended.code(), Some(status));
    }
}

#[test]
fn the_signal_that_ends_the_program_ends_the_command() {
    let scratch = Scratch::new("signal");
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV, libc::SIGUSR1] {
        let program = format!("kill -{signal} $$");
        let ended = scratch.run(&[], &["sh", "-c", &program]).status().unwrap();
        assert_eq!(ended.signal(), Some(signal));
        assert!(!ended.core_dumped());
    }
}

/// Starts a program in its own process group and waits for its first line.
fn start(scratch: &Scratch, program: &str) -> Child {
    let mut command = scratch.run(&[], &["sh", "-c", program]);
    let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn kill(process: libc::pid_t, signal: libc::c_int) -> libc::c_int {
    // SAFETY: kill asks nothing of its caller.
    unsafe { libc::kill(process, signal) }
}

#[test]
fn signals_are_passed_on() {
    let scratch = Scratch::new("forward");
    let signals = [(libc::SIGTERM, "TERM"), (libc::SIGHUP, "HUP"), (libc::SIGUSR2, "USR2")];
    for (signal, name) in signals.into_iter().filter(|(signal, _)| !is_ignored(*signal)) {
        let program = format!("trap 'exit 9' {name}; echo ready; while :; do sleep 0.05; done");
        let mut child = start(&scratch, &program);
        let group = child.id() as libc::pid_t;
        assert_eq!(kill(group, signal), 0);
        assert_eq!(child.wait().unwrap().code(), Some(9), "{name}");
        assert_gone(group);
    }
}

#[test]
fn nobody_is_left_when_the_program_is_interrupted() {
    // A background job of a script ignores it, and so do its children.
    if is_ignored(libc::SIGINT) {
        return eprintln!("skipped: SIGINT is ignored here");
    }
    let scratch = Scratch::new("interrupt");
    let mut child = start(&scratch, "echo ready; while :; do sleep 0.05; done");
    let group = child.id() as libc::pid_t;
    // As the terminal does: to the whole group.
    assert_eq!(kill(-group, libc::SIGINT), 0);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGINT));
    assert_gone(group);
    scratch.assert_nothing_left();
}

/// Whether this process was started with a signal ignored, as `nohup` does: a shell started by it
/// cannot trap it then.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (signal - 1) != 0
}

/// Waits until no process of a group exists; the shell's last child may take a moment.
fn assert_gone(group: libc::pid_t) {
    for _ in 0..3000 {
        if kill(-group, 0) == -1 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("processes of group {group} are left");
}
