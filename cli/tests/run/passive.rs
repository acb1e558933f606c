//! Programs that stay below their limit, and those that reach it later: the memory manager takes
//! over the host's pages.

use crate::harness::{SIZED_FILE, Scratch, assert_limited, full, have, number, python};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program from beside this file, if there is a compiler.
fn program(scratch: &Scratch) -> Option<PathBuf> {
    let compiler = if have("cc") { "cc" } else { return None };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/passive.c");
    let program = scratch.path("passive");
    let mut build = Command::new(compiler);
    build.args(["-O1", "-w", "-pthread", "-o"]).arg(&program).arg(&source);
    assert!(build.status().unwrap().success(), "passive.c is not built");
    Some(program)
}

/// Repeats an action while a process becomes active.
fn convert(what: &str) {
    let scratch = Scratch::new(&format!("passive-{what}"));
    let Some(program) = program(&scratch) else { return };
    let rounds = if full() { "200" } else { "5" };
    let stats = scratch.compare("32M", &[program.to_str().unwrap(), what, rounds]);
    assert_limited(&stats);
}

#[test]
fn stores_of_other_threads_are_kept() {
    convert("threads");
}

/// A call that began before anything was pinned finds its memory as if it were pinned.
#[test]
fn calls_that_wait_are_kept() {
    convert("calls");
}

#[test]
fn what_a_device_writes_is_kept() {
    convert("direct");
}

/// Memory that may not be read or stored to, that was freed, moved, guarded, wiped in a child.
#[test]
fn memory_of_every_kind_is_kept() {
    convert("kinds");
}

#[test]
fn a_child_is_active_and_its_parent_passive() {
    convert("child");
}

/// A neighbour gives up memory that it could have used.
#[test]
fn a_process_is_pressed() {
    convert("pressed");
}

/// The sum of the tree's processes is within the limit by the kernel's count, at any time.
#[test]
fn a_light_tree_keeps_its_limit() {
    /// The runtime's own memory in each of the seven processes, in KiB.
    const OWN: u64 = 7 * (2 << 10);
    let scratch = Scratch::new("passive-sum");
    let Some(program) = program(&scratch) else { return };
    let options = ["--memory", "32M", "--swap", SIZED_FILE];
    let output = scratch.run(&options, &[program.to_str().unwrap(), "sum", "1"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "well\n", "{output:?}");
    let peak: u64 = String::from_utf8_lossy(&output.stderr).trim().parse().unwrap();
    assert!(peak > 16 << 10, "{peak} KiB: not much was used");
    assert!(peak <= (32 << 10) + OWN, "{peak} KiB resident");
}

/// Without pressure nothing is registered, and the host handles all faults.
#[test]
fn a_program_that_fits_has_no_fault_of_ours() {
    let scratch = Scratch::new("passive-fits");
    let program = "import threading; x = [bytes(1000) for _ in range(20000)]; \
                   t = threading.Thread(target=lambda: print(len(x))); t.start(); t.join()";
    let stats = scratch.compare("1G", &[python(), "-c", program]);
    let faults = number(&stats, "/faults/minor") + number(&stats, "/faults/major");
    assert_eq!(faults, 0, "{stats:#}");
}

/// When memory is tight, pages that children share with their parent are charged once, although all fit
/// at first.
#[test]
fn forked_children_share_what_they_do_not_change() {
    let scratch = Scratch::new("passive-shared");
    let program = "import os\n\
        x = bytes(1) * (12 << 20)\n\
        gone, go = os.pipe(), os.pipe()\n\
        for k in range(2):\n\
        \x20if not os.fork():\n\
        \x20 y = bytes(b'y') * (10 << 20); os.write(gone[1], b'.'); os.read(go[0], 1)\n\
        \x20 os._exit(x.count(1) or len(y) != 10 << 20)\n\
        for k in range(2): os.read(gone[0], 1)\n\
        os.write(go[1], b'..')\n\
        print([os.wait()[1] for k in range(2)])";
    let stats = scratch.compare("60M", &[python(), "-c", program]);
    let out: u64 = (0..2).map(|area| number(&stats, &format!("/swap/{area}/pages_out"))).sum();
    assert_eq!(out, 0, "{stats:#}");
}
