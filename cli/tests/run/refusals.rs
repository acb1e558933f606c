//! Programs and options that are refused: each with its status and a message that names the cause.

use crate::harness::{PAGEFAULT, Scratch, have, message, number, python, write_executable};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

/// Runs and returns the status and the message.
fn refused(scratch: &Scratch, options: &[&str], program: &str) -> (Option<i32>, String) {
    let output = scratch.run(options, &[program]).stdin(Stdio::null()).output().unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    scratch.assert_nothing_left();
    (output.status.code(), message(&output))
}

#[track_caller]
fn assert_refused(found: &(Option<i32>, String), status: i32, words: &[&str]) {
    assert_eq!(found.0, Some(status), "{found:?}");
    for word in words {
        assert!(found.1.contains(word), "{word:?} is not in {found:?}");
    }
}

#[test]
fn sizes() {
    let scratch = Scratch::new("sizes");
    let cases: [(&[&str], &str); 15] = [
        (&["--memory", "many"], "--memory"),
        (&["--memory", "1.5G"], "whole number"),
        (&["--memory", "10E"], "whole number"),
        (&["--memory", "99999999999T"], "2^64"),
        (&["--memory", "0"], "--memory 0: too small to work"),
        (&["--memory", "1"], "--memory 1: too small to work"),
        (&["--memory", "4K"], "--memory 4K: too small to work"),
        (&["--memory", "64K"], "too small to work"),
        (&["--swap", "ram:17T"], "17T of compressed RAM in all"),
        (&["--swap", "ram:16T", "--swap", "ram:64K"], "of compressed RAM in all"),
        (&["--swap", "ram:16777215T", "--swap", "ram:16777215T"], "of compressed RAM in all"),
        (&["--swap", "disk"], "a swap area is"),
        (&["--swap", "ram:1K"], "too small to hold a page"),
        (&["--swap", "file::4K"], "give at least 8192 bytes"),
        (&["--stats=xml"], "table, json"),
    ];
    for (options, word) in cases {
        assert_refused(&refused(&scratch, options, "true"), 125, &[word]);
    }
    let many = vec!["--swap=ram:64K"; 9];
    assert_refused(&refused(&scratch, &many, "true"), 125, &["at most 8 areas"]);
}

/// An absurd size takes no memory, and no addresses that the program needs.
#[test]
fn limits_beyond_any_machine() {
    let scratch = Scratch::new("beyond");
    let program = ["sh", "-c", "echo one; echo two | cat"];
    for limit in ["10T", "200T", "16777215T", "18446744073709551615"] {
        let stats = scratch.compare(limit, &program);
        assert!(number(&stats, "/peak_resident_bytes") > 0, "{limit}: not managed: {stats:#}");
    }
    let options = ["--memory", "16M", "--swap", "ram:16T", "--swap", "file::16777215T"];
    let output = scratch.run(&options, &program).stdin(Stdio::null()).output().unwrap();
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b"one\ntwo\n"[..]),
        "{output:?}"
    );
}

#[test]
fn a_limit_in_which_nothing_works_says_what_would() {
    let scratch = Scratch::new("least");
    let found = refused(&scratch, &["--memory", "1M"], "true");
    if found.0 == Some(0) {
        return;
    }
    assert_refused(&found, 125, &["too small to work; give at least"]);
}

#[test]
fn programs() {
    let scratch = Scratch::new("programs");
    let path = |name: &str| scratch.path(name).to_str().unwrap().to_owned();
    fs::write(scratch.path("data"), "data").unwrap();
    write_executable(&scratch.path("orphan"), "#!/no/such/interpreter\n");
    write_executable(&scratch.path("loop"), format!("#!{}\n", path("loop")));
    write_executable(&scratch.path("damaged"), "\x7fELF and nothing more");
    let mut narrow = fs::read("/proc/self/exe").unwrap();
    narrow[4] = 1;
    write_executable(&scratch.path("narrow"), &narrow);
    let mut other = fs::read("/proc/self/exe").unwrap();
    other[18] = 0xb7;
    write_executable(&scratch.path("other"), &other);
    let cases = [
        ("no-such-program".to_owned(), 127, "not found"),
        ("/no/such/program".to_owned(), 127, "not found"),
        (path("data"), 126, "not executable"),
        (path("swap"), 126, "is a directory"),
        (path("orphan"), 126, "/no/such/interpreter was not found"),
        (path("loop"), 126, "too many nested interpreters"),
        (path("damaged"), 126, "damaged"),
        (path("narrow"), 126, "not for x86-64"),
        (path("other"), 126, "not for x86-64"),
    ];
    for (program, status, word) in cases {
        assert_refused(&refused(&scratch, &[], &program), status, &[word, &program]);
    }
}

#[test]
fn swap_files() {
    let scratch = Scratch::new("swapfiles");
    fs::write(scratch.path("thesis"), "years of work").unwrap();
    let area = |name: &str| format!("--swap=file:{}", scratch.path(name).display());
    let cases = [
        (area("swap"), "is a directory"),
        (area("no/such/place"), "No such file or directory"),
        (area("thesis"), "holds something that would be overwritten"),
        ("--swap=file:/dev/null".to_owned(), "neither a file nor a block device"),
        ("--swap=file:/proc/version".to_owned(), "swap file /proc/version"),
    ];
    for (option, word) in cases {
        assert_refused(&refused(&scratch, &[&option], "true"), 125, &[word]);
    }
    assert_eq!(fs::read(scratch.path("thesis")).unwrap(), b"years of work");

    let mut command = scratch.run(&[], &["true"]);
    let output = command.env("TMPDIR", scratch.path("none")).output().unwrap();
    assert_refused(&(output.status.code(), message(&output)), 125, &["No such file"]);
}

/// Runs a script in its own mount namespace, with a small file system at `swap` and the command as
/// `$0`; `None` if that is not allowed.
fn on_small_disk(scratch: &Scratch, size: &str, script: &str) -> Option<Output> {
    if !have("unshare") {
        return None;
    }
    let script = format!("mount -t tmpfs -o size={size} none swap || exit 77; {script}");
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", &script, crate::harness::PAGEFAULT])
        .current_dir(scratch.path("."))
        .env("TMPDIR", "swap")
        .output()
        .unwrap();
    if output.status.code() == Some(77) || message(&output).contains("unshare") {
        eprintln!("skipped: no right to mount: {}", message(&output));
        return None;
    }
    Some(output)
}

#[test]
fn a_full_disk() {
    let scratch = Scratch::new("full");
    let script = "exec \"$0\" run --swap file:swap/area -- true";
    let Some(output) = on_small_disk(&scratch, "4k", script) else { return };
    assert_refused(&(output.status.code(), message(&output)), 125, &["swap/area", "No space left"]);
}

/// The default file may find no room on disk: RAM must be enough.
#[test]
fn a_full_disk_that_was_not_asked_for() {
    let scratch = Scratch::new("unasked");
    // Too small for any file, and with less than a twentieth free.
    for (size, fill) in [("4k", 0), ("1m", 1000)] {
        let script = format!("head -c {fill}k /dev/zero > swap/fill; exec \"$0\" run -- echo fine");
        let Some(output) = on_small_disk(&scratch, size, &script) else { return };
        assert_eq!((&*message(&output), output.status.code()), ("", Some(0)));
        assert_eq!(output.stdout, b"fine\n");
    }
    let program = "import os; x = [os.urandom(4000) for _ in range(1 << 20)]";
    let script = format!("exec \"$0\" run --memory 8M -- {} -c '{program}'", python());
    let Some(output) = on_small_disk(&scratch, "4k", &script) else { return };
    let found = (output.status.code(), message(&output));
    assert_refused(&found, 125, &["out of memory", "/swap", "free some space"]);
}

/// A disk that fills meanwhile ends the program, with a message that names it.
#[test]
fn a_disk_that_fills() {
    let scratch = Scratch::new("fills");
    let program = "import os; x = [os.urandom(4000) for _ in range(1 << 20)]";
    let script = format!("exec \"$0\" run --memory 8M -- {} -c '{program}'", python());
    let Some(output) = on_small_disk(&scratch, "6m", &script) else { return };
    let found = (output.status.code(), message(&output));
    assert_refused(&found, 125, &["out of memory", "/swap", "less than 5 % left"]);
}

/// Nor does a call wait for ever that needs more pages at once than can still be in memory.
#[test]
fn a_disk_that_fills_under_long_calls() {
    let programs = [
        "import os; x = [os.urandom(1 << 20) for _ in range(60)]",
        "import os; f = os.open('/dev/urandom', 0); \
         x = [[bytearray(1 << 18) for _ in range(8)] for _ in range(60)]; [os.readv(f, y) for y in x]",
    ];
    for (delivery, program) in ["inline", "threads"].into_iter().zip(programs) {
        let scratch = Scratch::new("long-calls");
        let script = format!(
            "exec \"$0\" run --delivery={delivery} --memory 8M --swap file:swap/area -- {} -c \"{program}\"",
            python()
        );
        let Some(output) = on_small_disk(&scratch, "2m", &script) else { return };
        let found = (output.status.code(), message(&output));
        assert_refused(&found, 125, &["out of memory", "swap/area", "less than 5 % left"]);
    }
}

/// Nor need the usual directories be writable, as in a container.
#[test]
fn no_directory_for_a_file_that_was_not_asked_for() {
    let scratch = Scratch::new("unwritable");
    let cases = [
        ("/var/tmp", "exec", ""),
        ("/var/tmp", "mount -t tmpfs -o ro none /tmp || exit 77; exec", "compressed RAM alone"),
    ];
    for (place, then, word) in cases {
        let script = format!(
            "mount -t tmpfs -o ro none {place} || exit 77; unset TMPDIR; {then} \"$0\" run -- echo fine"
        );
        let Some(output) = on_small_disk(&scratch, "1m", &script) else { return };
        assert_eq!(
            (&*output.stdout, output.status.code()),
            (&b"fine\n"[..], Some(0)),
            "{output:?}"
        );
        assert_eq!(message(&output).contains("compressed"), !word.is_empty(), "{output:?}");
        assert!(message(&output).contains(word), "{output:?}");
    }
}

#[test]
fn no_proc() {
    let scratch = Scratch::new("noproc");
    let script = "mount -t tmpfs none /proc || exit 77; exec \"$0\" run --swap ram -- true";
    let Some(output) = on_small_disk(&scratch, "1m", script) else { return };
    assert_refused(&(output.status.code(), message(&output)), 125, &["/proc is not mounted"]);
}

/// Runs a script plain and managed.
fn both(scratch: &Scratch, limits: &str, script: &str) -> [Output; 2] {
    let shell = |words: &str| {
        let words = format!("{limits}; exec {words} sh -c '{script}'");
        scratch.plain(&["sh", "-c", &words, PAGEFAULT]).output().unwrap()
    };
    [shell(""), shell("\"$0\" run --swap ram --")]
}

/// The caller's limits are meant for the program: they stop neither us nor it.
#[test]
fn small_limits_of_the_caller() {
    let scratch = Scratch::new("caller");
    let script = "ulimit -Sf; ulimit -Hf; ulimit -Ss; ulimit -Hs; \
                  head -c 80000 /dev/zero > file; echo $?; wc -c < file";
    for limits in ["ulimit -Sf 100", "ulimit -Ss 64", "ulimit -Sf 100; ulimit -Ss 96"] {
        let [plain, managed] = both(&scratch, limits, script);
        assert_eq!(managed, plain, "{limits}");
    }
}

/// If the hard limit of file sizes leaves us no shared memory, we say so.
#[test]
fn a_hard_limit_of_file_sizes() {
    let scratch = Scratch::new("hard");
    for blocks in [0, 100] {
        let [plain, managed] = both(&scratch, &format!("ulimit -f {blocks}"), "ulimit -Hf");
        // A privileged user raises it.
        if managed != plain {
            let found = (managed.status.code(), message(&managed));
            assert_refused(&found, 125, &["ulimit -f", "hard limit"]);
        }
    }
}

#[test]
fn a_file_for_statistics_that_cannot_be_written() {
    let scratch = Scratch::new("statsfile");
    let found = refused(&scratch, &["--stats-file", "/no/such/file"], "true");
    assert_refused(&found, 125, &["--stats-file /no/such/file"]);
}

/// A program that needs more than memory and swap is stopped with a message, not left hanging.
#[test]
fn out_of_memory() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("oom");
    let program = "
import os
x = []
while True:
    x.append(os.urandom(4000))
";
    let options = ["--memory", "8M", "--swap", "ram:1M", "--swap", "file::4M"];
    let output = scratch.run(&options, &[python(), "-c", program]).output().unwrap();
    let found = (output.status.code(), message(&output));
    assert_refused(&found, 125, &["out of memory", "full", "--swap ram:1M --swap file::4M"]);
    scratch.assert_nothing_left();
    // The same after a child has been stopped with a message of its own.
    let twice = format!("{0} -c '{program}'; echo child $?; exec {0} -c '{program}'", python());
    let options = [&["--delivery=threads"], &options[..]].concat();
    let output = scratch.run(&options, &["sh", "-c", &twice]).output().unwrap();
    assert!(output.stdout.starts_with(b"child 1"), "{output:?}");
    assert_refused(
        &(output.status.code(), message(&output)),
        125,
        &["/sh: out of memory", "stopped process"],
    );
    scratch.assert_nothing_left();
}

/// Under a limit of addresses the tables shrink to fit; if they cannot, the message says why.
#[test]
fn limited_addresses() {
    let scratch = Scratch::new("addresses");
    let run = |limit: &str| {
        let script = format!("ulimit {limit}; exec \"$0\" run --memory 64M -- true");
        let mut command = Command::new("sh");
        command.args(["-c", &script, crate::harness::PAGEFAULT]);
        let output = command.env("TMPDIR", scratch.path("swap")).output().unwrap();
        (output.status.code(), message(&output))
    };
    for enough in ["-v 1000000", "-d 1000000"] {
        assert_eq!(run(enough), (Some(0), String::new()), "{enough}");
    }
    assert_refused(&run("-v 30000"), 125, &["address", "ulimit -v"]);
}

/// The same where the heap is the first to be refused memory: the limit is to blame, not a defect.
#[test]
fn limited_addresses_of_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let script = "ulimit -v 65536; exec \"$0\" run --memory 1G --swap ram:512M -- true";
    let mut command = Command::new("sh");
    command.args(["-c", script, crate::harness::PAGEFAULT]).uid(65534).gid(65534);
    let output = command.current_dir("/").output().unwrap();
    let found = (output.status.code(), message(&output));
    assert_refused(&found, 125, &["address", "ulimit -v"]);
    assert!(!found.1.contains("defect"), "{}", found.1);
}

/// If something else writes to a swap file, the program ends rather than read a wrong byte.
#[test]
fn a_swap_file_that_lies() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("lies");
    let program = "
import os
x = [os.urandom(4000) for _ in range(8000)]
area = open('area', 'r+b')
size = os.fstat(area.fileno()).st_size
for at in range(4096, size, 1 << 20):
    area.seek(at)
    area.write(bytes(min(1 << 20, size - at)))
area.flush()
print(sum(map(len, map(bytes.hex, x))))
";
    let options = ["--memory", "12M", "--swap", "file:area:1G"];
    let output = scratch.run(&options, &[python(), "-c", program]).output().unwrap();
    assert_refused(
        &(output.status.code(), message(&output)),
        125,
        &["/area: a page came back other than it was written"],
    );
}
