//! Programs of every kind, and their initial state.

use crate::harness::{Scratch, have, number, write_executable};
use crate::{OPTIONS, output, run, shell};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Asserts that a run has the output and status of the program alone.
#[track_caller]
fn assert_same(scratch: &Scratch, program: &[&str]) {
    let managed = output(run(scratch, program).stdin(Stdio::null()));
    let plain = output(scratch.plain(program).stdin(Stdio::null()));
    assert_eq!(managed, plain, "{program:?}");
    scratch.assert_nothing_left();
}

#[test]
fn dynamic_static_and_scripts() {
    let scratch = Scratch::new("kinds");
    let script = scratch.path("script");
    write_executable(&script, "#!/bin/sh -e\necho \"$0\" \"$@\"\nexit 5\n");
    let script = script.to_str().unwrap();
    let chained = scratch.path("chained");
    write_executable(&chained, format!("#!{script} one\n"));
    assert_same(&scratch, &["echo", "by", "PATH"]);
    assert_same(&scratch, &["/bin/echo", "by path"]);
    assert_same(&scratch, &[script, "a", "b c"]);
    assert_same(&scratch, &["./script"]);
    assert_same(&scratch, &[chained.to_str().unwrap(), "two"]);
    if have("busybox") {
        assert_same(&scratch, &["busybox", "sh", "-c", "echo static | busybox tr a-z A-Z; exit 4"]);
    }
    if have("gcc") {
        let source = scratch.path("pie.c");
        fs::write(&source, "#include <stdio.h>\nint main(int c, char **v) { puts(*v); return c; }")
            .unwrap();
        for option in ["-static", "-static-pie", "-pie", "-no-pie"] {
            let program = scratch.path(option);
            let mut compiler = Command::new("gcc");
            compiler.arg(option).arg("-o").arg(&program).arg(&source);
            assert!(compiler.status().unwrap().success());
            assert_same(&scratch, &[program.to_str().unwrap(), "x"]);
        }
    }
}

/// Opening a FIFO would wait for a writer.
#[test]
fn what_is_no_file_is_no_program() {
    let scratch = Scratch::new("no-file");
    let fifo = scratch.path("fifo");
    let fifo = fifo.to_str().unwrap();
    assert!(Command::new("mkfifo").args(["-m", "755", fifo]).status().unwrap().success());
    let script = scratch.path("script");
    write_executable(&script, format!("#!{fifo}\n"));
    for program in [fifo, script.to_str().unwrap(), "/dev/null"] {
        let (_, said, status) = output(&mut run(&scratch, &[program]));
        assert_eq!(status, Some(126), "{said}");
        assert!(said.contains("not executable"), "{said}");
    }
}

#[test]
fn every_program_is_counted() {
    let scratch = Scratch::new("counted");
    let stats = scratch.path("stats");
    let mut options = OPTIONS.to_vec();
    options.extend(["--stats=json", "--stats-file", stats.to_str().unwrap()]);
    assert!(scratch.run(&options, &["true"]).status().unwrap().success());
    let stats = serde_json::from_str(&fs::read_to_string(&stats).unwrap()).unwrap();
    assert_eq!(number(&stats, "/programs"), 1);
}

/// The environment, the name, the executable, the arguments, the auxiliary vector and the signal mask
/// are the program's own.
#[test]
fn nothing_shows_in_what_a_program_is_given() {
    let scratch = Scratch::new("given");
    assert_same(&scratch, &["sh", "-c", "env | grep -v ^TMPDIR= | sort"]);
    assert_same(&scratch, &["cat", "/proc/self/comm", "/proc/self/cmdline"]);
    assert_same(&scratch, &["readlink", "/proc/self/exe", "/proc/self/cwd"]);
    let kinds = "od -An -tu8 -w16 /proc/self/auxv | awk '{print $1}'";
    assert_same(&scratch, &["sh", "-c", kinds]);
    assert_same(&scratch, &["grep", "^Sig[BIC]", "/proc/self/status"]);
    assert_same(&scratch, &["grep", "^TracerPid", "/proc/self/status"]);
    assert_same(&scratch, &["sh", "-c", "ulimit -c; ulimit -s; ulimit -v; umask; nice"]);
}

/// A service manager names the process that it starts, in variables. A program ignores those that name another.
#[test]
fn variables_that_name_the_launcher_name_the_program() {
    let scratch = Scratch::new("named");
    let script = "LISTEN_PID=$$ WATCHDOG_PID=1 exec $RUN \
                  sh -c 'test $LISTEN_PID = $$ && echo $WATCHDOG_PID'";
    assert_eq!(output(&mut shell(&scratch, script)), ("1\n".into(), String::new(), Some(0)));
}

/// `argv[0]` is the given name, not the found path.
#[test]
fn the_name_is_the_one_that_was_given() {
    let scratch = Scratch::new("name");
    let (found, _, status) = output(&mut run(&scratch, &["sh", "-c", "cat /proc/$$/cmdline"]));
    assert!(found.starts_with("sh\0-c\0"), "{found:?}");
    assert_eq!(status, Some(0));
}

/// No memory of a program is both writable and executable, and the runtime's has the rights of its
/// segments.
#[test]
fn the_runtime_s_memory_is_protected() {
    let scratch = Scratch::new("protected");
    let (maps, ..) = output(&mut run(&scratch, &["cat", "/proc/self/maps"]));
    assert!(maps.contains("pagefault-control"), "{maps}");
    assert!(!maps.contains("rwx"), "{maps}");
    let is_ours = |line: &&str| line.contains(" r-xp ") && line.contains("pagefault-runtime");
    let code = maps.lines().filter(is_ours);
    // The code, and what loaded it, which this runtime keeps.
    assert_eq!(code.count(), 2, "{maps}");
}

#[test]
fn a_script_without_an_interpreter_is_the_shell_s() {
    let scratch = Scratch::new("noexec");
    write_executable(&scratch.path("plain"), "echo \"$0\" \"$1\"; exit 6\n");
    let (stdout, stderr, status) = output(&mut run(&scratch, &["./plain", "x"]));
    assert_eq!((&*stdout, &*stderr, status), ("./plain x\n", "", Some(6)));
}

#[test]
fn what_cannot_be_run() {
    let scratch = Scratch::new("cannot");
    fs::write(scratch.path("data"), "x").unwrap();
    let mut narrow = fs::read("/proc/self/exe").unwrap();
    narrow[4] = 1;
    write_executable(&scratch.path("narrow"), &narrow);
    let cases = [
        ("/no/such", 127, "not found"),
        ("no-such-program", 127, "not found"),
        ("./data", 126, "not executable"),
        ("./swap", 126, "directory"),
        ("./narrow", 126, "not for x86-64"),
    ];
    for (program, expected, word) in cases {
        let (stdout, stderr, status) = output(&mut run(&scratch, &[program]));
        assert_eq!((&*stdout, status), ("", Some(expected)), "{program}: {stderr}");
        assert!(stderr.contains(word) && stderr.contains(program), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn what_the_kernel_refuses_after_we_looked() {
    let scratch = Scratch::new("late");
    // A file that is open for writing cannot be executed (ETXTBSY).
    let program = scratch.path("busy");
    fs::copy("/bin/true", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let _writer = fs::OpenOptions::new().write(true).open(&program).unwrap();
    let (_, stderr, status) = output(&mut run(&scratch, &["./busy"]));
    assert_eq!(status, Some(126), "{stderr}");
    assert!(stderr.contains("busy"), "{stderr}");
}

#[test]
fn a_directory_that_is_gone() {
    let scratch = Scratch::new("gone");
    let script = "mkdir here && cd here && rmdir ../here && $RUN sh -c 'echo fine'";
    let (stdout, _, status) = output(&mut shell(&scratch, script));
    assert_eq!((&*stdout, status), ("fine\n", Some(0)));
}

#[test]
fn ignored_signals_stay_ignored_and_others_do_not_become_so() {
    let scratch = Scratch::new("ignored");
    let ignored = ["grep", "^SigIgn", "/proc/self/status"];
    for signal in [libc::SIGPIPE, libc::SIGCHLD, libc::SIGUSR1, libc::SIGTRAP] {
        for action in [libc::SIG_IGN, libc::SIG_DFL] {
            let [managed, plain] =
                [run(&scratch, &ignored), scratch.plain(&ignored)].map(|mut command| {
                    // SAFETY: setting an action is async-signal-safe.
                    unsafe {
                        command.pre_exec(move || {
                            libc::signal(signal, action);
                            Ok(())
                        });
                    }
                    output(&mut command)
                });
            assert_eq!(managed, plain, "signal {signal}, action {action}");
        }
    }
}

#[test]
fn a_runtime_that_is_none() {
    let scratch = Scratch::new("runtime");
    for (runtime, word) in
        [("/bin/sh", "static"), ("/etc/passwd", "damaged"), ("/none", "--runtime")]
    {
        let options = ["--delivery=inline", "--runtime", runtime];
        let (_, stderr, status) = output(&mut scratch.run(&options, &["true"]));
        assert_eq!(status, Some(125), "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
    assert!(Path::new(env!("PAGEFAULT_JUMP")).exists());
}
