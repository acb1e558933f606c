//! Programs of Debian packages, unmodified, on the bare PC: copied from the host with their
//! interpreter and libraries. A package that is missing is named, and its test does nothing.

mod common;

use common::{boot, busybox, dynamic, expect};
use pagefault_pc::{Boot, Ended};
use std::path::Path;
use std::process::Command;

/// The files of an installed program, or `None` after saying which package is missing.
fn installed(program: &str, package: &str) -> Option<tempfile::TempDir> {
    if Path::new(program).exists() {
        return Some(dynamic(&[program]));
    }
    eprintln!("skipped: {program} is not installed (Debian: {package})");
    None
}

/// What a command prints on the host.
fn on_host(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?} fails on the host");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn memtester_finds_nothing() {
    let Some(files) = installed("/usr/sbin/memtester", "memtester") else { return };
    let Some(ended) = boot(files.path(), &["/usr/sbin/memtester", "4M", "1"], |_| ()) else {
        return;
    };
    let output = String::from_utf8_lossy(&ended.output);
    assert_eq!(ended.status, 0, "{output}{}", ended.report);
    assert!(output.contains("got  4MB"), "{output}");
    assert!(output.ends_with("Done.\n"), "{output}");
    assert!(output.matches("ok\n").count() >= 15, "{output}");
    assert!(!output.contains("FAILURE"), "{output}");
}

/// Runs a stressor of stress-ng that verifies what it does, with a bounded number of operations.
fn stress(arguments: &[&str]) {
    let program = "/usr/bin/stress-ng";
    let Some(files) = installed(program, "stress-ng") else { return };
    let command = [&[program, "--verify"], arguments].concat();
    let change = |boot: &mut Boot| (boot.memory, boot.swap) = (128, 64);
    let Some(ended) = boot(files.path(), &command, change) else { return };
    let output = String::from_utf8_lossy(&ended.output);
    assert_eq!(ended.status, 0, "{output}{}", ended.report);
    assert!(output.contains("successful run completed"), "{output}{}", ended.report);
    assert!(!output.contains("fail:"), "{output}");
}

#[test]
fn stress_ng_writes_and_checks_memory() {
    stress(&["--vm", "1", "--vm-bytes", "8M", "--vm-ops", "50"]);
}

#[test]
fn stress_ng_maps_and_unmaps() {
    stress(&["--mmap", "1", "--mmap-bytes", "2M", "--mmap-ops", "8"]);
}

#[test]
fn stress_ng_remaps() {
    stress(&["--mremap", "1", "--mremap-bytes", "4M", "--mremap-ops", "10"]);
}

#[test]
fn stress_ng_advises() {
    stress(&["--madvise", "1", "--madvise-ops", "1", "--timeout", "5"]);
}

#[test]
fn stress_ng_forks() {
    stress(&["--fork", "1", "--fork-ops", "20"]);
}

#[test]
fn sqlite_counts_what_it_stored() {
    let Some(files) = installed("/usr/bin/sqlite3", "sqlite3") else { return };
    let script = "create table t(a integer primary key, b text); \
                  with recursive c(x) as (select 1 union all select x+1 from c where x < 20000) \
                  insert into t select x, hex(x * x) from c; \
                  select count(*), sum(length(b)), max(b) from t; \
                  select a, b from t where b like '%39' order by b desc limit 3;";
    let command = ["/usr/bin/sqlite3", ":memory:", script];
    let Some(ended) = boot(files.path(), &command, |_| ()) else { return };
    expect(&ended, 0, &on_host(&command));
}

/// A directory with Debian's Python, without the parts of its library that are large.
fn python(program: &str) -> Option<tempfile::TempDir> {
    let files = installed(program, "python3.11")?;
    let library = files.path().join("usr/lib");
    std::fs::create_dir_all(&library).unwrap();
    let exclude = ["test", "idlelib", "lib2to3", "ensurepip", "distutils", "config-3.11-*"];
    let status = Command::new("tar")
        .args(exclude.map(|name| format!("--exclude=python3.11/{name}")))
        .args(["--exclude=__pycache__", "-C", "/usr/lib", "-cf", "-", "python3.11"])
        .stdout(std::fs::File::create(files.path().join("python.tar")).unwrap())
        .status();
    assert!(status.is_ok_and(|status| status.success()));
    let archive = files.path().join("python.tar");
    let unpack = Command::new("tar").arg("-C").arg(&library).arg("-xf").arg(&archive).status();
    assert!(unpack.is_ok_and(|status| status.success()));
    std::fs::remove_file(archive).unwrap();
    Some(files)
}

#[test]
fn python_builds_a_large_dictionary() {
    let program = "/usr/bin/python3.11";
    let Some(files) = python(program) else { return };
    let script = "d = {i: str(i) for i in range(100000)}; \
                  print(len(d), sum(map(len, d.values())), d[77777])";
    let command = [program, "-S", "-c", script];
    let change = |boot: &mut Boot| (boot.memory, boot.swap) = (160, 64);
    let Some(ended) = boot(files.path(), &command, change) else { return };
    expect(&ended, 0, &on_host(&command));
}

#[test]
fn a_static_program_of_musl() {
    if !Path::new("/usr/bin/musl-gcc").exists() {
        return eprintln!("skipped: musl-gcc is not installed (Debian: musl-tools)");
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/threads.c");
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("threads");
    let mut compiler = Command::new("musl-gcc");
    compiler.args(["-O1", "-static", "-pthread", "-o"]).arg(program).arg(source);
    assert!(compiler.status().is_ok_and(|status| status.success()));
    let command = ["/threads", "16", "4"];
    let Some(ended) = boot(directory.path(), &command, |_| ()) else { return };
    expect(&ended, 0, "4 threads, 16 MiB, 0 failures\n");
}

fn shell(script: &str, change: impl FnOnce(&mut Boot)) -> Option<Ended> {
    let files = busybox()?;
    boot(files.path(), &["/bin/busybox", "sh", "-c", script], change)
}

/// The file has 80 MiB, the machine 64.
#[test]
fn a_pipeline_over_a_file_larger_than_memory() {
    let script = "B=/bin/busybox; $B yes pagefault | $B head -c 83886080 > /tmp/big; \
                  $B wc -c < /tmp/big; $B tail -c 100 /tmp/big | $B md5sum";
    let change = |boot: &mut Boot| (boot.memory, boot.swap) = (64, 256);
    let Some(ended) = shell(script, change) else { return };
    let directory = tempfile::tempdir().unwrap();
    let host = script.replace("/tmp", directory.path().to_str().unwrap());
    expect(&ended, 0, &on_host(&["/bin/busybox", "sh", "-c", &host]));
    assert!(ended.counters()["swap_writes"] > 4096, "{}", ended.report);
}

#[test]
fn proc_shows_a_process_and_its_memory() {
    let script = "B=/bin/busybox; $B grep -c '\\[stack\\]' /proc/self/maps; \
                  $B readlink /proc/self/exe; $B cat /proc/self/comm; \
                  $B grep -c VmFlags /proc/self/smaps > /tmp/a; $B wc -l < /proc/self/maps > /tmp/b; \
                  $B cmp /tmp/a /tmp/b; echo $?; $B dd if=/proc/self/pagemap bs=8 skip=1024 count=1 \
                  2> /dev/null | $B od -t x1 -A n | $B cut -c 22-";
    let Some(ended) = shell(script, |_| ()) else { return };
    // The first page of the program is present (bit 63) and a file's (bit 61).
    let output = String::from_utf8_lossy(&ended.output);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(&lines[..4], ["1", "/bin/busybox", "busybox", "0"], "{output}{}", ended.report);
    assert!(lines[4].trim().starts_with('a'), "{output}");
}

#[test]
fn an_alarm_ends_a_program_that_takes_too_long() {
    let script = "/bin/busybox timeout 1 /bin/busybox sleep 100; echo $?";
    let Some(ended) = shell(script, |_| ()) else { return };
    expect(&ended, 0, "Terminated\n143\n");
}
