//! The kernel's own memory selftests (tools/testing/selftests) on the bare PC: built statically from
//! Debian's linux-source package, and run on the host too, whose result must be the same.
//!
//! Without the package or QEMU each test says so and does nothing.

mod common;

use common::boot;
use pagefault_pc::Boot;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The newest of Debian's archives with the kernel's sources.
fn archive() -> Option<PathBuf> {
    let entries = fs::read_dir("/usr/src").ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_archive = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("linux-source-") && name.ends_with(".tar.xz")
    };
    paths.filter(is_archive).max()
}

/// The selftests, taken out of the archive once. That takes many seconds, so they stay where the
/// tests' own files are.
fn sources() -> Option<&'static Path> {
    static SOURCES: OnceLock<Option<PathBuf>> = OnceLock::new();
    SOURCES.get_or_init(extract).as_deref()
}

fn extract() -> Option<PathBuf> {
    let Some(archive) = archive() else {
        eprintln!("skipped: no kernel sources in /usr/src (Debian: linux-source-6.1)");
        return None;
    };
    let name = archive.file_name()?.to_str()?.trim_end_matches(".tar.xz").to_owned();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
    if !kept.exists() {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let tar = Command::new("tar")
            .arg("-xJf")
            .arg(&archive)
            .arg("-C")
            .arg(directory.path())
            // The archive has many blocks, and all processors may decompress them.
            .env("XZ_OPT", "-T0")
            .args(["--wildcards", "--no-anchored", "tools/testing/selftests/kselftest.h"])
            .args(["tools/testing/selftests/vm/*.[ch]", "tools/testing/selftests/mm/*.[ch]"])
            .output()
            .unwrap();
        // One of the two directories is not there, which tar tells at the end.
        let selftests = directory.path().join(&name).join("tools/testing/selftests");
        let complaint = String::from_utf8_lossy(&tar.stderr);
        assert!(selftests.join("kselftest.h").exists(), "{}: {complaint}", archive.display());
        // Another test may have been faster.
        let _ = fs::rename(directory.path().join(&name), &kept);
    }
    let selftests = kept.join("tools/testing/selftests");
    ["vm", "mm"].map(|part| selftests.join(part)).into_iter().find(|part| part.is_dir())
}

/// Builds a selftest statically.
fn build(name: &str, more: &[&str], libraries: &[&str]) -> Option<tempfile::TempDir> {
    let sources = sources()?;
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("gcc")
        .args(["-O1", "-static", "-pthread", "-w", "-o"])
        .arg(directory.path().join(name))
        .arg(sources.join(format!("{name}.c")))
        .args(more.iter().map(|file| sources.join(file)))
        .args(libraries)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "gcc cannot build {name}.c:\n{complaint}");
    Some(directory)
}

/// The lines that say how each part of a test ended, without the times and addresses in between.
fn verdicts(output: &[u8]) -> String {
    let is_verdict = |line: &&str| {
        ["ok ", "not ok ", "# Totals", "OK"].iter().any(|start| line.starts_with(start))
    };
    let output = String::from_utf8_lossy(output);
    output.lines().filter(is_verdict).map(|line| format!("{line}\n")).collect()
}

/// Runs a selftest on the PC, where it must pass, and on the host, where it may lack rights or
/// memory; if it passes there, each of its parts must end in the same way.
fn selftest(name: &str, more: &[&str], libraries: &[&str], change: impl FnOnce(&mut Boot)) {
    let Some(directory) = build(name, more, libraries) else { return };
    let path = format!("/{name}");
    let Some(ended) = boot(directory.path(), &[&path], change) else { return };
    let printed = String::from_utf8_lossy(&ended.output);
    assert_eq!(ended.status, 0, "{printed}{}", ended.report);
    let host = Command::new(directory.path().join(name)).output().unwrap();
    if host.status.success() {
        assert_eq!(verdicts(&ended.output), verdicts(&host.stdout), "{printed}");
    } else {
        eprintln!("{name} fails on the host: {}", host.status);
    }
}

#[test]
fn moves_of_every_alignment_and_two_gigabytes() {
    // Linux too promises so much only to a machine that has it, in memory or swap.
    let change = |boot: &mut Boot| (boot.memory, boot.swap) = (96, 5 << 10);
    selftest("mremap_test", &[], &[], change);
}

#[test]
fn moves_that_leave_the_mapping() {
    selftest("mremap_dontunmap", &[], &[], |_| ());
}

#[test]
fn populating_by_advice() {
    selftest("madv_populate", &["vm_util.c"], &[], |_| ());
}

#[test]
fn populating_when_mapping() {
    selftest("map_populate", &[], &[], |_| ());
}

#[test]
fn fixed_mappings_that_replace_nothing() {
    selftest("map_fixed_noreplace", &[], &[], |_| ());
}

#[test]
fn locking_at_random() {
    if !Path::new("/usr/include/sys/capability.h").exists() {
        return eprintln!("skipped: sys/capability.h is not installed (Debian: libcap-dev)");
    }
    selftest("mlock-random-test", &[], &["-lcap"], |_| ());
}

#[test]
fn locking_and_unlocking_everything() {
    selftest("mlock2-tests", &[], &[], |_| ());
}
