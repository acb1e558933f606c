use super::{BringError, bring, listed, stripped};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_list_is_read() {
    let list = "\tlinux-vdso.so.1 (0x00007ffd3a9f2000)\n\
        \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1c0a000000)\n\
        \t/lib64/ld-linux-x86-64.so.2 (0x00007f1c0a3c1000)\n";
    let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
    assert_eq!(listed(list).unwrap(), paths.map(PathBuf::from));
    let missing = listed("\tlibz.so.1 => not found\n").unwrap_err();
    assert_eq!(missing, "libz.so.1: not found");
}

/// This very test program is dynamically linked.
#[test]
fn a_program_comes_with_its_loader_and_libraries() {
    let own = std::env::current_exe().unwrap();
    let files = bring(&own).unwrap();
    assert_eq!(files[0].path, own);
    let has = |part: &str| files.iter().any(|file| file.path.to_string_lossy().contains(part));
    assert!(has("ld-linux-x86-64.so.2") && has("libc.so.6"), "{files:?}");
}

#[test]
fn a_script_comes_with_its_interpreter() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, format!("#! {} -x\n", std::env::current_exe().unwrap().display()))
        .unwrap();
    let files = bring(&script).unwrap();
    assert_eq!(files[0].path, script);
    assert_eq!(files[1].path, std::env::current_exe().unwrap());
    assert!(files.len() > 3);
}

#[test]
fn what_is_no_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    std::fs::write(&text, "no program\n").unwrap();
    assert!(matches!(bring(&text), Err(BringError::NotForPc(path)) if path == text));
    let nothing = Path::new("/nothing/at/all");
    assert!(matches!(bring(nothing), Err(BringError::Read(path, _)) if path == nothing));
}

#[test]
fn a_stripped_program_still_runs() {
    let directory = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let bytes = stripped(&own).unwrap();
    assert!((bytes.len() as u64) < std::fs::metadata(&own).unwrap().len());
    let [text, copy] = ["text", "copy"].map(|name| directory.path().join(name));
    std::fs::write(&text, bytes).unwrap();
    // Another process writes the program: a child of another test's thread would keep ours open for writing.
    let mut install = Command::new("install");
    assert!(install.args(["-m", "755"]).args([&text, &copy]).status().unwrap().success());
    let status = Command::new(&copy).arg("--help").output().unwrap().status;
    assert!(status.success());
}
