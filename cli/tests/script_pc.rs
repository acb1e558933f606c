//! Scripts on the bare PC, compared with the simulated computer and with the host's kernel.
//!
//! Here and not in the script package, because the PC runs the command itself.

use pagefault_script::corpus::load;
use pagefault_script::parse::parse;
use std::num::NonZero;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{available_parallelism, scope};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../script/corpus");

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

/// A PC has one processor, and so as many run at once as the host has.
#[test]
fn the_corpus_answers_alike_on_the_pc() {
    if !boots() {
        return;
    }
    let corpus = load().unwrap();
    let (next, compared) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(example) = corpus.get(next.fetch_add(1, Relaxed)) {
            let script = parse(&example.text).unwrap();
            if !script.needs_simulation() {
                // The host's kernel cannot be made to fail, and an older one answers otherwise.
                let asks_host = !script.injects_failures() && example.is_for_host();
                let machines = if asks_host { "pc,sim,kernel" } else { "pc,sim" };
                equal(&[&format!("{CORPUS}/{}.pf", example.name)], machines);
                compared.fetch_add(1, Relaxed);
            }
        }
    };
    let processors = available_parallelism().map_or(1, NonZero::get);
    scope(|scope| (0..processors).for_each(|_| drop(scope.spawn(work))));
    assert!(compared.into_inner() >= 60);
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
