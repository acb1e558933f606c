//! Ordinary users, programs that gain rights, and hosts that forbid what we need.

use crate::forbid::forbid;
use crate::harness::{PAGEFAULT, Scratch, copy_executable, have, message, write_executable};
use crate::{OPTIONS, output, run, tree};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

/// The ID of the user nobody.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    // SAFETY: asks for a number.
    unsafe { libc::geteuid() == 0 }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A scratch directory that everybody may use, with the command and its runtime in it: the build's own
/// directory may be closed to others.
fn open_scratch(name: &str) -> Scratch {
    let scratch = tree::scratch(name);
    for (from, to) in [(PAGEFAULT, "pagefault"), (env!("PAGEFAULT_JUMP"), "jump")] {
        copy_executable(from, &scratch.path(to), 0o755);
    }
    for directory in ["", "swap"] {
        set_mode(&scratch.path(directory), 0o777);
    }
    scratch
}

/// A run by an ordinary user.
fn as_nobody(scratch: &Scratch, program: &[&str]) -> Command {
    let mut command = Command::new(scratch.path("pagefault"));
    command.args(["run", "--delivery=inline", "--memory=64M", "--runtime=jump", "--"]);
    command.args(program).current_dir(scratch.path("")).env("TMPDIR", scratch.path("swap"));
    command.uid(NOBODY).gid(NOBODY);
    command
}

#[test]
fn an_ordinary_user() {
    if !is_root() {
        // Then all other tests are this one.
        return;
    }
    let scratch = open_scratch("ordinary");
    let (stdout, stderr, status) = output(&mut as_nobody(&scratch, &["sh", "-c", "id -u; exit 4"]));
    assert_eq!((&*stdout, &*stderr, status), ("65534\n", "", Some(4)));
    let chain = ["./relay", "./spawn", "/bin/sh", "-c", "exit 6"];
    assert_eq!(output(&mut as_nobody(&scratch, &chain)).2, Some(6));
    scratch.assert_nothing_left();
}

/// The first program gains privileges: it runs, and a line says that it is not managed.
#[test]
fn a_program_that_gains_rights() {
    if !is_root() {
        return eprintln!("left out: no right to give rights");
    }
    let scratch = open_scratch("gains");
    let program = scratch.path("identity");
    copy_executable("/usr/bin/id", &program, 0o4755);
    let (stdout, stderr, status) = output(&mut as_nobody(&scratch, &["./identity", "-u"]));
    assert_eq!((&*stdout, status), ("0\n", Some(0)), "{stderr}");
    assert!(stderr.contains("gains privileges") && stderr.contains("unmanaged"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");

    // For root itself it is a program like any other.
    let (stdout, stderr, status) = output(&mut run(&scratch, &["./identity", "-u"]));
    assert_eq!((&*stdout, &*stderr, status), ("0\n", "", Some(0)));

    // Without the rights to give, it gains none.
    if have("setpriv") {
        let mut command = Command::new("setpriv");
        let options = ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];
        command.args(options).args(["./pagefault", "run"]).args(&OPTIONS[..2]);
        command.args(["--runtime=jump", "--", "./identity", "-u"]);
        command.current_dir(scratch.path("")).env("TMPDIR", scratch.path("swap"));
        let (stdout, stderr, status) = output(&mut command);
        assert_eq!((&*stdout, &*stderr, status), ("65534\n", "", Some(0)));
    }
}

/// A later program that did not check: the supervisor finds out at the exec.
#[test]
fn a_program_that_gained_rights() {
    if !is_root() {
        return eprintln!("left out: no right to give rights");
    }
    let scratch = open_scratch("gained");
    let program = scratch.path("identity");
    copy_executable("/usr/bin/id", &program, 0o755);
    std::os::unix::fs::chown(&program, Some(NOBODY), Some(NOBODY)).unwrap();
    set_mode(&program, 0o4755);
    let (stdout, stderr, status) = output(&mut run(&scratch, &["./relay", "./identity", "-u"]));
    assert_eq!((&*stdout, status), ("65534\n", Some(0)), "{stderr}");
    assert!(stderr.contains("gains privileges, so it runs unmanaged"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// The host hides the memory of a program that may be executed but not read.
#[test]
fn a_program_that_may_not_be_read() {
    if !is_root() {
        return eprintln!("left out: no other user's files");
    }
    let scratch = open_scratch("unreadable");
    let program = scratch.path("closed");
    copy_executable("/bin/echo", &program, 0o711);
    let expected = "unreadable, so it runs unmanaged";
    for (before, word) in [(&[][..], "executable but unreadable"), (&["./relay"], expected)] {
        let command = [before, &["./closed", "fine"]].concat();
        let (stdout, stderr, status) = output(&mut as_nobody(&scratch, &command));
        assert_eq!((&*stdout, status), ("fine\n", Some(0)), "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    // Root may read everything.
    let (stdout, stderr, _) = output(&mut run(&scratch, &["./closed", "fine"]));
    assert_eq!((&*stdout, &*stderr), ("fine\n", ""));
}

/// A later program of another architecture runs unmanaged, if the host runs it at all.
#[test]
fn a_later_program_of_32_bits() {
    let scratch = tree::scratch("narrow");
    let source = scratch.path("narrow.s");
    // exit(7) by the calls of 32-bit programs.
    fs::write(&source, ".globl _start\n_start: mov $7,%ebx\nmov $1,%eax\nint $0x80\n").unwrap();
    if !have("as") || !have("ld") {
        return;
    }
    let build = "as --32 -o narrow.o narrow.s && ld -m elf_i386 -o narrow narrow.o && ./narrow";
    let mut command = Command::new("sh");
    if command.args(["-c", build]).current_dir(scratch.path("")).status().unwrap().code() != Some(7)
    {
        return eprintln!("left out: no programs of 32 bits here");
    }
    let (_, stderr, status) = output(&mut run(&scratch, &["./relay", "./narrow"]));
    assert_eq!(status, Some(7), "{stderr}");
    assert!(stderr.contains("not for x86-64, so it runs unmanaged"), "{stderr}");
    let (_, stderr, status) = output(&mut run(&scratch, &["./narrow"]));
    assert_eq!(status, Some(126), "{stderr}");
}

/// As in a container whose profile forbids ptrace.
#[test]
fn a_host_without_ptrace() {
    let scratch = Scratch::new("noptrace");
    let mut command = run(&scratch, &["echo", "never"]);
    // SAFETY: installing the filter is two system calls.
    unsafe { command.pre_exec(|| forbid(libc::SYS_ptrace)) };
    let output: Output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(output.stdout.is_empty());
    let text = message(&output);
    assert!(text.contains("cannot trace") && text.contains("--cap-add=SYS_PTRACE"), "{text}");
    scratch.assert_nothing_left();
}

/// Without room for the runtime the program does not run: here a runtime that claims 60 MiB, under a
/// limit of addresses.
#[test]
fn a_runtime_that_does_not_fit() {
    let scratch = Scratch::new("fit");
    let mut file = fs::read(env!("PAGEFAULT_JUMP")).unwrap();
    let word = |file: &[u8], at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let headers = word(&file, 32) as usize;
    let count = usize::from(file[56]);
    let writable = (0..count).map(|index| headers + index * 56).find(|header| {
        // PT_LOAD, and PF_W.
        file[*header] == 1 && file[*header + 4] & 2 != 0
    });
    // p_memsz.
    let size = writable.unwrap() + 40;
    file[size..size + 8].copy_from_slice(&(60_u64 << 20).to_le_bytes());
    fs::write(scratch.path("large"), file).unwrap();
    let script =
        "R=${RUN%--runtime*}; ulimit -v 60000; $R --swap ram:1M --runtime large -- echo never";
    let (stdout, stderr, status) = output(&mut crate::shell(&scratch, script));
    assert_eq!((&*stdout, status), ("", Some(125)), "{stderr}");
    assert!(stderr.contains("no memory for the runtime"), "{stderr}");
}

/// A program that another process traces cannot be traced by us.
#[test]
fn a_program_under_a_debugger() {
    if !have("strace") {
        return;
    }
    let scratch = Scratch::new("traced");
    write_executable(&scratch.path("empty"), "");
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", PAGEFAULT, "run"]).args(OPTIONS).args(["--", "true"]);
    command.env("TMPDIR", scratch.path("swap"));
    let (_, stderr, status) = output(&mut command);
    assert_eq!(status, Some(125), "{stderr}");
    assert!(stderr.contains("such as a debugger or strace"), "{stderr}");
}
