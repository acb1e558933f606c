//! Machines for the tests, and programs for them.
#![allow(dead_code, reason = "each test program uses its own part")]

use pagefault_pc::boot::is_available;
use pagefault_pc::{Boot, Ended};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a program may run. The longest takes a few seconds on a machine that has time; one that
/// has none takes its time, and this only ends what would never end.
const LIMIT: Duration = Duration::from_secs(3600);

/// A directory with one of the programs beside this file.
pub fn built(name: &str) -> tempfile::TempDir {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/programs/{name}.c"));
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new("gcc")
        .args(["-O1", "-static", "-pthread", "-w", "-o"])
        .arg(directory.path().join(name))
        .arg(source)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "gcc cannot build {name}.c");
    directory
}

/// Says how many processors the machines have whose tests do not choose themselves.
const CPUS: &str = "PAGEFAULT_TEST_CPUS";

/// Whether there is no QEMU, which it says.
pub fn skips() -> bool {
    let skips = !is_available();
    if skips {
        eprintln!("skipped: QEMU is not installed (Debian: qemu-system-x86)");
    }
    skips
}

/// Boots a machine for a command, changed by `change`; `None` without QEMU.
pub fn boot(files: &Path, command: &[&str], change: impl FnOnce(&mut Boot)) -> Option<Ended> {
    if skips() {
        return None;
    }
    let mut boot = Boot::new(files, command);
    boot.limit = Some(LIMIT);
    if let Ok(cpus) = std::env::var(CPUS) {
        boot.cpus = cpus.parse().unwrap();
    }
    change(&mut boot);
    Some(boot.capture().unwrap_or_else(|error| panic!("{error}")))
}

pub fn program(name: &str, arguments: &[&str], change: impl FnOnce(&mut Boot)) -> Option<Ended> {
    let directory = built(name);
    let path = format!("/{name}");
    let command: Vec<&str> = [path.as_str()].into_iter().chain(arguments.iter().copied()).collect();
    boot(directory.path(), &command, change)
}

#[track_caller]
pub fn expect(ended: &Ended, status: u8, output: &str) {
    let printed = String::from_utf8_lossy(&ended.output);
    assert_eq!((printed.as_ref(), ended.status), (output, status), "{}", ended.report);
}

/// The host's busybox, if it is there and static.
pub fn busybox() -> Option<tempfile::TempDir> {
    let path = PathBuf::from("/bin/busybox");
    let is_static =
        std::fs::read(&path).is_ok_and(|bytes| !bytes.windows(7).any(|w| w == b"/lib64/"));
    if !is_static {
        eprintln!("skipped: no static /bin/busybox (Debian: busybox-static)");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("bin")).unwrap();
    std::fs::copy(path, directory.path().join("bin/busybox")).unwrap();
    Some(directory)
}

/// Some of the host's dynamic programs, with their interpreter and libraries as `ldd` names them.
pub fn dynamic(programs: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &str| {
        let to = directory.path().join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    };
    for program in programs {
        copy(Path::new(program), program);
        let libraries = Command::new("ldd").arg(program).output().unwrap();
        let libraries = String::from_utf8(libraries.stdout).unwrap();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            copy(Path::new(library), library);
        }
    }
    directory
}

/// Runs more threads' memory than the machine has, and expects that one process is killed for it and
/// that the machine goes on.
pub fn one_is_killed(threads: &str, change: impl FnOnce(&mut Boot)) {
    let script = format!("/threads {threads}; echo status $?; echo the machine goes on");
    let Some(files) = busybox() else { return };
    let directory = built("threads");
    let Some(ended) = boot(files.path(), &["/bin/busybox", "sh", "-c", &script], |boot| {
        boot.files.push(directory.path().to_path_buf());
        change(boot);
    }) else {
        return;
    };
    let printed = String::from_utf8_lossy(&ended.output);
    assert!(printed.ends_with("status 137\nthe machine goes on\n"), "{printed}{}", ended.report);
    assert_eq!(ended.report.matches("out of memory: killing process").count(), 1);
}
