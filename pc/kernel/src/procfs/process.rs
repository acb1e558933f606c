//! `/proc/PID`: what a process is and what its memory looks like.

use super::Made;
use crate::errno::Errno;
use crate::fs::{self, What};
use crate::layout::TASK_SIZE;
use crate::machine::Pc;
use crate::process::{Process, find_room};
use crate::{scheduler, times};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;
use pagefault::machine::{Entry, PAGE_SIZE, Protection, VirtAddr};
use pagefault::{AddressSpace, PageReport, RegionReport, UsageNow, VmaFlags};

const NAMES: [&str; 16] = [
    "cmdline",
    "comm",
    "cwd",
    "exe",
    "fd",
    "limits",
    "maps",
    "mem",
    "mountinfo",
    "mounts",
    "pagemap",
    "smaps",
    "stat",
    "statm",
    "status",
    "task",
];

const MOUNTS: &str = "none / tmpfs rw 0 0\nproc /proc proc rw 0 0\n";
const MOUNT_INFO: &str = "1 0 0:1 / / rw - tmpfs none rw\n2 1 0:2 / /proc rw - proc proc rw\n";

/// What is at a path below a process's directory.
pub fn look(process: &Arc<Process>, path: &str) -> Option<Made> {
    let text = |text| Some(Made::text(text));
    let line = match path {
        "smaps" => 2048,
        "maps" => 512,
        _ => 128,
    };
    if find_room(line * process.usage().regions).is_err() {
        return Some(Made::TooLong);
    }
    match path {
        "" => Some(Made::names(&NAMES)),
        "maps" => text(maps(process)),
        "smaps" => text(smaps(process)),
        "mounts" => text(String::from(MOUNTS)),
        "mountinfo" => text(String::from(MOUNT_INFO)),
        "mem" => Some(Made::Memory(process.clone())),
        "pagemap" => Some(Made::Pagemap(process.clone())),
        "stat" => text(stat(process)),
        "statm" => text(statm(process)),
        "status" => text(status(process)),
        "comm" => text(format!("{}\n", process.comm.lock())),
        "cmdline" => Some(Made::Text(process.command_line.lock().clone())),
        "limits" => text(limits(process)),
        "exe" => Some(Made::Link(process.name.lock().clone())),
        "cwd" => Some(Made::Link(process.files.lock().directory.clone())),
        "fd" => Some(Made::Directory(open_numbers(process))),
        "task" => {
            let threads = process.threads.lock();
            Some(Made::Directory(threads.iter().map(u32::to_string).collect()))
        }
        _ => match path.strip_prefix("fd/") {
            Some(number) => open_file(process, number.parse().ok()?),
            None => task(process, path.strip_prefix("task/")?),
        },
    }
}

/// A thread's directory shows what its process's does.
fn task(process: &Arc<Process>, path: &str) -> Option<Made> {
    let (id, rest) = path.split_once('/').unwrap_or((path, ""));
    let id: u32 = id.parse().ok()?;
    let is_there = process.threads.lock().contains(&id);
    if is_there && !rest.starts_with("task") { look(process, rest) } else { None }
}

fn open_numbers(process: &Process) -> Vec<String> {
    process.files.lock().numbers().map(|number| number.to_string()).collect()
}

fn open_file(process: &Process, number: u32) -> Option<Made> {
    let open = process.files.lock().find(number).ok()?;
    Some(match &open.what {
        // A file without a path, or whose path now names another file, is still reached.
        What::Node(node, path) if is_at(node, path) => Made::Link(path.clone()),
        _ => Made::Opened(open),
    })
}

fn is_at(node: &Arc<fs::Node>, path: &str) -> bool {
    super::is_below(path)
        || fs::find(path, fs::Follow::No).is_ok_and(|found| Arc::ptr_eq(&found, node))
}

fn space(process: &Process) -> Option<Arc<AddressSpace<Pc>>> {
    process.space.lock().clone()
}

fn regions(space: &AddressSpace<Pc>) -> Vec<RegionReport> {
    space.maps(VirtAddr(0)..VirtAddr(TASK_SIZE))
}

/// The names of the objects that are mapped, and of the two regions that Linux names.
struct Names {
    objects: BTreeMap<u64, (u64, String)>,
    heap: core::ops::Range<u64>,
    stack: u64,
}

impl Names {
    fn of(process: &Process) -> Self {
        let heap = space(process).map_or(0..0, |space| {
            let heap = space.heap();
            heap.start.value()..heap.end.value()
        });
        let objects = fs::objects();
        let stack = process.stack.load(Ordering::Relaxed);
        Self { objects, heap, stack }
    }

    /// The line of a region in `/proc/PID/maps`.
    fn line(&self, region: &RegionReport, to: &mut String) {
        let may = |right, letter| if region.protection.contains(right) { letter } else { '-' };
        let offset = if region.object.is_some() { region.index * PAGE_SIZE } else { 0 };
        let (start, end) = (region.range.start.value(), region.range.end.value());
        let (inode, name) = match region.object.map(|object| (object, self.objects.get(&object))) {
            Some((_, Some((inode, path)))) => (*inode, path.as_str()),
            Some((object, None)) => (object, "/dev/zero (deleted)"),
            None if start < self.heap.end && end > self.heap.start => (0, "[heap]"),
            None if (start..end).contains(&self.stack) => (0, "[stack]"),
            None => (0, ""),
        };
        let head = format!(
            "{start:08x}-{end:08x} {}{}{}{} {offset:08x} 00:{:02x} {inode}",
            may(Protection::READ, 'r'),
            may(Protection::WRITE, 'w'),
            may(Protection::EXECUTE, 'x'),
            if region.shared { 's' } else { 'p' },
            u8::from(region.object.is_some()),
        );
        // Writing to a string cannot fail.
        let _ = if name.is_empty() {
            writeln!(to, "{head} ")
        } else {
            writeln!(to, "{head:<72} {name}")
        };
    }
}

fn maps(process: &Process) -> String {
    let mut text = String::new();
    let Some(space) = space(process) else { return text };
    let names = Names::of(process);
    for region in regions(&space) {
        names.line(&region, &mut text);
    }
    text
}

/// What the pages of a region add up to, in pages.
#[derive(Default)]
struct Sums {
    resident: u64,
    /// In 1/4096 of a page.
    proportional: u64,
    /// By whether several entries name the page, and whether it is dirty.
    pages: [[u64; 2]; 2],
    accessed: u64,
    anonymous: u64,
    swapped: u64,
}

impl Sums {
    fn add(&mut self, page: &PageReport) {
        match page.entry {
            Entry::Present { accessed, dirty, .. } if page.maps > 0 => {
                self.resident += 1;
                self.proportional += PAGE_SIZE / u64::from(page.maps);
                self.pages[usize::from(page.maps > 1)][usize::from(dirty)] += 1;
                self.accessed += u64::from(accessed);
                self.anonymous += u64::from(page.anonymous);
            }
            Entry::Swap(_) => self.swapped += 1,
            _ => {}
        }
    }
}

/// Yields after this many pages, since the kernel is not preemptive.
const YIELD_AFTER: u32 = 64;

fn smaps(process: &Process) -> String {
    let mut text = String::new();
    let Some(space) = space(process) else { return text };
    let names = Names::of(process);
    for region in regions(&space) {
        names.line(&region, &mut text);
        let mut sums = Sums::default();
        let mut seen = 0u32;
        space.pages(region.range.clone(), |page| {
            sums.add(&page);
            seen += 1;
            // Tasks that wait for the disk poll it in turn, and must not wait for all of this.
            if seen.is_multiple_of(YIELD_AFTER) {
                scheduler::yield_now();
            }
        });
        scheduler::yield_now();
        let page = PAGE_SIZE / 1024;
        let length = (region.range.end - region.range.start) / PAGE_SIZE;
        let locked = if region.locked { sums.resident } else { 0 };
        let lines = [
            ("Size", length * page),
            ("KernelPageSize", page),
            ("MMUPageSize", page),
            ("Rss", sums.resident * page),
            ("Pss", sums.proportional / 1024),
            ("Shared_Clean", sums.pages[1][0] * page),
            ("Shared_Dirty", sums.pages[1][1] * page),
            ("Private_Clean", sums.pages[0][0] * page),
            ("Private_Dirty", sums.pages[0][1] * page),
            ("Referenced", sums.accessed * page),
            ("Anonymous", sums.anonymous * page),
            ("Swap", sums.swapped * page),
            ("Locked", locked * page),
        ];
        for (name, kilobytes) in lines {
            let _ = writeln!(text, "{:<16}{kilobytes:>8} kB", format!("{name}:"));
        }
        let _ = writeln!(text, "VmFlags: {}", flags(&region));
    }
    text
}

/// Linux's two letters for each property of a region, in its order.
const LETTERS: [(VmaFlags, &str); 23] = [
    (VmaFlags::READ, "rd "),
    (VmaFlags::WRITE, "wr "),
    (VmaFlags::EXEC, "ex "),
    (VmaFlags::SHARED, "sh "),
    (VmaFlags::MAYREAD, "mr "),
    (VmaFlags::MAYWRITE, "mw "),
    (VmaFlags::MAYEXEC, "me "),
    (VmaFlags::MAYSHARE, "ms "),
    (VmaFlags::GROWSDOWN, "gd "),
    (VmaFlags::PFNMAP, "pf "),
    (VmaFlags::LOCKED, "lo "),
    (VmaFlags::IO, "io "),
    (VmaFlags::SEQ_READ, "sr "),
    (VmaFlags::RAND_READ, "rr "),
    (VmaFlags::DONTCOPY, "dc "),
    (VmaFlags::DONTEXPAND, "de "),
    (VmaFlags::ACCOUNT, "ac "),
    (VmaFlags::NORESERVE, "nr "),
    (VmaFlags::WIPEONFORK, "wf "),
    (VmaFlags::DONTDUMP, "dd "),
    (VmaFlags::HUGEPAGE, "hg "),
    (VmaFlags::NOHUGEPAGE, "nh "),
    (VmaFlags::MERGEABLE, "mg "),
];

fn flags(region: &RegionReport) -> String {
    let has = |(flag, _): &&(VmaFlags, &str)| region.flags.contains(*flag);
    let mut text: String = LETTERS.iter().filter(has).map(|(_, letters)| *letters).collect();
    if region.flags.contains(VmaFlags::SEALED) {
        text.push_str("sl ");
    }
    text
}

/// Reads a process's memory (`/proc/PID/mem`), up to what cannot be (spec H6).
pub fn read_memory(process: &Process, address: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
    let Some(space) = space(process) else { return Ok(0) };
    match space.read_forced(VirtAddr(address), bytes).0 {
        0 if !bytes.is_empty() => Err(Errno::EIO),
        read => Ok(read),
    }
}

/// Likewise, writes it.
pub fn write_memory(process: &Process, address: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let Some(space) = space(process) else { return Ok(0) };
    match space.write_forced(VirtAddr(address), bytes).0 {
        0 if !bytes.is_empty() => Err(Errno::EIO),
        written => Ok(written),
    }
}

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;

/// The words of `/proc/PID/pagemap` for some pages, from a page number on.
pub fn pagemap(process: &Process, first: u64, words: &mut [u64]) {
    words.fill(0);
    let Some(space) = space(process) else { return };
    let limit = TASK_SIZE / PAGE_SIZE;
    let end = first.saturating_add(words.len() as u64).min(limit);
    if first >= end {
        return;
    }
    let start = VirtAddr(first * PAGE_SIZE);
    space.pages(start..VirtAddr(end * PAGE_SIZE), |page| {
        let at = (page.address - start) / PAGE_SIZE;
        let kind = if page.anonymous { 0 } else { FILE_OR_SHARED };
        words[at as usize] = match page.entry {
            Entry::Present { frame, .. } => {
                let exclusive = if page.maps == 1 { EXCLUSIVE } else { 0 };
                PRESENT | kind | exclusive | u64::from(frame.0)
            }
            Entry::Swap(slot) => SWAPPED | u64::from(slot.area) | u64::from(slot.offset) << 5,
            _ => 0,
        };
    });
}

fn swapped_pages(process: &Process) -> u64 {
    let mut swapped = 0;
    if let Some(space) = space(process) {
        for region in regions(&space) {
            space.pages(region.range, |page| {
                swapped += u64::from(matches!(page.entry, Entry::Swap(_)));
            });
        }
    }
    swapped
}

/// `R` for the calling process, `Z` for a zombie, else `S`.
fn state(process: &Process) -> &'static str {
    let own = process.id == crate::process::current().id;
    match process.threads.lock().is_empty() {
        true => "Z (zombie)",
        false if own => "R (running)",
        false => "S (sleeping)",
    }
}

/// Times are reported in hundredths of a second.
const CLOCK_TICK: u64 = 10_000_000;

fn stat(process: &Process) -> String {
    let usage = process.usage();
    let children = *process.children_usage.lock();
    let (time, waited) = (times::of(process), *process.children_time.lock());
    let program_break = space(process).map_or(0, |space| space.heap().start.value());
    let values = [
        process.parent_id().into(),
        process.group.load(Ordering::Relaxed).into(),
        process.session.load(Ordering::Relaxed).into(),
        0,
        u64::MAX,
        0,
        usage.minor,
        children.minor,
        usage.major,
        children.major,
        time.user / CLOCK_TICK,
        time.system / CLOCK_TICK,
        waited.user / CLOCK_TICK,
        waited.system / CLOCK_TICK,
        20,
        0,
        process.threads.lock().len() as u64,
        0,
        process.started / CLOCK_TICK,
        usage.total * PAGE_SIZE,
        resident(&usage),
        u64::MAX,
        0,
        0,
        process.stack.load(Ordering::Relaxed),
    ];
    let state = &state(process)[..1];
    let mut text = format!("{} ({}) {state}", process.id, process.comm.lock());
    for value in values {
        // Linux prints these as signed numbers where -1 means none.
        let _ = if value == u64::MAX { write!(text, " -1") } else { write!(text, " {value}") };
    }
    // Registers, signals and exit code (30-44), then the rest up to field 52.
    for field in 29..=52 {
        let value = if field == 47 { program_break } else { 0 };
        let _ = write!(text, " {value}");
    }
    text.push('\n');
    text
}

const fn resident(usage: &UsageNow) -> u64 {
    usage.anonymous + usage.file
}

fn statm(process: &Process) -> String {
    let usage = process.usage();
    let (mut text, mut data) = (0, 0);
    if let Some(space) = space(process) {
        for region in regions(&space) {
            let pages = (region.range.end - region.range.start) / PAGE_SIZE;
            if region.object.is_some() && region.protection.contains(Protection::EXECUTE) {
                text += pages;
            } else if region.protection.contains(Protection::WRITE) && !region.shared {
                data += pages;
            }
        }
    }
    format!("{} {} {} {text} 0 {data} 0\n", usage.total, resident(&usage), usage.file)
}

fn status(process: &Process) -> String {
    let usage = process.usage();
    let page = PAGE_SIZE / 1024;
    let mut text = format!(
        "Name:\t{}\nState:\t{}\nTgid:\t{}\nPid:\t{}\nPPid:\t{}\nThreads:\t{}\n",
        process.comm.lock(),
        state(process),
        process.id,
        process.id,
        process.parent_id(),
        process.threads.lock().len(),
    );
    let lines = [
        ("VmSize", usage.total),
        ("VmLck", usage.locked),
        ("VmPin", 0),
        ("VmHWM", usage.peak),
        ("VmRSS", resident(&usage)),
        ("RssAnon", usage.anonymous),
        ("RssFile", usage.file),
        ("VmSwap", swapped_pages(process)),
    ];
    for (name, pages) in lines {
        let _ = writeln!(text, "{name}:\t{:>8} kB", pages * page);
    }
    let _ = writeln!(text, "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0");
    text
}

fn limits(process: &Process) -> String {
    let mut text = String::from("Limit                     Soft Limit           Hard Limit\n");
    let Some(space) = space(process) else { return text };
    let limits = space.limits();
    let lines = [
        ("Max stack size", &limits.stack),
        ("Max locked memory", &limits.locked),
        ("Max address space", &limits.address_space),
    ];
    for (name, limit) in lines {
        let limit = match limit.load(Ordering::Relaxed) {
            u64::MAX => String::from("unlimited"),
            limit => limit.to_string(),
        };
        let _ = writeln!(text, "{name:<26}{limit:<21}unlimited");
    }
    text
}
