//! `pagefault boot` with an error or a signal: its message, its status, and that nothing of the
//! machine is left behind.
//!
//! Without QEMU or busybox each test says so and does nothing.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn is_ready() -> bool {
    let qemu = Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
    let ready = qemu && Path::new("/bin/busybox").exists();
    if !ready {
        eprintln!(
            "skipped: QEMU or busybox is not there (Debian: qemu-system-x86, busybox-static)"
        );
    }
    ready
}

/// `pagefault boot` with its temporary files in its own directory.
fn boot(temporary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagefault"));
    command.arg("boot").args(arguments).env("TMPDIR", temporary);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Begins a script of the shell's that says "started" first, and waits for that.
#[track_caller]
fn started(temporary: &TempDir, script: &str) -> Child {
    let arguments = ["--", "/bin/busybox", "sh", "-c", script];
    let mut child = boot(temporary.path(), &arguments).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    child
}

/// Runs it to its end, and checks that nothing is left behind.
#[track_caller]
fn ended(arguments: &[&str]) -> (Output, String) {
    let temporary = tempfile::tempdir().unwrap();
    let output = boot(temporary.path(), arguments).output().unwrap();
    expect_nothing_in(&temporary);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

/// Checks that there are no files, and no QEMU that uses them.
#[track_caller]
fn expect_nothing_in(temporary: &TempDir) {
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    assert_eq!(users_of(temporary), [""; 0]);
}

/// The command lines of the processes that use a directory.
fn users_of(temporary: &TempDir) -> Vec<String> {
    let place = temporary.path().to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .filter(|line| line.contains(place))
        .collect()
}

#[track_caller]
fn refused(arguments: &[&str], status: i32, words: &str) {
    let (output, said) = ended(arguments);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(words), "{said}");
}

#[test]
fn a_signal_stops_the_machine() {
    if !is_ready() {
        return;
    }
    for signal in [2, 15] {
        let temporary = tempfile::tempdir().unwrap();
        let script = "echo started; sleep 1000";
        let mut child = started(&temporary, script);
        let number = format!("-{signal}");
        Command::new("kill").args([&number, &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal));
        expect_nothing_in(&temporary);
    }
}

/// The machine of a command that is killed does not go on by itself. Its files stay, since nobody is left.
#[test]
fn a_killed_command_leaves_no_machine() {
    if !is_ready() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let script = "echo started; while :; do :; done";
    let mut child = started(&temporary, script);
    child.kill().unwrap();
    child.wait().unwrap();
    // The host kills it soon, but not before this goes on.
    let start = Instant::now();
    while !users_of(&temporary).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(120), "{:?}", users_of(&temporary));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn output_that_nobody_reads_ends_the_machine() {
    if !is_ready() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let mut child = boot(temporary.path(), &["--", "/bin/busybox", "yes"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // The reader is gone.
    let start = Instant::now();
    assert_eq!(child.wait().unwrap().signal(), Some(13));
    assert!(start.elapsed() < Duration::from_secs(120));
    expect_nothing_in(&temporary);

    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = boot(temporary.path(), &["--", "/bin/busybox", "echo", "hi"]);
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output: No space"));
    expect_nothing_in(&temporary);
}

#[test]
fn programs_that_cannot_be_run() {
    if !is_ready() {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let program = |name: &str, bytes: &[u8], mode| {
        let path = files.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let whole = fs::read("/bin/busybox").unwrap();
    let mut foreign = whole.clone();
    foreign[18] = 0xb7;
    let cut = program("cut", &whole[..500], 0o755);
    let foreign = program("foreign", &foreign, 0o755);
    program("text", b"hello", 0o644);
    symlink("loop", files.path().join("loop")).unwrap();
    Command::new("mkfifo").arg(files.path().join("fifo")).status().unwrap();
    let directory = files.path().to_str().unwrap();

    refused(&["--", "/no/such/program"], 127, "/no/such/program");
    refused(&["--", "no-such-program"], 127, "no-such-program: not found");
    refused(&["--files", directory, "--", "/text"], 126, "Permission denied");
    refused(&["--files", directory, "--", "/cut"], 126, "Exec format error");
    refused(&["--files", directory, "--", "/foreign"], 126, "Exec format error");
    refused(&["--files", directory, "--", "/loop"], 126, "symbolic links");
    refused(&["--", &cut], 126, "damaged");
    refused(&["--", &foreign], 126, "not for x86-64");
    refused(&["--files", "/no/such/directory", "--", "/cut"], 125, "/no/such/directory");
}

#[test]
fn machines_that_cannot_be() {
    if !is_ready() {
        return;
    }
    let echo = ["--", "/bin/busybox", "echo"];
    let with = |options: &[&'static str]| [options, &echo].concat();
    refused(&with(&["--memory", "1M"]), 125, "give at least");
    refused(&with(&["--memory", "0"]), 125, "--memory 0");
    refused(&with(&["--swap", "0"]), 125, "--swap 0");
    refused(&with(&["--swap", "2T"]), 125, "of swap is too much");
    refused(&with(&["--swap", "100T"]), 125, "of swap is too much");

    let temporary = tempfile::tempdir().unwrap();
    let output = boot(temporary.path(), &echo).env("PATH", "/no/such").output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Debian's package is qemu-system-x86"), "{said}");
    expect_nothing_in(&temporary);
}

#[test]
fn input_that_is_closed_has_ended() {
    if !is_ready() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let script = "cat; cat; echo end; exit 3";
    let output =
        boot(temporary.path(), &["--", "/bin/busybox", "sh", "-c", script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert_eq!(output.stdout, b"end\n");

    let mut child = boot(temporary.path(), &["--", "/bin/busybox", "rev"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // Written at once, before the machine runs.
    child.stdin.take().unwrap().write_all(b"every byte\narrives\n").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"etyb yreve\nsevirra\n");
}
