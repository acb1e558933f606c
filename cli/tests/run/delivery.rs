//! `--delivery=threads`: readers from outside find absent pages.

use crate::harness::{Scratch, compile, have, message, python, write_lines};
use pagefault_linux::{Probe, Scope};
use std::io::{BufRead, BufReader, IoSliceMut};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

const THREADS: [&str; 2] = ["--delivery", "threads"];
const PAGE: usize = 4096;
/// As in `evicted.c`.
const PAGES: usize = 1024;

/// Whether this user may have a descriptor that sees the kernel's accesses. If not, the test checks
/// the refusal.
fn permitted(scratch: &Scratch) -> bool {
    if Probe::new().unwrap().scope != Scope::UserOnly {
        return true;
    }
    let refused = scratch.run(&THREADS, &["true"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(125));
    assert!(message(&refused).contains("vm.unprivileged_userfaultfd"), "{}", message(&refused));
    false
}

fn threads(scratch: &Scratch, memory: &str, program: &[&str]) -> Command {
    let mut command = scratch.run(&["--delivery", "threads", "--memory", memory], program);
    command.stdin(Stdio::null());
    command
}

#[test]
fn programs_are_as_without_us() {
    let scratch = Scratch::new("delivery");
    if !permitted(&scratch) {
        return;
    }
    write_lines(&scratch.path("lines"), 2 << 20);
    let python_threads = "
import os, threading
total = []
def work(n):
    total.append(sum(map(len, [str(i * n) for i in range(40000)])))
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
kept = [str(i) for i in range(50000)]
for n in range(4):
    child = os.fork()
    if child == 0:
        os._exit(len(''.join(kept)) % 200)
    print(os.waitpid(child, 0)[1])
# A process that drops root has a server that it could not kill.
child = os.fork()
if child == 0:
    if os.getuid() == 0:
        os.setuid(65534)
    child = os.fork()
    os._exit(len(''.join(kept)) % 100 if child == 0 else os.waitpid(child, 0)[1] >> 8)
print(os.waitpid(child, 0)[1])
try:
    os.execv('/', ['/'])
except OSError as error:
    print(error.errno, len(''.join(kept)))
print(sorted(total), os.popen('echo a child').read())
";
    let programs: [(&str, &str, &[&str]); 5] = [
        ("sort", "8M", &["sort", "--parallel=2", "-S", "20M", "lines"]),
        ("sh", "8M", &["sh", "-c", "sort lines | uniq | wc; (exit 3); echo $?; kill -TERM $$"]),
        ("python3", "16M", &[python(), "-c", python_threads]),
        // No thread of ours interferes.
        ("unshare", "8M", &["unshare", "--user", "sh", "-c", "id -u; (exit 4)"]),
        ("unshare", "8M", &["unshare", "--pid", "sh", "-c", "sh -c 'echo $$'; true"]),
    ];
    for (name, memory, program) in programs.into_iter().filter(|(name, ..)| have(name)) {
        let plain = scratch.plain(program).stdin(Stdio::null()).output().unwrap();
        assert_same(&plain, &threads(&scratch, memory, program).output().unwrap(), name);
        scratch.assert_nothing_left();
    }
}

fn assert_same(plain: &Output, managed: &Output, name: &str) {
    assert_eq!(message(managed), message(plain), "{name}");
    assert_eq!(managed.status, plain.status, "{name}");
    assert!(managed.stdout == plain.stdout, "{name}: other output");
}

/// The server answers as long as a process uses the memory.
#[test]
fn a_memory_whose_process_is_gone_has_a_server() {
    let scratch = Scratch::new("delivery-shared");
    if !permitted(&scratch) {
        return;
    }
    let Some(program) = compile(&scratch, "shared") else { return };
    for how in ["killed", "executes"] {
        let plain = scratch.plain(&[&program, how]).stdin(Stdio::null()).output().unwrap();
        assert_same(&plain, &threads(&scratch, "16M", &[&program, how]).output().unwrap(), how);
    }
}

/// Stores by a copy between processes reach pages that leave meanwhile.
#[test]
fn copies_within_the_memory_lose_nothing() {
    let scratch = Scratch::new("delivery-copies");
    if !permitted(&scratch) {
        return;
    }
    for name in ["sharers", "transfers", "peeked"] {
        let Some(program) = compile(&scratch, name) else { return };
        let plain = scratch.plain(&[&program]).stdin(Stdio::null()).output().unwrap();
        assert_same(&plain, &threads(&scratch, "6M", &[&program]).output().unwrap(), name);
    }
}

#[test]
fn a_reader_from_outside_finds_evicted_pages() {
    let scratch = Scratch::new("reader");
    if !permitted(&scratch) {
        return;
    }
    let Some(program) = compile(&scratch, "evicted") else { return };
    let mut command = threads(&scratch, "4M", &[&program]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let (process, address) = line.trim().split_once(" 0x").unwrap();
    let start = usize::from_str_radix(address, 16).unwrap();
    for page in 0..PAGES {
        let text = read_from(process.parse().unwrap(), start + page * PAGE);
        assert_eq!(text, format!("eVICTED {page}"), "page {page}");
    }
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The string at an address of another process.
fn read_from(process: libc::pid_t, address: usize) -> String {
    let mut bytes = [0_u8; 32];
    let mut local = [IoSliceMut::new(&mut bytes)];
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: 32 };
    // SAFETY: an IoSliceMut is an iovec, over a buffer of ours; the other side is only read.
    let read = unsafe {
        libc::process_vm_readv(process, local.as_mut_ptr().cast(), 1, &raw const remote, 1, 0)
    };
    assert_eq!(read, 32, "{}", std::io::Error::last_os_error());
    let text = bytes.split(|byte| *byte == 0).next().unwrap();
    String::from_utf8_lossy(text).into_owned()
}

/// A long store finds most of its target's pages evicted, and more than fit at once.
#[test]
fn a_store_from_another_process_reaches_evicted_pages() {
    let scratch = Scratch::new("stored");
    if !permitted(&scratch) {
        return;
    }
    let Some(program) = compile(&scratch, "stored") else { return };
    let plain = scratch.plain(&[&program]).output().unwrap();
    assert_same(&plain, &threads(&scratch, "6M", &[&program]).output().unwrap(), "stored");
}

#[test]
fn a_managed_debugger_sees_what_it_would_see_without_us() {
    let scratch = Scratch::new("debugger");
    if !permitted(&scratch) {
        return;
    }
    let Some(program) = compile(&scratch, "evicted") else { return };
    let program = [program.as_str(), "debug"];
    let plain = scratch.plain(&program).output().unwrap();
    assert_same(&plain, &threads(&scratch, "4M", &program).output().unwrap(), "debugger");
}

#[test]
fn a_core_has_what_was_evicted() {
    let scratch = Scratch::new("core");
    if permitted(&scratch) {
        assert_core_complete(&scratch, &THREADS);
    }
}

/// A core needs no right.
#[test]
fn a_core_of_inline_delivery_has_what_was_evicted() {
    assert_core_complete(&Scratch::new("inline-core"), &[]);
}

fn assert_core_complete(scratch: &Scratch, options: &[&str]) {
    let options = [options, &["--memory", "4M"]].concat();
    let Some(core) = core_of(scratch, &options, "abort", libc::SIGABRT) else { return };
    let found = core.windows(8).filter(|bytes| *bytes == b"eVICTED ").count();
    assert!(found >= PAGES, "{found} of {PAGES} pages are in the core");
}

/// A debugger finds where the program crashed, and why.
#[test]
fn a_core_has_the_registers_of_the_program() {
    /// Of `struct elf_prstatus` and `user_regs_struct`.
    const R12: usize = 112 + 3 * 8;
    const MARK: u64 = 0x0123_4567_89ab_cdef;
    for memory in ["4M", "1G"] {
        let scratch = Scratch::new(&format!("crash-core-{memory}"));
        let Some(core) = core_of(&scratch, &["--memory", memory], "crash", libc::SIGSEGV) else {
            return;
        };
        assert_eq!(note(&core, 1)[R12..R12 + 8], MARK.to_le_bytes());
        let info = note(&core, 0x5349_4749);
        assert_eq!(info[16], 24, "the address of the access: {info:?}");
        // A call's registers are the program's as well.
        let Some(core) = core_of(&scratch, &["--memory", memory], "call", libc::SIGABRT) else {
            return;
        };
        assert_eq!(note(&core, 1)[R12..R12 + 8], MARK.to_le_bytes());
    }
}

/// The content of the first note of a type (`NT_PRSTATUS`, `NT_SIGINFO`) of a core.
fn note(core: &[u8], wanted: u32) -> &[u8] {
    const NOTES: u32 = 4;
    let word = |at: usize| u32::from_le_bytes(core[at..at + 4].try_into().unwrap());
    let headers = (0..).map(|i| word(32) as usize + i * 56);
    let header = headers.take(word(56) as usize & 0xffff).find(|at| word(*at) == NOTES).unwrap();
    let mut at = word(header + 8) as usize;
    loop {
        let [name, len, kind] = [word(at), word(at + 4), word(at + 8)];
        let content = at + 12 + name.next_multiple_of(4) as usize;
        if kind == wanted {
            return &core[content..content + len as usize];
        }
        at = content + len.next_multiple_of(4) as usize;
    }
}

/// The core of `evicted`, if cores are written to the working directory.
fn core_of(scratch: &Scratch, options: &[&str], how: &str, signal: i32) -> Option<Vec<u8>> {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.trim() != "core" {
        eprintln!("skipped: cores go elsewhere");
        return None;
    }
    let program = compile(scratch, "evicted")?;
    let script = format!("ulimit -c unlimited; exec {program} {how}");
    let ended = scratch.run(options, &["sh", "-c", &script]).output().unwrap();
    assert_eq!(ended.status.signal(), Some(signal), "{}", message(&ended));
    let files = std::fs::read_dir(scratch.path(".")).unwrap().map(|entry| entry.unwrap().path());
    let core = files.into_iter().find(|path| path.to_string_lossy().ends_with("/core"));
    let core = core.expect("a core");
    let content = std::fs::read(&core).unwrap();
    std::fs::remove_file(core).unwrap();
    Some(content)
}

/// A process that has dropped the right to a server still executes programs.
#[test]
fn a_program_without_the_right_to_a_server_runs() {
    let scratch = Scratch::new("dropped");
    if !permitted(&scratch) {
        return;
    }
    let program = "
import os
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.execv('/bin/sh', ['sh', '-c', 'x=$(echo sub); echo $x; exec cat /proc/self/comm'])";
    let output = threads(&scratch, "64M", &[python(), "-c", program]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "sub\ncat\n", "{}", message(&output));
    assert_eq!((message(&output), output.status.code()), (String::new(), Some(0)));
}
