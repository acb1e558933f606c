//! Statistics, and the limit itself.

use crate::harness::{SIZED_FILE, Scratch, assert_limited, have, message, number, python};
use std::fs;

const PROGRAM: &str = "
x = [b'%d' % i * 500 for i in range(16000)]
print(sum(map(len, x)))
";

#[test]
fn a_table_goes_to_standard_error_and_the_output_stays_the_program_s() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("table");
    let options = ["--memory", "16M", "--stats"];
    let output = scratch.run(&options, &[python(), "-c", PROGRAM]).output().unwrap();
    let plain = scratch.plain(&[python(), "-c", PROGRAM]).output().unwrap();
    assert_eq!(output.stdout, plain.stdout);
    let table = message(&output);
    let lines = ["peak resident", "anonymous", "swap-in", "copy-on-write", "spurious", "median"];
    for line in lines.into_iter().chain([
        "minor",
        "major",
        "read ahead",
        "populated ahead",
        "compression ratio",
        "compressed by the supervisor",
        "swap ram:8M",
    ]) {
        assert!(table.contains(line), "{line} is not in {table}");
    }
}

#[test]
fn figures_belong_together() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("figures");
    let stats = scratch.compare("16M", &[python(), "-c", PROGRAM]);
    assert_limited(&stats);
    let faults = &stats["faults"];
    let sum: u64 = faults
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| !["minor", "major"].contains(&name.as_str()))
        .map(|(_, count)| count.as_u64().unwrap())
        .sum();
    let weighed = number(faults, "/minor") + number(faults, "/major");
    assert!(weighed.abs_diff(sum) * 100 <= sum, "{stats:#}");
    // The program goes through its memory in order, so that faults are saved.
    let ahead = number(&stats, "/read_ahead");
    assert!(ahead > 0, "{stats:#}");
    let back: u64 = (0..2).map(|area| number(&stats, &format!("/swap/{area}/pages_in"))).sum();
    assert!(ahead <= back, "{ahead} pages read ahead of {back} read");
    let populated = number(&stats, "/populated_ahead");
    let anonymous = number(faults, "/anonymous");
    assert!(populated > anonymous, "{populated} pages populated by {anonymous} faults");
    let time = |name: &str| number(&stats, &format!("/fault_time_ns/{name}"));
    assert!(time("median") > 0 && time("median") <= time("p99") && time("p99") <= time("max"));
    assert!(stats["compression_ratio"].as_f64().unwrap() > 1.0, "{stats:#}");
}

/// The kernel's count: the process's resident memory is the limit, its code and files, and the
/// manager's tables, without the rest of the program's memory.
#[test]
fn the_kernel_sees_the_limit_kept() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("rss");
    let program = "
import re
x = [b'%d' % i * 700 for i in range(40000)]
assert sum(map(len, x)) > 100 << 20
print(re.search('RssAnon:[^0-9]*([0-9]+)', open('/proc/self/status').read()).group(1))
";
    let options = ["--memory", "24M", "--swap", "ram:4M", "--swap", SIZED_FILE];
    let output = scratch.run(&options, &[python(), "-c", program]).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let resident: u64 = text.trim().parse().unwrap_or_else(|_| panic!("{output:?}"));
    // The limit, the swap in RAM, and the manager's own memory.
    assert!(resident < (24 + 4 + 24) << 10, "{resident} KiB resident");
    scratch.assert_nothing_left();
}

#[test]
fn statistics_are_complete_when_the_program_is_killed() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("killed");
    let path = scratch.path("killed.json");
    let program = format!("{PROGRAM}\nimport os\nos.kill(os.getpid(), 9)");
    let options = ["--memory", "16M", "--stats=json", "--stats-file", path.to_str().unwrap()];
    let ended = scratch.run(&options, &[python(), "-c", &program]).output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(9));
    let stats = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_limited(&stats);
}
