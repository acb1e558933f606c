//! The data of the view: each tree's counters and rates.

use crate::trees::{self, Tree};
use crate::watch::{COUNTED, Sample};
use pagefault_control::{Mapped, Storage};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Instant;

const PAGE: u64 = 4096;

/// The names of corrections, in the order of the counters.
pub const CORRECTIONS: [&str; COUNTED.len()] =
    ["anonymous", "zero", "file", "swap-in", "copy-on-write", "first-store", "standby", "spurious"];

/// A snapshot of one tree.
#[derive(Clone, Debug)]
pub struct View {
    /// Its identity.
    pub id: u64,
    /// The command's process ID.
    pub pid: u32,
    pub user: u32,
    pub program: String,
    pub limit_bytes: u64,
    pub resident_bytes: u64,
    pub swapped_bytes: u64,
    pub processes: Vec<Process>,
    pub areas: Vec<Area>,
    pub ratio: Option<f64>,
    /// Faults so far by correction, and their rates.
    pub faults: [(u64, f64); COUNTED.len()],
    pub read_ahead: (u64, f64),
    /// Pages that were read ahead: used so far, and evicted unused.
    pub read_ahead_used: u64,
    pub read_ahead_wasted: u64,
    /// The share of the faults that read a page: now, or so far if there are none now.
    pub misses: f64,
}

/// A process of a tree.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: u32,
    pub name: String,
    /// Whether the host handles its faults, because the tree has fitted its limit so far.
    pub passive: bool,
    pub resident_bytes: u64,
    /// The bytes that the limit is charged for it.
    pub charged_bytes: u64,
    pub swapped_bytes: u64,
}

/// A swap area of a tree.
#[derive(Clone, Debug)]
pub struct Area {
    pub name: String,
    pub stored_bytes: u64,
    /// Pages so far, and pages a second.
    pub out: (u64, f64),
    pub back: (u64, f64),
}

impl View {
    /// Faults a second.
    pub fn fault_rate(&self) -> f64 {
        self.faults.iter().map(|(_, rate)| rate).sum()
    }

    /// Pages a second out, or in.
    pub fn swap_rate(&self, of: impl Fn(&Area) -> (u64, f64)) -> f64 {
        self.areas.iter().map(|area| of(area).1).sum()
    }

    /// The snapshot as JSON.
    pub fn json(&self) -> Value {
        let count = |(total, rate): (u64, f64)| json!({ "total": total, "a_second": rate });
        let faults: serde_json::Map<String, Value> = CORRECTIONS
            .iter()
            .zip(self.faults)
            .map(|(name, faults)| (name.replace('-', "_"), count(faults)))
            .collect();
        json!({
            "pid": self.pid,
            "user": self.user,
            "program": self.program,
            "limit_bytes": self.limit_bytes,
            "resident_bytes": self.resident_bytes,
            "swapped_bytes": self.swapped_bytes,
            "compression_ratio": self.ratio,
            "miss_ratio": self.misses,
            "faults": faults,
            "read_ahead": count(self.read_ahead),
            "read_ahead_used": self.read_ahead_used,
            "read_ahead_wasted": self.read_ahead_wasted,
            "swap": self.areas.iter().map(|area| json!({
                "area": area.name,
                "stored_bytes": area.stored_bytes,
                "pages_out": count(area.out),
                "pages_in": count(area.back),
            })).collect::<Vec<_>>(),
            "processes": self.processes.iter().map(|process| json!({
                "pid": process.pid,
                "name": process.name,
                "passive": process.passive,
                "resident_bytes": process.resident_bytes,
                "charged_bytes": process.charged_bytes,
                "swapped_bytes": process.swapped_bytes,
            })).collect::<Vec<_>>(),
        })
    }
}

/// The previous reading of a tree.
struct Last {
    at: Instant,
    sample: Sample,
    major: u64,
    minor: u64,
    read_ahead: u64,
}

/// The previous readings, for the rates.
#[derive(Default)]
pub struct Observer {
    last: HashMap<u64, Last>,
    mapped: HashMap<u64, Mapped>,
}

impl Observer {
    /// Reads all trees, or one.
    pub fn look(&mut self, only: Option<u32>) -> Result<Vec<View>, trees::Error> {
        let trees = match only {
            None => trees::all(),
            Some(pid) => vec![trees::of(pid)?],
        };
        self.mapped.retain(|id, _| trees.iter().any(|tree| tree.id == *id));
        self.last.retain(|id, _| trees.iter().any(|tree| tree.id == *id));
        // A tree that has just ended, or of another version, cannot be mapped.
        Ok(trees.iter().filter_map(|tree| self.view(tree)).collect())
    }

    fn view(&mut self, tree: &Tree) -> Option<View> {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.mapped.entry(tree.id) {
            entry.insert(tree.look().ok()?);
        }
        let control = self.mapped.get(&tree.id)?;
        let (at, sample) = (Instant::now(), Sample::take(control, 0));
        let counters = &control.counters;
        let (minor, major) = (counters.minor.value(), counters.major.value());
        let read_ahead = counters.read_ahead.brought.value();
        let last = self.last.get(&tree.id);
        let elapsed = last.map_or(0.0, |last| (at - last.at).as_secs_f64());
        let rate = |now: u64, before: Option<u64>| {
            let grown = before.map_or(0, |before| now.saturating_sub(before)) as f64;
            (now, if elapsed > 0.0 { grown / elapsed } else { 0.0 })
        };
        let areas = control.config().map(|config| config.swap).unwrap_or_default();
        let areas = areas.iter().enumerate().map(|(area, spec)| Area {
            name: match &spec.storage {
                Storage::Ram => "ram".to_owned(),
                Storage::File(path) => String::from_utf8_lossy(path).into_owned(),
                Storage::Temporary(_) => "file".to_owned(),
            },
            stored_bytes: sample
                .processes
                .iter()
                .map(|held| u64::from(held.stored[area]))
                .sum::<u64>()
                * PAGE,
            out: rate(sample.pages_out[area], last.map(|last| last.sample.pages_out[area])),
            back: rate(sample.pages_in[area], last.map(|last| last.sample.pages_in[area])),
        });
        let areas: Vec<Area> = areas.collect();
        let now = last.map_or((0, 0), |last| {
            (major.saturating_sub(last.major), minor.saturating_sub(last.minor))
        });
        let misses = if now.0 + now.1 > 0 { now } else { (major, minor) };
        let view = View {
            id: tree.id,
            pid: tree.first_pid(),
            user: tree.user,
            program: tree.program(control),
            limit_bytes: control.limit_bytes(),
            resident_bytes: sample.charged * PAGE,
            swapped_bytes: areas.iter().map(|area| area.stored_bytes).sum(),
            processes: processes(&sample),
            areas,
            ratio: crate::run::compression_ratio(counters),
            faults: std::array::from_fn(|kind| {
                rate(sample.faults[kind], last.map(|last| last.sample.faults[kind]))
            }),
            read_ahead: rate(read_ahead, last.map(|last| last.read_ahead)),
            read_ahead_used: counters.read_ahead.used.value(),
            read_ahead_wasted: counters.read_ahead.wasted.value(),
            misses: misses.0 as f64 / (misses.0 + misses.1).max(1) as f64,
        };
        self.last.insert(tree.id, Last { at, sample, major, minor, read_ahead });
        Some(view)
    }
}

/// The processes of a tree, the largest first.
fn processes(sample: &Sample) -> Vec<Process> {
    let mut all: Vec<Process> = sample
        .processes
        .iter()
        .map(|held| Process {
            pid: held.pid,
            name: trees::name(held.pid),
            passive: held.passive,
            resident_bytes: u64::from(held.resident) * PAGE,
            charged_bytes: u64::from(held.charged) * PAGE,
            swapped_bytes: held.stored.iter().map(|pages| u64::from(*pages)).sum::<u64>() * PAGE,
        })
        .collect();
    all.sort_by_key(|process| {
        (std::cmp::Reverse(process.resident_bytes + process.swapped_bytes), process.pid)
    });
    all
}

/// The sort key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Faults,
    Resident,
    Swap,
    Age,
}

impl Order {
    /// The next key.
    pub const fn next(self) -> Self {
        match self {
            Self::Faults => Self::Resident,
            Self::Resident => Self::Swap,
            Self::Swap => Self::Age,
            Self::Age => Self::Faults,
        }
    }

    /// Its name in the view.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Faults => "faults",
            Self::Resident => "resident",
            Self::Swap => "swap",
            Self::Age => "pid",
        }
    }

    /// Sorts trees; equal ones by their numbers.
    pub fn sort(self, views: &mut [View]) {
        views.sort_by(|a, b| {
            let by = match self {
                Self::Faults => b.fault_rate().total_cmp(&a.fault_rate()),
                Self::Resident => b.resident_bytes.cmp(&a.resident_bytes),
                Self::Swap => b.swapped_bytes.cmp(&a.swapped_bytes),
                Self::Age => std::cmp::Ordering::Equal,
            };
            by.then(a.pid.cmp(&b.pid))
        });
    }
}
