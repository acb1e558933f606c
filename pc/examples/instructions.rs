//! Counts the instructions of each kind of page fault and prints them beside Linux's, as a table.
//!
//! Ours are measured now, in QEMU's own translation with an instruction count, on the processor
//! `qemu64`. Linux's were measured in the same way: Debian's 6.1 cloud kernel with lean arguments
//! (`mitigations=off cgroup_disable=memory init_on_alloc=0`); its medians repeat exactly.

use pagefault_pc::Boot;
use pagefault_pc::boot::BootError;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Linux's medians, in the order in which they are printed.
const LINUX: [(&str, u64); 13] = [
    ("anonymous_write", 2385),
    ("anonymous_read", 1154),
    ("write_after_it", 2800),
    // With `fault_around_bytes` set to one page.
    ("cached_file_page", 1782),
    ("cached_file_page_with_fault_around", 488),
    ("private_file_write", 2872),
    ("copy_on_write", 2995),
    ("reuse_by_the_sole_owner", 1264),
    ("fork_exit_wait", 157_000),
    ("unmap_a_page", 1112),
    ("mmap_and_munmap", 10_890),
    ("getppid", 337),
    // Ours in compressed memory too, with the same content; Linux's is zram with LZ4.
    ("swap_in", 13_400),
];

fn main() -> ExitCode {
    match measure() {
        Ok(ours) => {
            println!("| instructions | ours | Linux | ratio |\n|---|---|---|---|");
            for (name, linux) in LINUX {
                let ours = ours.get(name).copied().unwrap_or_default();
                let ratio = ours as f64 / linux as f64;
                println!("| {} | {ours} | {linux} | {ratio:.2} |", name.replace('_', " "));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<BTreeMap<String, u64>, BootError> {
    let directory = tempfile::tempdir()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/faults.c");
    let gcc = ["-O2", "-static", "-o"];
    let program = directory.path().join("faults");
    Command::new("gcc").args(gcc).arg(program).arg(source).status()?;
    let mut counts = run(directory.path(), "swap", "swap=compressed")?;
    counts.extend(run(directory.path(), "single", "fault_around=1")?);
    Ok(counts)
}

/// Runs the program with an argument on a machine with a setting, and returns what it counted.
fn run(
    directory: &Path,
    argument: &str,
    setting: &str,
) -> Result<BTreeMap<String, u64>, BootError> {
    let mut boot = Boot::new(directory, &["/faults", argument]);
    boot.settings.push(String::from(setting));
    boot.memory = 256;
    boot.count_instructions();
    let output = String::from_utf8_lossy(&boot.capture()?.output).into_owned();
    let pairs = output.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.filter_map(|(name, value)| Some((name.into(), value.parse().ok()?))).collect())
}
