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

/// A command's output on the host.
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

/// Many at once, in one machine.
#[test]
fn stress_ng_waits_shares_and_switches() {
    stress(&[
        "--brk",
        "1",
        "--brk-ops",
        "200",
        "--msync",
        "1",
        "--msync-bytes",
        "1M",
        "--msync-ops",
        "50",
        "--mincore",
        "1",
        "--mincore-ops",
        "20",
        "--shm",
        "1",
        "--shm-bytes",
        "1M",
        "--shm-ops",
        "4",
        "--pthread",
        "1",
        "--pthread-ops",
        "50",
        "--pipe",
        "1",
        "--pipe-ops",
        "200",
        "--switch",
        "1",
        "--switch-ops",
        "500",
        "--itimer",
        "1",
        "--itimer-ops",
        "20",
        "--timer",
        "1",
        "--timer-ops",
        "20",
        "--poll",
        "1",
        "--poll-ops",
        "20",
        "--eventfd",
        "1",
        "--eventfd-ops",
        "50",
    ]);
}

/// The same script on the PC and on the host, in an empty directory that both call by its name.
fn same_as_on_host(files: &Path, command: &[&str], script: &str, change: impl FnOnce(&mut Boot)) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    std::fs::create_dir_all(files.join(place.trim_start_matches('/'))).unwrap();
    let script = script.replace("PLACE", place);
    let command = [command, &[script.as_str()]].concat();
    let Some(ended) = boot(files, &command, change) else { return };
    expect(&ended, 0, &on_host(&command));
    assert!(!ended.report.contains("unknown_call"), "{}", ended.report);
}

#[test]
fn files_in_the_hands_of_coreutils() {
    let tools = [
        "cat",
        "chmod",
        "cmp",
        "comm",
        "cp",
        "cut",
        "dd",
        "du",
        "expr",
        "head",
        "install",
        "join",
        "ln",
        "ls",
        "mkdir",
        "mkfifo",
        "mv",
        "nl",
        "od",
        "paste",
        "readlink",
        "realpath",
        "rm",
        "rmdir",
        "sha256sum",
        "shuf",
        "sort",
        "split",
        "stat",
        "sync",
        "tac",
        "tail",
        "tee",
        "timeout",
        "touch",
        "tr",
        "truncate",
        "uniq",
        "wc",
    ];
    let paths: Vec<String> = tools.iter().map(|tool| format!("/usr/bin/{tool}")).collect();
    let mut programs: Vec<&str> = paths.iter().map(String::as_str).collect();
    programs.extend(["/usr/bin/seq", "/usr/bin/gzip", "/usr/bin/bash"]);
    if let Some(missing) = programs.iter().find(|program| !Path::new(program).exists()) {
        return eprintln!("skipped: {missing} is not there (Debian: coreutils, gzip, bash)");
    }
    let script = "export PATH=/usr/bin LC_ALL=C; set -e; cd PLACE; umask 022; \
        mkdir -p a/b/c; seq 1000 > n; cp -r a d; mv d e; ln -s ../n a/l; ln n h; readlink a/l; \
        realpath a/l; rm -rf e; truncate -s 1M t; dd if=/dev/zero of=z bs=4k count=10 2> /dev/null; \
        cp z y; cmp z y; install -m 751 n w; stat -c '%a %h %s %F' w n t; chmod 600 w; \
        touch -d '2020-01-02 03:04:05 UTC' w; stat -c '%a %Y' w; mkfifo p; (echo through > p &); \
        cat p; tee k < n > /dev/null; wc k; rmdir a/b/c; \
        split -l 100 n x; ls; tac xaa | head -n 2; seq 9 | paste -s -d+; nl xab | tail -n 1; \
        cut -c1-2 xac | uniq -c | head -n 2; od -c xad | head -n 2; shuf n | sort -n | sha256sum; \
        sort xaa > sa; sort xab > sb; \
        join sa sa | tail -n 1; comm -3 sa sb | head -n 2; comm -12 sa sb; tr a-z A-Z <<< hello; gzip -k xaa; \
        gzip -dc xaa.gz | cmp - xaa; timeout 0.2 cat p || expr $? : '12.*'; sync; [ -x w ] || echo no; \
        exec 3<> k; read -r first <&3; echo $first";
    same_as_on_host(dynamic(&programs).path(), &["/usr/bin/bash", "-c"], script, |_| ());
}

#[test]
fn perl_forks_waits_and_is_woken() {
    let program = "/usr/bin/perl";
    let Some(files) = installed(program, "perl-base") else { return };
    let script = "my %h; $h{$_ % 97} += $_ for 1..100000; print scalar(keys %h), ' ', $h{5}, qq(\n); \
        my $p = fork; if (!$p) { exit 3 } waitpid $p, 0; print $? >> 8, qq(\n); \
        $SIG{ALRM} = sub { print qq(alarm\n) }; alarm 1; my $n = select undef, undef, undef, 5; \
        pipe my $r, my $w; my $v = ''; vec($v, fileno $r, 1) = 1; \
        print scalar(select my $x = $v, undef, undef, 0.1), qq(\n); syswrite $w, 'x'; \
        print scalar(select $x = $v, undef, undef, undef), qq(\n); \
        my $t = 0; while ($t == 0) { $h{$_ % 97}++ for 1..1000; my @t = times; $t = $t[0] + $t[1] } \
        print qq(time is counted\n);";
    same_as_on_host(files.path(), &[program, "-e"], script, |_| ());
}

#[test]
fn sqlite_keeps_a_database_in_a_file() {
    let program = "/usr/bin/sqlite3";
    let Some(files) = installed(program, "sqlite3") else { return };
    let script = "create table t(a, b); insert into t values (1, 2); begin; \
        insert into t values (3, 4); commit; select sum(a * b) from t; pragma journal_mode = wal; \
        insert into t values (5, 6); select count(*) from t; vacuum; pragma integrity_check;";
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("new.db");
    std::fs::create_dir_all(files.path().join(directory.path().strip_prefix("/").unwrap()))
        .unwrap();
    same_as_on_host(files.path(), &[program, database.to_str().unwrap()], script, |_| ());
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
fn python_waits_for_threads_processes_and_signals() {
    let program = "/usr/bin/python3.11";
    let Some(files) = python(program) else { return };
    let script = "
import hashlib, json, os, select, signal, socket, subprocess, sys, tempfile, threading, time
digests = []
def work(i):
    digests.append(hashlib.sha256(json.dumps(list(range(i * 500))).encode()).hexdigest())
threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sorted(digests)[0], len(digests), threading.Event().wait(0.1))
print(time.process_time() > 0, time.thread_time() > 0, 2020 < time.gmtime().tm_year < 2100)
script = 'import sys; sys.stdout.write(sys.stdin.read()[:5]); sys.exit(4)'
child = subprocess.Popen([sys.executable, '-S', '-c', script], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
print(child.communicate(b'x' * 200000)[0], child.returncode)
r, w = os.pipe()
poll = select.poll()
poll.register(r, select.POLLIN)
print(poll.poll(50), os.write(w, b'1'), len(poll.poll(1000)))
epoll = select.epoll()
epoll.register(r, select.EPOLLIN)
print(len(epoll.poll(1)))
alarms = []
signal.signal(signal.SIGALRM, lambda *_: alarms.append('alarm'))
signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0)
print(alarms[0])
a, b = socket.socketpair()
a.send(b'hello')
print(b.recv(10))
with tempfile.NamedTemporaryFile(dir='PLACE') as file:
    file.write(b'z')
    file.flush()
    print(os.path.getsize(file.name))
";
    let change = |boot: &mut Boot| (boot.memory, boot.swap) = (160, 64);
    same_as_on_host(files.path(), &[program, "-S", "-c"], script, change);
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
