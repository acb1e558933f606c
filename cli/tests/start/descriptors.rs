//! Descriptors: the caller's stay unchanged, and ours block nobody.

use crate::harness::{Scratch, have};
use crate::{output, shell, shell_of, wait_until};
use std::time::{Duration, Instant};

#[test]
fn standard_streams_that_are_closed_stay_closed() {
    let scratch = Scratch::new("closed");
    let look = "for n in 0 1 2; do [ -e /proc/$$/fd/$n ] && echo $n >>found; done; :";
    for (streams, left) in [
        ("<&-", "1\n2\n"),
        (">&-", "0\n2\n"),
        ("2>&-", "0\n1\n"),
        ("<&- >&- 2>&-", ""),
        ("", "0\n1\n2\n"),
    ] {
        let script = format!(": >found; $RUN sh -c '{look}' {streams}; echo $? >status");
        shell(&scratch, &script).output().unwrap();
        let read = |name| std::fs::read_to_string(scratch.path(name)).unwrap();
        // At most, the shell opens a file for its own commands: no descriptor below three is ours.
        assert_eq!((&*read("found"), &*read("status")), (left, "0\n"), "{streams}");
    }
}

/// Ours are above the program's limit, and the program has those that it was given.
#[test]
fn other_descriptors_are_the_caller_s() {
    if !have("bash") {
        return;
    }
    let scratch = Scratch::new("others");
    let script = |run: &str| {
        let look = "echo x >&7; readlink /proc/self/fd/63; echo /proc/self/fd/*";
        let script = format!("ulimit -Sn 64; exec 7>seven; exec 63>last; {run} sh -c '{look}'");
        output(&mut shell_of("bash", &scratch, &script))
    };
    let (managed, plain) = (script("$RUN"), script(""));
    assert!(plain.0.contains("/last\n"), "{plain:?}");
    let ours = [124, 125, 126, 127].map(|number| format!(" /proc/self/fd/{number}"));
    assert!(ours.iter().all(|ours| managed.0.contains(ours)), "{managed:?}");
    let rest = ours.iter().fold(managed.0.clone(), |text, ours| text.replace(ours, ""));
    assert_eq!((rest, managed.1, managed.2), plain);
    assert_eq!(std::fs::read_to_string(scratch.path("seven")).unwrap(), "x\n");
}

#[test]
fn a_low_limit_of_descriptors() {
    let scratch = Scratch::new("low");
    // The tests may start with open descriptors.
    let close = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-";
    // The command's own simultaneous need decides where it ends.
    for limit in [20, 16, 12] {
        let script = format!("{close}; ulimit -Sn {limit}; $RUN sh -c 'echo fine'");
        let (stdout, stderr, status) = output(&mut shell(&scratch, &script));
        assert_eq!((&*stdout, status), ("fine\n", Some(0)), "{limit}: {stderr}");
    }
    // With too few descriptors a message says so, and nothing hangs.
    let script = format!("{close}; ulimit -n 4; $RUN echo fine");
    let (stdout, stderr, status) = output(&mut shell(&scratch, &script));
    assert_eq!((&*stdout, status), ("", Some(125)), "{stderr}");
    assert!(stderr.contains("pagefault: "), "{stderr}");
}

#[test]
fn an_enormous_limit_of_descriptors_costs_no_table() {
    let scratch = Scratch::new("high");
    let script = "ulimit -Sn $(ulimit -Hn); $RUN sh -c 'ls /proc/self/fd | sort -n | tail -n 1'";
    let (stdout, ..) = output(&mut shell(&scratch, script));
    assert!(stdout.trim().parse::<u32>().unwrap() <= 4097, "{stdout}");
}

/// A daemon of the tree keeps the supervisor alive. A reader of our output until its end waits for
/// neither.
#[test]
fn nobody_waits_for_the_supervisor() {
    let scratch = Scratch::new("daemon");
    let script = "$RUN sh -c 'sleep 1000 <&- >&- 2>&- & echo $! >daemon; echo out; echo err >&2'";
    let began = Instant::now();
    let (stdout, stderr, status) = output(&mut shell(&scratch, script));
    assert_eq!((&*stdout, &*stderr, status), ("out\n", "err\n", Some(0)));
    assert!(began.elapsed() < Duration::from_secs(900), "it waited for the daemon");

    let daemon: i32 =
        std::fs::read_to_string(scratch.path("daemon")).unwrap().trim().parse().unwrap();
    let supervisor = supervisor_of(daemon);
    for stream in 0..3 {
        let target = std::fs::read_link(format!("/proc/{supervisor}/fd/{stream}")).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"));
    }
    assert_eq!(std::fs::read_link(format!("/proc/{supervisor}/cwd")).unwrap().to_str(), Some("/"));
    // SAFETY: kill asks nothing of its caller.
    unsafe { libc::kill(daemon, libc::SIGKILL) };
    wait_until(|| crate::ends::is_gone(supervisor));
}

/// The supervisor of the tree that a process belongs to: the one at the other end of its socket.
pub fn supervisor_of(process: i32) -> i32 {
    let mut found = Vec::new();
    let memory = control_memory(process).expect("the process has the control memory");
    for entry in std::fs::read_dir("/proc").unwrap() {
        let Ok(number) = entry.unwrap().file_name().to_str().unwrap().parse::<i32>() else {
            continue;
        };
        let name = std::fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
        if name == "pagefault-super\n" && control_memory(number) == Some(memory) {
            found.push(number);
        }
    }
    assert_eq!(found.len(), 1, "supervisors of {process}: {found:?}");
    found[0]
}

/// The inode of the control memory that a process has mapped or open.
fn control_memory(process: i32) -> Option<u64> {
    let inode = |line: &str| line.split_whitespace().nth(4)?.parse().ok();
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    if let Some(line) = maps.lines().find(|line| line.contains("pagefault-control")) {
        return inode(line);
    }
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    open.filter_map(|entry| {
        use std::os::unix::fs::MetadataExt;
        let path = entry.ok()?.path();
        let is_ours = std::fs::read_link(&path).ok()?.to_str()?.contains("pagefault-control");
        is_ours.then(|| std::fs::metadata(&path).ok().map(|file| file.ino())).flatten()
    })
    .next()
}
