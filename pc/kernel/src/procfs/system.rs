//! What `/proc` and `/sys` say about the machine as a whole.

use super::Made;
use crate::{clock, kernel, process, smp, swap, times};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use pagefault::machine::{Machine, PAGE_SIZE};

/// How many processors the machine uses.
pub fn cpus() -> u32 {
    smp::count()
}

const CPUS: &str = "/sys/devices/system/cpu";

/// What is at a path that is about no process.
pub fn look(path: &str) -> Option<Made> {
    let text = |text| Some(Made::text(text));
    match path {
        "/proc" => Some(Made::Directory(names())),
        "/proc/pagefault/check" => text(check()),
        "/proc/meminfo" => text(meminfo()),
        "/proc/stat" => text(stat()),
        "/proc/vmstat" => text(vmstat()),
        "/proc/swaps" => text(swaps()),
        "/proc/uptime" => {
            let hundredths = clock::nanoseconds() / 10_000_000;
            let (seconds, rest) = (hundredths / 100, hundredths % 100);
            text(format!("{seconds}.{rest:02} 0.00\n"))
        }
        "/proc/loadavg" => {
            let running = process::count_threads();
            text(format!("0.00 0.00 0.00 1/{running} {}\n", process::current().id))
        }
        "/proc/version" => text(String::from("Linux version 6.1.0-pagefault\n")),
        "/proc/filesystems" => text(String::from("nodev\tproc\nnodev\ttmpfs\n")),
        "/proc/mounts" => Some(Made::Link(String::from("self/mounts"))),
        "/proc/cpuinfo" => text(cpuinfo()),
        "/proc/sys/vm/overcommit_memory" => text(String::from("0\n")),
        "/proc/sys/vm/mmap_min_addr" => text(String::from("65536\n")),
        "/proc/sys/vm/max_map_count" => text(String::from("65530\n")),
        "/proc/sys/kernel/osrelease" => text(String::from("6.1.0-pagefault\n")),
        "/proc/sys/kernel/pid_max" => text(format!("{}\n", i32::MAX)),
        _ => look_at_processors(path.strip_prefix(CPUS)?),
    }
}

/// What is in `/proc`: the processes, and what is said about the machine.
fn names() -> Vec<String> {
    let machine = [
        "cpuinfo",
        "filesystems",
        "loadavg",
        "meminfo",
        "mounts",
        "self",
        "stat",
        "swaps",
        "thread-self",
        "uptime",
        "version",
        "vmstat",
    ];
    let processes = process::all().into_iter().map(|process| process.id.to_string());
    processes.chain(machine.map(String::from)).collect()
}

fn look_at_processors(path: &str) -> Option<Made> {
    let count = cpus();
    match path {
        "" => {
            let mut names: Vec<String> = (0..count).map(|i| format!("cpu{i}")).collect();
            names.extend(["online", "possible", "present"].map(|name| name.to_string()));
            Some(Made::Directory(names))
        }
        "/online" | "/possible" | "/present" if count == 1 => Some(Made::text(String::from("0\n"))),
        "/online" | "/possible" | "/present" => Some(Made::text(format!("0-{}\n", count - 1))),
        _ => {
            let number: u32 = path.strip_prefix("/cpu")?.parse().ok()?;
            (number < count).then(|| Made::Directory(Vec::new()))
        }
    }
}

/// Walks the memory manager's invariants; says `ok`, or which does not hold.
fn check() -> String {
    match kernel().manager.check() {
        Ok(()) => String::from("ok\n"),
        Err(violation) => format!("{violation}\n"),
    }
}

fn meminfo() -> String {
    let manager = &kernel().manager;
    let machine = manager.machine();
    let swap = manager.swap_areas();
    let page = PAGE_SIZE / 1024;
    let lines = [
        ("MemTotal", u64::from(machine.frames())),
        ("MemFree", u64::from(machine.free_frames())),
        ("MemAvailable", u64::from(machine.free_frames())),
        ("Buffers", 0),
        ("SwapTotal", swap.total()),
        ("SwapFree", swap.free()),
    ];
    let mut text = String::new();
    for (name, pages) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<16}{:>8} kB", format!("{name}:"), pages * page);
    }
    text
}

fn stat() -> String {
    let [user, system, idle] = times::ticks();
    let mut text = format!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    // The ticks of all are counted together.
    let each = |ticks: u64| ticks / u64::from(cpus());
    let (user, system, idle) = (each(user), each(system), each(idle));
    for i in 0..cpus() {
        let _ = writeln!(text, "cpu{i} {user} 0 {system} {idle} 0 0 0 0 0 0");
    }
    let started = clock::since_1970().saturating_sub(clock::nanoseconds()) / 1_000_000_000;
    let processes = process::all().len();
    let _ = writeln!(text, "btime {started}\nprocesses {processes}");
    let _ = writeln!(text, "procs_running 1\nprocs_blocked 0");
    text
}

fn vmstat() -> String {
    let counters = kernel().manager.counters();
    let lines = [
        ("nr_free_pages", u64::from(kernel().manager.machine().free_frames())),
        ("pgfault", counters.minor + counters.major),
        ("pgmajfault", counters.major),
        ("pswpin", counters.swap_reads),
        ("pswpout", counters.swap_writes),
        ("pgsteal", counters.evicted),
        ("pgscan", counters.scanned),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name} {value}");
    }
    text
}

fn swaps() -> String {
    let mut text = String::from("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
    let page = PAGE_SIZE / 1024;
    for area in kernel().manager.swap_areas().statistics() {
        let (size, used) = (u64::from(area.slots) * page, u64::from(area.in_use) * page);
        let path = swap::path_of(area.area).unwrap_or_default();
        let _ = writeln!(text, "{path}\tpartition\t{size}\t{used}\t{}", area.priority);
    }
    text
}

fn cpuinfo() -> String {
    let mut text = String::new();
    for i in 0..cpus() {
        let _ = writeln!(text, "processor\t: {i}\nmodel name\t: pagefault\npage size\t: 4096\n");
    }
    text
}
