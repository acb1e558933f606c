//! `pagefault doctor`: the table and the JSON object agree, and are true.

#[path = "run/forbid.rs"]
mod forbid;

use forbid::forbid;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

fn doctor(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagefault"));
    command.arg("doctor").args(options);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn value(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn the_table_and_the_object_say_the_same() {
    let (table, object) = (doctor(&[]).output().unwrap(), doctor(&["--json"]).output().unwrap());
    let (table_text, object_value) = (text(&table), value(&object));
    assert_eq!(table.status, object.status);
    for finding in object_value["findings"].as_array().unwrap() {
        let name = finding["name"].as_str().unwrap();
        let line = table_text.lines().find(|line| line.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {table_text}"));
        // The free space may change between the two.
        if !name.starts_with("room") {
            assert!(line.contains(finding["value"].as_str().unwrap()), "{line}");
        }
        let suffices = finding["suffices"].as_bool().unwrap();
        assert_eq!(finding["remedy"].is_null(), suffices, "{finding}");
        assert_eq!(!line.contains("(not enough)") && !line.contains("(could be better)"), suffices);
    }
    let works = object_value["works"]["run"].as_bool().unwrap();
    assert_eq!(object.status.code(), Some(if works { 0 } else { 1 }));
}

/// If it says that `run` works, it does.
#[test]
fn what_it_says_of_run_is_so() {
    let works = value(&doctor(&["--json"]).output().unwrap())["works"]["run"].as_bool().unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_pagefault"));
    run.args(["run", "--delivery=inline", "--memory=64M", "--", "true"]);
    assert_eq!(run.status().unwrap().success(), works);
}

/// As in a container whose profile forbids what is needed.
#[test]
fn what_a_filter_forbids_is_found_and_run_fails_with_a_message() {
    for (call, word) in [
        (libc::SYS_ptrace, "--cap-add=SYS_PTRACE"),
        (libc::SYS_userfaultfd, "--security-opt seccomp="),
    ] {
        let mut command = doctor(&[]);
        // SAFETY: installing the filter is two system calls.
        unsafe { command.pre_exec(move || forbid(call)) };
        let output = command.output().unwrap();
        let found = text(&output);
        assert!(found.contains(word), "{word} is not in {found}");
        assert_eq!(output.status.code(), Some(1), "{found}");

        let mut run = Command::new(env!("CARGO_BIN_EXE_pagefault"));
        run.args(["run", "--delivery=inline", "--memory=64M", "--", "true"]);
        // SAFETY: as above.
        unsafe { run.pre_exec(move || forbid(call)) };
        let output = run.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.starts_with("pagefault: "), "{said}");
    }
}

#[test]
fn an_output_that_is_closed_early_is_no_defect() {
    let mut command = doctor(&[]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    assert!(output.status.code().is_some_and(|status| status < 2), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
