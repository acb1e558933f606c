//! Frequent call sites of a program are rewritten, and the program sees no difference.

use crate::harness::{Scratch, compile, have};
use std::process::Command;

/// Compares a part of `sites.c` managed with plain.
fn compare(part: &str) {
    let scratch = Scratch::new(&format!("sites-{part}"));
    let Some(program) = compile(&scratch, "sites") else { return };
    scratch.compare("16M", &[&program, part]);
}

/// The first byte of the call site in `sites.c`, after many calls.
fn place(options: &[&str]) -> Option<String> {
    let scratch = Scratch::new(&format!("sites-place{}", options.len()));
    let program = compile(&scratch, "sites")?;
    let output = scratch.run(options, &[&program, "place"]).output().unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Whether programs may read and write the base of `gs`, by which a rewritten site finds the runtime.
fn has_gs_base() -> bool {
    const FSGSBASE: u64 = 1 << 1;
    // SAFETY: asks for a word that the kernel gave this process.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & FSGSBASE != 0 }
}

#[test]
fn a_place_that_calls_often_is_rewritten() {
    if !has_gs_base() {
        return eprintln!("skipped: the kernel keeps the base of gs from programs");
    }
    let (jump, syscall) = ("e9\n", "0f\n");
    if let Some(byte) = place(&[]) {
        assert_eq!(byte, jump);
    }
    if let Some(byte) = place(&["--calls", "trapped"]) {
        assert_eq!(byte, syscall);
    }
}

#[test]
fn a_call_keeps_what_the_kernel_keeps() {
    compare("registers");
}

#[test]
fn a_call_leaves_what_the_kernel_leaves() {
    compare("clobbered");
}

#[test]
fn the_instruction_behind_a_call_can_be_come_to() {
    compare("interior");
}

#[test]
fn threads_call_while_signals_arrive() {
    compare("threads");
}

#[test]
fn a_signal_at_any_instruction_leaves_no_other_blocked() {
    compare("masks");
}

#[test]
fn waiting_calls_end_and_go_on_as_signals_say() {
    compare("waits");
}

#[test]
fn threads_that_read_are_cancelled() {
    compare("cancels");
}

#[test]
fn forks_and_vforks_go_on_calling() {
    compare("forks");
}

#[test]
fn code_that_replaces_a_place_is_its_own() {
    compare("replaced");
}

#[test]
fn gs_is_the_program_s() {
    compare("segment");
}

#[test]
fn mappings_of_files_stay_what_they_are() {
    compare("mappings");
}

#[test]
fn a_static_program_of_musl_s_calls_often() {
    if !have("musl-gcc") {
        return;
    }
    let scratch = Scratch::new("sites-musl");
    let program = scratch.path("sites");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/sites.c");
    let mut compiler = Command::new("musl-gcc");
    compiler.args(["-O1", "-static", "-idirafter", "/usr/include/x86_64-linux-gnu"]);
    compiler.args(["-idirafter", "/usr/include", "-o"]).arg(&program).arg(source);
    assert!(compiler.status().unwrap().success());
    for part in ["registers", "threads", "masks", "waits", "cancels", "forks"] {
        scratch.compare("16M", &[program.to_str().unwrap(), part]);
    }
}

#[test]
fn a_go_program_calls_often() {
    if !have("go") {
        return;
    }
    let scratch = Scratch::new("sites-go");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/sites.go");
    let program = scratch.path("sites");
    let mut compiler = Command::new("go");
    compiler.args(["build", "-o"]).arg(&program).arg(source);
    compiler.env("GOCACHE", scratch.path("cache")).env("CGO_ENABLED", "0");
    assert!(compiler.status().unwrap().success());
    scratch.compare("64M", &[program.to_str().unwrap()]);
}
