//! `--trace` and `--report` say what happened.

use crate::harness::{PAGEFAULT, Scratch, compile, have, number, python};
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = "
x = [b'%d' % i * 500 for i in range(16000)]
print(sum(map(len, x)))
print(sum(map(len, x)), sum(y[0] for y in x) > 0)
";

/// A process that runs for ever, with a child that does too.
const ENDLESS: &str = "
import os
os.fork()
x = [bytearray(b'%d' % i * 500) for i in range(8000)]
while True:
    for y in x: y[0] ^= 1
";

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn events(trace: &Value) -> &[Value] {
    trace["traceEvents"].as_array().unwrap()
}

/// Runs a program to its end and returns its trace and its statistics.
fn traced(scratch: &Scratch, memory: &str, program: &[&str]) -> (Value, Value) {
    let (trace, stats) = (scratch.path("trace.json"), scratch.path("stats.json"));
    let options = [
        "--memory",
        memory,
        "--trace",
        trace.to_str().unwrap(),
        "--stats=json",
        "--stats-file",
        stats.to_str().unwrap(),
    ];
    let output = scratch.run(&options, program).output().unwrap();
    let plain = scratch.plain(program).output().unwrap();
    assert_eq!(output.stdout, plain.stdout, "{output:?}");
    assert_eq!(output.stderr, plain.stderr);
    (json(&trace), json(&stats))
}

#[test]
fn a_trace_has_every_fault_and_says_how_many_it_lacks() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("trace");
    let (trace, stats) = traced(&scratch, "16M", &[python(), "-c", PROGRAM]);
    let of = |phase: &'static str| events(&trace).iter().filter(move |event| event["ph"] == phase);
    // A complete event includes its end, so none is left open.
    let phases: HashSet<&str> =
        events(&trace).iter().map(|event| event["ph"].as_str().unwrap()).collect();
    assert_eq!(phases, HashSet::from(["X", "i", "C", "M"]));
    let processes: HashSet<u64> = of("M").map(|event| number(event, "/pid")).collect();
    for event in of("X") {
        assert!(event["ts"].as_f64().unwrap() >= 0.0 && event["dur"].as_f64().unwrap() >= 0.0);
        assert!(processes.contains(&number(event, "/pid")), "{event}");
        let is_fault = event["cat"] == "fault";
        let page = event["args"]["page"].as_str();
        assert_eq!(page.is_some_and(|page| page.starts_with("0x")), is_fault, "{event}");
    }
    // The program fits at first; then its pages are taken over, once.
    let takeovers = of("X").filter(|event| event["name"] == "takeover").count() as u64;
    assert_eq!(takeovers, number(&stats, "/takeovers"));
    assert_eq!(takeovers, 1);
    assert!(number(&stats, "/taken_over_pages") > 0, "{stats:#}");
    let lost = of("M").find(|event| event["name"] == "events lost").unwrap();
    let lost = number(lost, "/args/count");
    for (name, count) in stats["faults"].as_object().unwrap() {
        if ["minor", "major"].contains(&name.as_str()) {
            continue;
        }
        let traced = of("X").chain(of("i")).filter(|event| event["name"] == name.as_str()).count();
        let missing = count.as_u64().unwrap().checked_sub(traced as u64);
        assert!(missing.is_some_and(|missing| missing <= lost), "{traced} of {count} {name}");
    }
    assert!(of("i").any(|event| event["name"] == "evicted"));
    let most =
        of("C").filter(|event| event["pid"] == 0).map(|event| number(event, "/args/charged KiB"));
    assert!((1..=16 << 10).contains(&most.max().unwrap()));
}

#[test]
fn forks_are_seen_and_so_is_what_their_children_do() {
    let scratch = Scratch::new("traced-fork");
    if !have("python3") {
        return;
    }
    let program = "
import os, sys
x = [b'%d' % i * 500 for i in range(4000)]
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        y = [b'%d' % i * 500 for i in range(4000)]
        os._exit(len(y) != 4000)
    children.append(child)
print(all(os.waitpid(child, 0)[1] == 0 for child in children))
";
    let (trace, stats) = traced(&scratch, "16M", &[python(), "-c", program]);
    let faulting: HashSet<u64> = events(&trace)
        .iter()
        .filter(|event| event["ph"] == "X")
        .map(|event| number(event, "/pid"))
        .collect();
    assert_eq!(faulting.len(), 4);
    let forks = events(&trace).iter().filter(|event| event["name"] == "fork").count();
    assert_eq!((forks, number(&stats, "/forks")), (3, 3));
}

/// A running command, killed with its program when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The group is its own: see `start`.
        let _ = Command::new("kill").args(["-9", "--", &format!("-{}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}

fn start(mut command: Command) -> Running {
    use std::os::unix::process::CommandExt;
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

/// Waits for a condition.
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !happened() {
        assert!(begin.elapsed() < Duration::from_secs(120), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_trace_can_be_opened_however_the_run_ends() {
    if !have("python3") {
        return;
    }
    // Thousands of faults, and then few at a time: a trace that grows faster than it can be read fills the
    // disk, and is never read whole.
    let program = "
import os, time
os.fork()
x = [bytearray(b'%d' % i * 500) for i in range(8000)]
while True:
    for y in x:
        y[0] ^= 1
        time.sleep(0.002)
";
    let scratch = Scratch::new("trace-killed");
    let path = scratch.path("trace.json");
    let options = ["--memory", "8M", "--trace", path.to_str().unwrap()];
    let mut running = start(scratch.run(&options, &[python(), "-c", program]));
    let faults = |trace: &Value| events(trace).iter().filter(|event| event["ph"] == "X").count();
    // It can be read while it is written; a read in the middle of a write may be cut off.
    until("a thousand faults", || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        serde_json::from_str::<Value>(&text).is_ok_and(|trace| faults(&trace) > 1000)
    });
    running.0.kill().unwrap();
    assert_eq!(running.0.wait().unwrap().signal(), Some(9));
    assert!(faults(&json(&path)) > 1000);
}

#[test]
fn a_process_that_is_killed_does_not_hold_the_others_up() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("trace-member");
    let program = "
import os, signal
for _ in range(5):
    child = os.fork()
    if child == 0:
        while True: x = [b'%d' % i * 500 for i in range(3000)]
    x = [b'%d' % i * 500 for i in range(3000)]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(len(x))
";
    let (trace, _) = traced(&scratch, "8M", &[python(), "-c", program]);
    assert!(events(&trace).iter().filter(|event| event["ph"] == "X").count() > 1000);
}

#[test]
fn the_page_shows_what_the_statistics_say() {
    if !have("python3") {
        return;
    }
    let Some(browser) = crate::browser::find() else { return };
    let scratch = Scratch::new("report");
    let (page, stats) = (scratch.path("report.html"), scratch.path("stats.json"));
    let options = [
        "--memory",
        "16M",
        "--report",
        page.to_str().unwrap(),
        "--stats=json",
        "--stats-file",
        stats.to_str().unwrap(),
    ];
    let output = scratch.run(&options, &[python(), "-c", PROGRAM]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let stats = json(&stats);
    assert!(fs::metadata(&page).unwrap().len() < 5 << 20);
    let seen = crate::browser::checked(browser, &page, &scratch.path("profile"));
    let shown = &seen["seen"];
    assert_eq!(seen["errors"], Value::Array(Vec::new()));
    assert_eq!(shown["data"]["stats"], stats);
    let plain = |value: &Value| value.as_str().unwrap().replace('\u{202f}', "");
    let faults = number(&stats, "/faults/minor") + number(&stats, "/faults/major");
    assert_eq!(plain(&shown["numbers"]["faults"]), faults.to_string());
    let swap = |field: &str| -> u64 {
        stats["swap"].as_array().unwrap().iter().map(|area| number(area, field)).sum()
    };
    assert_eq!(plain(&shown["numbers"]["out"]), swap("/pages_out").to_string());
    assert_eq!(plain(&shown["numbers"]["back"]), swap("/pages_in").to_string());
    let flow: Vec<String> = shown["flow"].as_array().unwrap().iter().map(plain).collect();
    for name in ["anonymous", "swap_in", "first_store"] {
        let count = number(&stats, &format!("/faults/{name}")).to_string();
        assert!(flow.contains(&count), "{name}: {count} is not in {flow:?}");
    }
    assert!(number(shown, "/charts") >= 4 && number(shown, "/map") == 1, "{shown:#}");
    for part in ["latency", "places", "curve", "tiers", "ahead"] {
        assert!(number(shown, &format!("/rows/{part}")) > 0, "{part}: {shown:#}");
    }
    let table = shown["table"].as_str().unwrap();
    assert!(table.contains("peak resident") && table.contains(&format!("{faults} (")), "{table}");
    // All values begin in one column.
    let column = table.lines().next().unwrap().rfind("  ").unwrap() + 2;
    let begins =
        |line: &str| line.get(column - 1..=column).is_some_and(|at| at.trim_start().len() == 1);
    assert!(table.lines().all(begins), "{table}");
}

/// The data of a program's report.
fn reported(scratch: &Scratch, program: &[&str]) -> Value {
    let page = scratch.path("report.html");
    let options = ["--memory", "16M", "--report", page.to_str().unwrap()];
    let output = scratch.run(&options, program).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(&page).unwrap();
    let (_, rest) = text.split_once("id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

/// Forks are events too, and each child is a process that a report knows.
#[test]
fn a_report_has_a_map_of_the_program_that_comes_after_hundreds() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("many-maps");
    let program = "
import os
for _ in range(300):
    child = os.fork()
    if child == 0: os._exit(0)
    os.waitpid(child, 0)
x = [b'%d' % i * 500 for i in range(16000)]
";
    let data = reported(&scratch, &[python(), "-c", program]);
    assert_eq!(number(&data, "/stats/forks"), 300);
    let maps = data["maps"]["processes"].as_array().unwrap();
    assert!(maps.iter().any(|map| !map["rows"].as_array().unwrap().is_empty()), "{maps:#?}");
    let shown = data["time"]["processes"].as_array().unwrap();
    // A child may end before its name can be read, but not one that lives from one sample to the next.
    let samples = |process: &Value| {
        let resident = process["resident_bytes"].as_array().unwrap();
        resident.iter().filter(|bytes| bytes.as_u64() != Some(0)).count()
    };
    let is_known = |process: &Value| process["name"] != "?" || samples(process) < 2;
    assert!(shown.iter().all(is_known), "{:#}", data["time"]["processes"]);
}

/// A stripped program still says where its functions begin.
#[test]
fn a_report_tells_the_functions_of_a_stripped_program_apart() {
    if !have("strip") {
        return;
    }
    let scratch = Scratch::new("stripped");
    let Some(program) = compile(&scratch, "evicted") else { return };
    assert!(Command::new("strip").arg(&program).status().unwrap().success());
    let data = reported(&scratch, &[&program]);
    let places = data["places"]["top"].as_array().unwrap();
    let own: Vec<&Value> =
        places.iter().filter(|place| place["file"].as_str() == Some(&program)).collect();
    assert!(!own.is_empty(), "{:#}", data["places"]);
    assert!(own.iter().all(|place| place["offset_of"] == "function"), "{own:#?}");
}

#[test]
fn a_report_names_the_function_that_faults() {
    let scratch = Scratch::new("symbols");
    let Some(program) = compile(&scratch, "evicted") else { return };
    let data = reported(&scratch, &[&program]);
    let places = data["places"]["top"].as_array().unwrap();
    let named = places.iter().any(|place| {
        place["file"].as_str() == Some(&program) && place["function"].as_str().is_some()
    });
    assert!(named, "{:#}", data["places"]);
}

#[test]
fn an_output_that_cannot_be_made_is_said_before_the_program_runs() {
    let scratch = Scratch::new("no-output");
    for option in ["--trace", "--report"] {
        let options = [option, "/no/such/place"];
        let output = scratch.run(&options, &["echo", "it ran"]).output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/place"));
    }
}

fn pagefault(arguments: &[&str]) -> std::process::Output {
    Command::new(PAGEFAULT).args(arguments).output().unwrap()
}

/// What `top` shows of a tree, found by any of its processes.
fn tree(pid: u32) -> Option<Value> {
    let output = pagefault(&["top", "--json", &pid.to_string()]);
    let trees: Value = serde_json::from_slice(&output.stdout).ok()?;
    trees["trees"].get(0).cloned()
}

/// A reader that has gone is no reason to fail.
#[test]
fn nobody_need_read_what_top_and_ctl_say() {
    let scratch = Scratch::new("unread");
    let running = start(scratch.run(&["--memory", "16M"], &["sleep", "1000"]));
    let pid = running.0.id().to_string();
    until("the tree is there", || tree(running.0.id()).is_some());
    for arguments in [&["top", &pid][..], &["top", "--json", &pid], &["ctl", &pid]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(PAGEFAULT)
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_lower_limit_evicts_and_a_higher_one_lets_grow() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("ctl");
    let running = start(scratch.run(&["--memory", "16M"], &[python(), "-c", ENDLESS]));
    let pid = running.0.id();
    let resident = || tree(pid).map_or(0, |tree| number(&tree, "/resident_bytes"));
    until("the limit is in use", || resident() > 14 << 20);

    let lowered = pagefault(&["ctl", &pid.to_string(), "--memory", "6M"]);
    assert!(lowered.status.success(), "{lowered:?}");
    for _ in 0..5 {
        assert!(resident() <= 6 << 20, "{}", resident());
    }
    // By a member of the tree, too: and the program needs more than it was started with.
    let member = number(&tree(pid).unwrap(), "/processes/0/pid");
    let raised = pagefault(&["ctl", &member.to_string(), "--memory", "24M"]);
    assert!(raised.status.success(), "{raised:?}");
    until("more is resident than at the start", || resident() > 17 << 20);
    let tree = tree(pid).unwrap();
    assert_eq!(number(&tree, "/limit_bytes"), 24 << 20);
    assert_eq!(tree["processes"].as_array().unwrap().len(), 2);
}

/// A process that blocks every signal is still asked for memory, and does not see that signal.
#[test]
fn a_lower_limit_holds_where_every_signal_is_blocked() {
    let scratch = Scratch::new("ctl-blocked");
    let Some(program) = compile(&scratch, "pressed") else { return };
    for way in ["call", "descriptor"] {
        let mut command = scratch.run(&["--memory", "16M"], &[&program, way]);
        let mut launcher = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(launcher.stdout.take().unwrap()).lines().map(Result::unwrap);
        let pid = lines.next().unwrap();
        let lowered = pagefault(&["ctl", &pid, "--memory", "4M"]);
        assert!(lowered.status.success(), "{way}: {lowered:?}");
        for signal in [libc::SIGURG, libc::SIGUSR1, libc::SIGTERM] {
            // SAFETY: kill asks nothing of its caller.
            assert_eq!(unsafe { libc::kill(pid.parse().unwrap(), signal) }, 0);
            assert_eq!(lines.next().unwrap(), format!("signal {signal}"), "{way}");
        }
        assert_eq!(lines.next().unwrap(), "sum -1536", "{way}");
        assert!(launcher.wait().unwrap().success(), "{way}");
    }
}

#[test]
fn what_cannot_be_a_limit_is_refused_and_changes_nothing() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("ctl-refused");
    let running = start(scratch.run(&["--memory", "16M"], &[python(), "-c", ENDLESS]));
    let pid = running.0.id().to_string();
    until("the tree is there", || tree(running.0.id()).is_some());
    let refused = |arguments: &[&str], why: &str| {
        let output = pagefault(arguments);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(why), "{why} is not in {text}");
    };
    refused(&["ctl", &pid, "--memory", "64K"], "too small");
    refused(&["ctl", &pid, "--memory", "1G"], "at most 64M");
    refused(&["ctl", &std::process::id().to_string(), "--memory", "8M"], "not in a managed tree");
    refused(&["ctl", "2147483647", "--memory", "8M"], "no such process");
    assert_eq!(number(&tree(running.0.id()).unwrap(), "/limit_bytes"), 16 << 20);
}

/// `top` of a tree in a terminal of a size, after it has drawn for a while.
fn screen(scratch: &Scratch, tree: u32, name: &str, size: (u32, u32), keys: &[&str]) -> String {
    let socket = scratch.path(name);
    let tmux = |arguments: &[&str]| {
        Command::new("tmux").arg("-S").arg(&socket).args(arguments).output().unwrap()
    };
    let (x, y) = (size.0.to_string(), size.1.to_string());
    // Only this tree: others on the machine would take its room.
    let top = format!("{PAGEFAULT} top {tree}");
    let began = tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &x, "-y", &y, &top]);
    assert!(began.status.success(), "{began:?}");
    let shown = || String::from_utf8(tmux(&["capture-pane", "-p"]).stdout).unwrap();
    until("a second look", || shown().contains("swap-in") && !shown().contains("      0 ─┬─"));
    for key in keys {
        tmux(&["send-keys", key]);
    }
    if !keys.is_empty() {
        until("the keys are obeyed", || shown().contains("limit is 8M"));
    }
    let text = shown();
    tmux(&["send-keys", "q"]);
    until("q ends it", || !tmux(&["has-session"]).status.success());
    text
}

#[test]
fn top_fits_small_and_large_terminals_and_changes_limits() {
    if !have("python3") || !have("tmux") {
        return;
    }
    let scratch = Scratch::new("top");
    let running = start(scratch.run(&["--memory", "16M"], &[python(), "-c", ENDLESS]));
    let pid = running.0.id();
    until("it has faults", || {
        tree(pid).is_some_and(|tree| number(&tree, "/faults/swap_in/total") > 1000)
    });
    for (name, size) in [("small", (80, 24)), ("large", (200, 50))] {
        let text = screen(&scratch, pid, name, size, &[]);
        assert_eq!(text.lines().count(), size.1 as usize, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= size.0 as usize), "{text}");
        for part in ["PID", &pid.to_string(), "16M", "swap-in", "resident", "Processes", "quit"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
    screen(&scratch, pid, "limit", (80, 24), &["l", "8", "M", "Enter"]);
    assert_eq!(number(&tree(pid).unwrap(), "/limit_bytes"), 8 << 20);
}

#[test]
fn without_a_terminal_top_prints_a_table() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("top-table");
    let running = start(scratch.run(&["--memory", "16M"], &[python(), "-c", ENDLESS]));
    let pid = running.0.id().to_string();
    until("the tree is there", || tree(running.0.id()).is_some());
    let output = pagefault(&["top"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, rest) = text.split_once('\n').unwrap();
    assert!(head.contains("RESIDENT") && head.contains("FAULTS/s"), "{text}");
    assert!(rest.lines().any(|line| line.split_whitespace().next() == Some(&pid)), "{text}");
}
