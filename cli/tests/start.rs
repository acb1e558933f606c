//! How `pagefault run` starts programs, with a runtime that manages nothing. A program finds what it
//! would find without us: any program, run by any user, whichever process is killed.

#[path = "start/descriptors.rs"]
mod descriptors;
#[path = "start/ends.rs"]
mod ends;
#[path = "run/forbid.rs"]
mod forbid;
#[allow(dead_code)]
#[path = "run/harness.rs"]
mod harness;
#[path = "start/programs.rs"]
mod programs;
#[path = "start/rights.rs"]
mod rights;
#[path = "start/tree.rs"]
mod tree;

use harness::{PAGEFAULT, Scratch};
use std::process::{Command, Output};

/// The options that choose the runtime of the tests.
const OPTIONS: [&str; 4] =
    ["--delivery=inline", "--memory=64M", "--runtime", env!("PAGEFAULT_JUMP")];

/// `pagefault run` of a program, with the runtime of the tests.
fn run(scratch: &Scratch, program: &[&str]) -> Command {
    scratch.run(&OPTIONS, program)
}

/// A command of the shell in which `$RUN` is `pagefault run` up to its program.
fn shell(scratch: &Scratch, script: &str) -> Command {
    shell_of("sh", scratch, script)
}

/// The same in a shell of this name.
fn shell_of(shell: &str, scratch: &Scratch, script: &str) -> Command {
    let mut command = Command::new(shell);
    command.arg("-c").arg(script).current_dir(scratch.path(""));
    command.env("TMPDIR", scratch.path("swap"));
    command.env("RUN", format!("{PAGEFAULT} run {} --", OPTIONS.join(" ")));
    command
}

/// A command's output and status.
fn output(command: &mut Command) -> (String, String, Option<i32>) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(stdout), text(stderr), status.code())
}

/// Waits for a condition.
#[track_caller]
fn wait_until(mut happened: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if happened() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("it did not happen within a minute");
}
