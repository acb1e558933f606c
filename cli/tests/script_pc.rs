//! Scripts on the bare PC, compared with the simulated computer and with the host's kernel.
//!
//! Here and not in the script package, because the PC runs the command itself.

use std::path::Path;
use std::process::Command;

/// Whether machines can be booted here. Prints a note if not.
fn boots() -> bool {
    let found = pagefault_pc::boot::is_available();
    if !found {
        eprintln!("skipped: QEMU is not installed (Debian: qemu-system-x86)");
    }
    found
}

/// Runs `pagefault script` with these arguments on several machines; answers must be equal.
#[track_caller]
fn equal(arguments: &[&str], machines: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_pagefault"))
        .arg("script")
        .args(arguments)
        .args(["--diff", machines])
        .output()
        .unwrap();
    let (printed, said) = (&output.stdout, &output.stderr);
    let text = [printed.as_slice(), said].concat();
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&text));
}

#[test]
fn the_corpus_answers_alike_on_the_pc() {
    if !boots() {
        return;
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../script/corpus");
    let mut scripts = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "pf") {
            let text = std::fs::read_to_string(&path).unwrap();
            let script = pagefault_script::parse::parse(&text).unwrap();
            if script.needs_simulation() {
                continue;
            }
            // The host's kernel cannot be made to fail.
            let machines = if script.injects_failures() { "pc,sim" } else { "pc,sim,kernel" };
            equal(&[path.to_str().unwrap()], machines);
            scripts += 1;
        }
    }
    assert!(scripts >= 60);
}

#[test]
fn a_random_script_answers_alike_on_the_pc() {
    if boots() {
        equal(&["--random", "2000", "--seed", "1"], "pc,sim,kernel");
    }
}

#[test]
fn a_random_script_answers_alike_on_two_processors() {
    if boots() {
        equal(&["--random", "2000", "--seed", "2", "--cpus", "2"], "pc,sim,kernel");
    }
}
