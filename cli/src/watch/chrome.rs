//! `--trace`: events in the Chrome trace format, which Perfetto opens.
//!
//! The file is valid JSON after every write: each write overwrites the array's end and ends with a new
//! one. So the trace of an interrupted run opens too.

use super::members::{Member, Members};
use super::sample::Sample;
use pagefault_control::{Happening, Kind};
use std::collections::HashMap;
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const BEGIN: &str = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n";
const END: &str = "\n]}\n";
/// The buffer size.
const CHUNK: usize = 1 << 20;
/// The process ID under which the whole tree is shown.
const TREE: u32 = 0;
const PAGE_KIB: u64 = 4;

/// A trace in progress.
pub struct Trace {
    path: PathBuf,
    file: File,
    /// The text not written yet.
    text: String,
    /// The file.
    at: u64,
    /// Whether the next event needs a comma in front.
    follows: bool,
    /// The start of the run.
    begin: u64,
    areas: usize,
    /// The names that the trace has for the processes.
    named: HashMap<u32, String>,
    error: Option<io::Error>,
}

impl Trace {
    /// Begins a trace of a run that started at a given time.
    pub fn begin(path: PathBuf, file: File, begin: u64, areas: usize) -> Self {
        let mut trace = Self {
            path,
            file,
            text: BEGIN.to_owned(),
            at: 0,
            follows: false,
            begin,
            areas,
            named: HashMap::new(),
            error: None,
        };
        trace.name(TREE, "the tree");
        trace.flush();
        trace
    }

    /// Adds an event; pages that moved get one each.
    pub fn event(&mut self, member: &Member, event: &Happening) {
        self.introduce(member.pid, &member.name);
        if event.kind.is_move() {
            event.moved().for_each(|page| self.one(member.pid, event, page));
        } else {
            self.one(member.pid, event, event.page);
        }
        if self.text.len() >= CHUNK {
            self.flush();
        }
    }

    fn one(&mut self, pid: u32, event: &Happening, page: u64) {
        let name = event.kind.name();
        let time = self.micros(event.time);
        self.next();
        let text = &mut self.text;
        // Writing to a string cannot fail.
        let is_takeover = event.kind == Kind::Takeover;
        let _ = if event.kind.is_fault() && !event.in_call || is_takeover {
            let category = if is_takeover { "process" } else { "fault" };
            write!(
                text,
                "{{\"name\":\"{name}\",\"cat\":\"{category}\",\"ph\":\"X\",\"ts\":{time},\"dur\":{}",
                Micros(event.took)
            )
        } else {
            let category = match event.kind {
                Kind::Evicted => "eviction",
                Kind::ReadAhead | Kind::PopulatedAhead => "ahead",
                Kind::Fork => "process",
                _ => "call",
            };
            write!(
                text,
                "{{\"name\":\"{name}\",\"cat\":\"{category}\",\"ph\":\"i\",\"s\":\"t\",\"ts\":{time}"
            )
        };
        let _ = write!(text, ",\"pid\":{pid},\"tid\":{},\"args\":{{", event.thread);
        if event.kind != Kind::Fork && !is_takeover {
            let _ = write!(text, "\"page\":\"{page:#x}\"");
        }
        if event.kind.is_fault() {
            let access = if event.write { "store" } else { "load" };
            let _ = write!(text, ",\"access\":\"{access}\",\"major\":{}", event.major);
        }
        if event.ip != 0 {
            let _ = write!(text, ",\"instruction\":\"{:#x}\"", event.ip);
        }
        text.push_str("}}");
    }

    /// Adds a sample of the counters.
    pub fn sample(&mut self, sample: &Sample, members: &Members) {
        for holding in &sample.processes {
            self.introduce(holding.pid, members.name(holding.slot, holding.pid));
            let swapped: u64 = holding.stored[..self.areas].iter().map(|n| u64::from(*n)).sum();
            let kib = |pages: u32| u64::from(pages) * PAGE_KIB;
            let values = [
                ("resident KiB", kib(holding.resident)),
                ("charged KiB", kib(holding.charged)),
                ("in swap KiB", swapped * PAGE_KIB),
            ];
            self.counter(sample.time, holding.pid, &values);
        }
        self.counter(sample.time, TREE, &[("charged KiB", sample.charged * PAGE_KIB)]);
    }

    fn counter(&mut self, time: u64, pid: u32, values: &[(&str, u64)]) {
        self.next();
        let micros = Micros(time);
        let text = &mut self.text;
        let _ = write!(
            text,
            "{{\"name\":\"memory\",\"ph\":\"C\",\"ts\":{micros},\"pid\":{pid},\"args\":{{"
        );
        for (number, (name, value)) in values.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let _ = write!(text, "{comma}\"{name}\":{value}");
        }
        text.push_str("}}");
    }

    /// Names a process, if its name is new.
    fn introduce(&mut self, pid: u32, name: &str) {
        if self.named.get(&pid).is_none_or(|known| known != name) {
            self.named.insert(pid, name.to_owned());
            self.name(pid, name);
        }
    }

    fn name(&mut self, pid: u32, name: &str) {
        self.next();
        let name = serde_json::Value::from(name);
        let _ = write!(
            self.text,
            "{{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":{pid},\"args\":{{\"name\":{name}}}}}"
        );
    }

    fn next(&mut self) {
        if self.follows {
            self.text.push_str(",\n");
        }
        self.follows = true;
    }

    const fn micros(&self, time: u64) -> Micros {
        Micros(time.saturating_sub(self.begin))
    }

    /// Writes the buffer and the array's end.
    pub fn flush(&mut self) {
        let len = self.text.len();
        self.text.push_str(END);
        if let Err(error) = self.file.write_all_at(self.text.as_bytes(), self.at) {
            // The run goes on; its end reports the error.
            self.error.get_or_insert(error);
        } else {
            self.at += len as u64;
        }
        self.text.clear();
    }

    /// Completes the trace with the number of lost events.
    pub fn end(mut self, lost: u64) -> Result<(), (PathBuf, io::Error)> {
        self.next();
        let _ = write!(
            self.text,
            "{{\"name\":\"events lost\",\"ph\":\"M\",\"pid\":{TREE},\"args\":{{\"count\":{lost}}}}}"
        );
        self.flush();
        match self.error {
            Some(error) => Err((self.path, error)),
            None => Ok(()),
        }
    }
}

/// Nanoseconds, written as microseconds.
struct Micros(u64);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}
