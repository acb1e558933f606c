//! A program that needs more memory than its cgroup allows, without the kernel's swap: alone it is
//! killed, under `pagefault run` it completes.

use crate::harness::{PAGEFAULT, Scratch, full, have, message, write_lines};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The names of a memory cgroup's files.
struct Names {
    root: &'static str,
    memory: &'static str,
    /// The limit that keeps the kernel from swapping, and whether it counts memory too.
    swap: &'static str,
    swap_counts_memory: bool,
    /// The file with the number of killed processes.
    killed: &'static str,
}

const VERSIONS: [Names; 2] = [
    Names {
        root: "/sys/fs/cgroup/memory",
        memory: "memory.limit_in_bytes",
        swap: "memory.memsw.limit_in_bytes",
        swap_counts_memory: true,
        killed: "memory.oom_control",
    },
    Names {
        root: "/sys/fs/cgroup",
        memory: "memory.max",
        swap: "memory.swap.max",
        swap_counts_memory: false,
        killed: "memory.events",
    },
];

/// A memory cgroup that may not swap, removed when dropped.
struct Cgroup {
    path: PathBuf,
    names: &'static Names,
}

impl Cgroup {
    /// Makes one, or says why that is impossible.
    fn new(bytes: u64) -> Result<Self, String> {
        let [first, second] = &VERSIONS;
        Self::of(first, bytes).or_else(|v1| {
            Self::of(second, bytes).map_err(|v2| format!("version 1: {v1}; version 2: {v2}"))
        })
    }

    fn of(names: &'static Names, bytes: u64) -> Result<Self, String> {
        let path = Path::new(names.root).join(format!("pagefault-test.{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        // From here on dropping it removes the directory.
        let group = Self { path, names };
        group.write(names.memory, bytes)?;
        let swap = if names.swap_counts_memory { bytes } else { 0 };
        if let Err(error) = group.write(names.swap, swap) {
            // A kernel without swap does not always have the file.
            let areas = fs::read_to_string("/proc/swaps").unwrap_or_default();
            if areas.lines().count() > 1 {
                return Err(error);
            }
        }
        Ok(group)
    }

    fn write(&self, name: &str, value: u64) -> Result<(), String> {
        let path = self.path.join(name);
        // Not created if it does not exist: then the controller is missing.
        let file = fs::OpenOptions::new().write(true).open(&path);
        file.and_then(|mut file| std::io::Write::write_all(&mut file, value.to_string().as_bytes()))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The same command, in the cgroup from its first instruction.
    fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        command.arg(self.path.join("cgroup.procs")).args(program).env("LC_ALL", "C");
        command
    }

    /// The number of its processes that the kernel killed.
    fn killed(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(self.names.killed)).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.unwrap_or_else(|| panic!("no oom_kill in {text}")).trim().parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes have been waited for; a killed one may take a moment to leave.
        for _ in 0..6000 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("left over: {}", self.path.display());
    }
}

#[test]
fn a_program_too_large_for_its_cgroup_survives_under_pagefault() {
    // A file of lines, the limit of the manager, and that of the kernel, in MiB. Sorting needs
    // about two and a half times the file.
    let (file, memory, limit) = if full() { (200, 64, 112) } else { (12, 12, 24) };
    if !have("sort") {
        return;
    }
    let group = match Cgroup::new(limit << 20) {
        Ok(group) => group,
        Err(why) => {
            eprintln!("left out: no memory cgroup can be made ({why})");
            return;
        }
    };
    let scratch = Scratch::new("cgroup");
    let [input, expected, sorted] =
        ["input", "expected", "sorted"].map(|name| scratch.path(name).display().to_string());
    write_lines(Path::new(&input), file << 20);
    let sort = |output| ["sort", "--parallel=2", "-S", "400M", &input, "-o", output];

    let plain = group.command(&sort(&expected)).output().unwrap();
    assert_eq!(plain.status.signal(), Some(9), "the program fits: {plain:?}");
    assert_eq!(group.killed(), 1);

    // In the build directory, which is on a disk: in a tmpfs it would be memory of the cgroup.
    let swap = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("swap.{}", std::process::id()));
    let (memory, area) = (format!("{memory}M"), format!("file:{}:64G", swap.display()));
    let options = [PAGEFAULT, "run", "--memory", &memory, "--swap", &area, "--"];
    let managed = group.command(&[&options, &sort(&sorted)[..]].concat()).output().unwrap();
    let _ = fs::remove_file(&swap);
    assert!(managed.status.success(), "{}: {}", managed.status, message(&managed));
    assert_eq!(message(&managed), "");
    assert_eq!(group.killed(), 1, "killed in the managed run");

    let alone = scratch.plain(&sort(&expected)).status().unwrap();
    assert!(alone.success());
    let same = fs::read(&expected).unwrap() == fs::read(&sorted).unwrap();
    assert!(same, "the sorted files differ");
}
