//! `--report`: what a program's memory did, as one page.
//!
//! | module | what it gathers |
//! |---|---|
//! | [`series`] | the counters over time |
//! | [`heat`] | where pages come and go over time |
//! | [`latency`] | how long faults took |
//! | [`places`], [`symbols`] | where in the program they happen |
//! | [`curve`] | what more memory would have changed |
//! | [`data`], [`page`] | all of it as JSON, and as the page |
//!
//! Each event is counted and dropped, so that memory use does not grow with the run.

mod curve;
mod data;
mod heat;
mod latency;
mod page;
mod places;
mod series;
mod symbols;

use super::members::Members;
use super::sample::Sample;
use crate::complain;
use curve::Curve;
use heat::{Columns, Heat};
use latency::Latency;
use pagefault_control::{Happening, Kind};
use places::Places;
use series::Series;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The most processes with a map of their own.
const MOST_MAPS: usize = 256;

/// The data of a run so far.
pub struct Gathered {
    path: PathBuf,
    file: File,
    /// The start of the run, by the runtimes' clock and by the calendar.
    begin: u64,
    date: SystemTime,
    series: Series,
    columns: Columns,
    /// By member number.
    heat: BTreeMap<usize, Heat>,
    /// The maps that gave way to others.
    unmapped: usize,
    latency: Latency,
    places: Places,
    curve: Curve,
    /// Corrections for system calls, by kind.
    in_calls: [u64; Kind::ALL.len()],
    /// The first takeovers, with their members.
    takeovers: Vec<(usize, Happening)>,
}

/// The facts about a run that its report states.
pub struct Run<'a> {
    /// The program and its arguments.
    pub command: &'a [OsString],
    /// How it ended.
    pub ended: String,
    /// The statistics as `--stats` prints them, in both formats.
    pub table: String,
    pub stats: serde_json::Value,
    pub limit_bytes: u64,
    /// The names of the swap areas.
    pub areas: Vec<String>,
}

/// The watching thread's result for the report.
pub struct Watched {
    pub gathered: Gathered,
    pub members: Members,
    /// How many nanoseconds were watched.
    pub length: u64,
    /// How many events were lost.
    pub lost: u64,
}

impl Gathered {
    /// Begins to collect, for a run that started at a given time.
    pub fn begin(path: PathBuf, file: File, begin: u64) -> Self {
        Self {
            path,
            file,
            begin,
            date: SystemTime::now(),
            series: Series::default(),
            columns: Columns::new(),
            heat: BTreeMap::new(),
            unmapped: 0,
            latency: Latency::default(),
            places: Places::default(),
            curve: Curve::default(),
            in_calls: [0; Kind::ALL.len()],
            takeovers: Vec::new(),
        }
    }

    /// Counts an event of the member with this number.
    pub fn event(&mut self, index: usize, members: &mut Members, event: &Happening) {
        let process = index as u32;
        self.count_on_map(index, event);
        match event.kind {
            Kind::ReadAhead => {
                event.moved().for_each(|page| self.curve.came_back(process, page));
            }
            Kind::PopulatedAhead => {
                event.moved().for_each(|page| self.curve.made(process, page));
            }
            Kind::Evicted => event.moved().for_each(|page| self.curve.evicted(process, page)),
            Kind::Takeover if self.takeovers.len() < MOST_MAPS => {
                self.takeovers.push((index, *event));
            }
            Kind::Fork | Kind::Takeover => {}
            _ => self.count_fault(index, members, event),
        }
    }

    /// Counts a correction, of a fault or for a system call.
    fn count_fault(&mut self, index: usize, members: &mut Members, event: &Happening) {
        match event.kind {
            Kind::SwapIn => self.curve.came_back(index as u32, event.page),
            Kind::Anonymous | Kind::Zero => self.curve.made(index as u32, event.page),
            _ => {}
        }
        if event.in_call {
            self.in_calls[event.kind as usize] += 1;
            self.places.others.add(event.took);
        } else {
            self.latency.add(index, event);
            self.places.add(index, members.at(index), event.ip, event.took);
        }
    }

    fn count_on_map(&mut self, index: usize, event: &Happening) {
        if event.page == 0 || !Heat::shows(event.kind) {
            return;
        }
        let (column, doubled) = self.columns.find(event.time.saturating_sub(self.begin));
        for _ in 0..doubled {
            self.heat.values_mut().for_each(Heat::widen);
        }
        if self.heat.len() == MOST_MAPS && !self.heat.contains_key(&index) {
            self.give_way();
        }
        let heat = self.heat.entry(index).or_default();
        match event.kind.is_move() {
            true => heat.add_moves(event, column),
            false => heat.add(event.kind, event.page, column, 1),
        }
    }

    /// Drops the map with the fewest events.
    fn give_way(&mut self) {
        let least = self.heat.iter().min_by_key(|(index, heat)| (heat.events, **index));
        if let Some(index) = least.map(|(index, _)| *index) {
            self.heat.remove(&index);
            self.unmapped += 1;
        }
    }

    /// Keeps a sample of the counters.
    pub fn sample(&mut self, sample: Sample) {
        self.series.add(sample);
    }

    /// The interval at which to read the counters.
    pub const fn period(&self) -> Duration {
        self.series.period()
    }
}

impl Watched {
    /// Writes the page. A failure does not change the exit status.
    pub fn write(mut self, run: &Run) {
        let data = data::of(&mut self, run);
        let title = format!("{} — pagefault", data::command(run.command));
        let page = page::page(&title, &data);
        if let Err(error) = self.gathered.file.write_all(page.as_bytes()) {
            complain!("--report {}: {error}", self.gathered.path.display());
        }
    }
}
