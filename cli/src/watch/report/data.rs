//! The data of a report as JSON, from which the page draws everything.
//!
//! `docs/report.md` describes the fields.

use super::heat::{self, Cell, Heat};
use super::symbols::{self, At, Function};
use super::{Run, Watched};
use crate::watch::members::{Member, Members};
use crate::watch::sample::{COUNTED, Holding, Sample};
use pagefault_control::{Happening, Histogram, Kind};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::UNIX_EPOCH;

const PAGE: u64 = 4096;
/// How many places of the program are listed.
const PLACES: usize = 10;
/// How many processes the charts distinguish.
const PROCESSES: usize = 7;
/// How many processes have a map.
const MAPS: usize = 6;
/// The most rows of a map.
const ROWS: usize = 110;

/// All data of a finished run.
pub fn of(watched: &mut Watched, run: &Run) -> Value {
    let begin = watched.gathered.date.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "format": 1,
        "command": command(run.command),
        "ended": run.ended,
        "began": begin.as_secs(),
        "seconds": seconds(watched.length),
        "limit_bytes": run.limit_bytes,
        "events_lost": watched.lost,
        "stats": run.stats,
        "table": run.table,
        "decision": decision(watched),
        "time": time(watched, run),
        "latency": latency(watched),
        "maps": maps(watched),
        "ahead": {
            "from_swap": ahead(&run.stats, "read_ahead"),
            "fresh": ahead(&run.stats, "populated_ahead"),
        },
        "takeovers": takeovers(watched),
        "places": places(watched),
        "curve": curve(watched, run),
    })
}

/// A command line, shortened for reading.
pub fn command(arguments: &[OsString]) -> String {
    let mut words: Vec<String> =
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(name) = words.first_mut()
        && let Some(file) = Path::new(name.as_str()).file_name()
    {
        *name = file.to_string_lossy().into_owned();
    }
    let line = words.join(" ");
    match line.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// Faults by correction: their number, those for system calls, and their time.
fn decision(watched: &Watched) -> Value {
    let gathered = &watched.gathered;
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_fault());
    let rows = kinds.map(|kind| {
        let time = gathered.latency.of(kind);
        json!({
            "correction": kind.name(),
            "faults": time.count(),
            "in_calls": gathered.in_calls[kind as usize],
            "seconds": seconds(time.sum()),
        })
    });
    rows.collect()
}

/// The counters over time; a rate is that of the interval before its moment.
fn time(watched: &Watched, run: &Run) -> Value {
    let samples = watched.gathered.series.all();
    let rate = |count: &dyn Fn(&Sample) -> u64| -> Vec<f64> {
        let of_pair = |pair: &[Sample]| {
            let elapsed = seconds(pair[1].time - pair[0].time).max(1e-9);
            rounded(count(&pair[1]).saturating_sub(count(&pair[0])) as f64 / elapsed)
        };
        std::iter::once(0.0).chain(samples.windows(2).map(of_pair)).collect()
    };
    let faults: serde_json::Map<String, Value> = COUNTED
        .iter()
        .enumerate()
        .map(|(number, kind)| {
            (kind.name().to_owned(), json!(rate(&|sample| sample.faults[number])))
        })
        .collect();
    let areas = run.areas.iter().enumerate().map(|(area, name)| {
        let stored: Vec<u64> = samples
            .iter()
            .map(|sample| {
                sample.processes.iter().map(|held| u64::from(held.stored[area])).sum::<u64>() * PAGE
            })
            .collect();
        json!({
            "name": name,
            "pages_out": rate(&|sample| sample.pages_out[area]),
            "pages_in": rate(&|sample| sample.pages_in[area]),
            "stored_bytes": stored,
        })
    });
    let areas: Vec<Value> = areas.collect();
    json!({
        "seconds": samples.iter().map(|sample| rounded(seconds(sample.time))).collect::<Vec<_>>(),
        "charged_bytes": samples.iter().map(|sample| sample.charged * PAGE).collect::<Vec<_>>(),
        "evicted": rate(&|sample| sample.evicted),
        "faults": faults,
        "areas": areas,
        "processes": processes(samples, &watched.members, run.areas.len()),
    })
}

/// Three decimals are enough for a chart.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Resident and swapped memory of the largest processes, and of all others together.
fn processes(samples: &[Sample], members: &Members, areas: usize) -> Value {
    let size = |held: &Holding| u64::from(held.resident) + swapped(held, areas);
    let mut most: HashMap<(u32, u32), u64> = HashMap::new();
    for held in samples.iter().flat_map(|sample| &sample.processes) {
        let largest = most.entry((held.slot, held.pid)).or_default();
        *largest = (*largest).max(size(held));
    }
    let mut by_size: Vec<_> = most.into_iter().filter(|(_, most)| *most > 0).collect();
    by_size.sort_by_key(|(who, most)| (std::cmp::Reverse(*most), *who));
    // Many small processes, such as a script's shells, would only fill the legend.
    let least = by_size.first().map_or(0, |(_, largest)| largest / 100);
    let large = by_size.iter().filter(|(_, most)| *most >= least);
    let shown: Vec<(u32, u32)> = large.take(PROCESSES).map(|(who, _)| *who).collect();
    let over_time =
        |of: &dyn Fn(&Holding) -> u64, is_it: &dyn Fn((u32, u32)) -> bool| -> Vec<u64> {
            let sum = |sample: &Sample| {
                let held = sample.processes.iter().filter(|held| is_it((held.slot, held.pid)));
                held.map(of).sum::<u64>() * PAGE
            };
            samples.iter().map(sum).collect()
        };
    let row = |name: String, pid: u32, is_it: &dyn Fn((u32, u32)) -> bool| {
        json!({
            "name": name,
            "pid": pid,
            "resident_bytes": over_time(&|held| held.resident.into(), is_it),
            "swapped_bytes": over_time(&|held| swapped(held, areas), is_it),
        })
    };
    let mut rows: Vec<Value> = shown
        .iter()
        .map(|who| {
            let name = members.name(who.0, who.1).to_owned();
            row(name, who.1, &|other| other == *who)
        })
        .collect();
    if by_size.len() > shown.len() {
        let name = format!("{} others", by_size.len() - shown.len());
        rows.push(row(name, 0, &|other| !shown.contains(&other)));
    }
    rows.into()
}

fn swapped(held: &Holding, areas: usize) -> u64 {
    held.stored[..areas].iter().map(|pages| u64::from(*pages)).sum()
}

fn latency(watched: &Watched) -> Value {
    let gathered = &watched.gathered;
    let kinds = Kind::ALL.into_iter().filter(|kind| gathered.latency.of(*kind).count() > 0);
    let by_kind: Vec<Value> = kinds
        .map(|kind| {
            let time = gathered.latency.of(kind);
            json!({ "correction": kind.name(), "count": time.count(), "ns": durations(time) })
        })
        .collect();
    let worst: Vec<Value> = gathered
        .latency
        .worst()
        .iter()
        .map(|long| {
            let member = watched.members.seen(long.member);
            json!({
                "ns": long.event.took,
                "correction": long.event.kind.name(),
                "major": long.event.major,
                "seconds": seconds(long.event.time.saturating_sub(gathered.begin)),
                "process": member.name,
                "pid": member.pid,
                "address": hex(long.event.page),
                "mapping": member.mapping(long.event.page).map_or("", |(_, mapping)| &mapping.name),
            })
        })
        .collect();
    json!({ "by_correction": by_kind, "worst": worst })
}

fn durations(time: &Histogram) -> Value {
    json!({
        "median": time.percentile(50.0),
        "p99": time.percentile(99.0),
        "max": time.longest(),
        "sum": time.sum(),
    })
}

fn hex(address: u64) -> String {
    format!("{address:#x}")
}

/// The maps of the processes with the most traffic.
fn maps(watched: &Watched) -> Value {
    let heat = &watched.gathered.heat;
    let mut busiest: Vec<usize> = heat.keys().copied().collect();
    busiest.sort_by_key(|index| (std::cmp::Reverse(heat[index].events), *index));
    let width = seconds(watched.gathered.columns.width());
    let shown: Vec<Value> = busiest
        .iter()
        .take(MAPS)
        .map(|index| {
            let member = watched.members.seen(*index);
            json!({
                "name": member.name,
                "pid": member.pid,
                "column_seconds": width,
                "rows": rows(&heat[index], |block| managed(member, block)),
            })
        })
        .collect();
    json!({ "processes": shown, "left_out": busiest.len().saturating_sub(MAPS) + watched.gathered.unmapped })
}

/// The name of a block of managed memory. The block may also contain files and the like.
fn managed(member: &Member, (from, to): (u64, u64)) -> String {
    /// How many pages without a mapping are skipped.
    const GAP: u64 = 16;
    const NAMED: [&str; 3] = ["[heap]", "[stack", "[anon:"];
    let mut at = to - PAGE;
    let mut gap = 0;
    while at >= from && gap < GAP {
        at = match member.mapping(at) {
            // The kernel's own, such as [vdso], are not managed.
            Some((_, mapping)) if NAMED.iter().any(|name| mapping.name.starts_with(name)) => {
                return mapping.name.clone();
            }
            Some((_, mapping)) if mapping.name.is_empty() => break,
            Some((start, _)) => start.saturating_sub(PAGE),
            None => {
                gap += 1;
                at.saturating_sub(PAGE)
            }
        };
    }
    "anonymous".to_owned()
}

/// A row of a map under construction.
struct Row {
    from: u64,
    to: u64,
    name: String,
    blocks: usize,
    cells: Vec<Cell>,
}

/// The rows of a map. Neighbouring blocks of one mapping are merged to limit their number.
fn rows(heat: &Heat, name: impl Fn((u64, u64)) -> String) -> Value {
    let together = heat.blocks().count().div_ceil(ROWS).max(1);
    let mut rows: Vec<Row> = Vec::new();
    for (from, to, cells) in heat.blocks() {
        let name = name((from, to));
        match rows.last_mut() {
            Some(row) if row.name == name && row.to == from && row.blocks < together => {
                row.to = to;
                row.blocks += 1;
                heat::merge(&mut row.cells, cells);
            }
            _ => rows.push(Row { from, to, name, blocks: 1, cells }),
        }
    }
    let row = |row: Row| {
        json!({
            "from": hex(row.from),
            "to": hex(row.to),
            "name": row.name,
            "fresh": row.cells.iter().map(|cell| cell.fresh).collect::<Vec<_>>(),
            "back": row.cells.iter().map(|cell| cell.back).collect::<Vec<_>>(),
            "out": row.cells.iter().map(|cell| cell.out).collect::<Vec<_>>(),
        })
    };
    rows.into_iter().map(row).collect()
}

/// How many pages brought ahead of need were used.
fn ahead(stats: &Value, name: &str) -> Value {
    json!({
        "brought": stats[name],
        "used": stats[format!("{name}_used")],
        "unused": stats[format!("{name}_wasted")],
    })
}

/// When pages were taken over from the host, and how long that stopped the process.
fn takeovers(watched: &Watched) -> Value {
    let gathered = &watched.gathered;
    let row = |(index, event): &(usize, Happening)| {
        let member = watched.members.seen(*index);
        json!({
            "process": member.name,
            "pid": member.pid,
            "seconds": seconds(event.time.saturating_sub(gathered.begin)),
            "took": seconds(event.took),
        })
    };
    gathered.takeovers.iter().map(row).collect()
}

/// The functions that fault most.
fn places(watched: &Watched) -> Value {
    let functions = symbols::by_function(watched.gathered.places.all());
    let total: u64 = functions.iter().map(|(_, cost)| cost.faults).sum();
    let row = |(function, cost): &(Function, super::places::Cost)| {
        let (of, offset) = match function.at {
            None => (None, None),
            Some(At::Function(offset)) => (Some("function"), Some(offset)),
            Some(At::Instruction(offset)) => (Some("instruction"), Some(offset)),
        };
        json!({
            "function": function.name,
            "file": function.file.as_ref().map(|file| file.to_string_lossy()),
            "offset": offset.map(hex),
            "offset_of": of,
            "faults": cost.faults,
            "seconds": seconds(cost.time),
        })
    };
    json!({
        "all_faults": total,
        "in_calls": watched.gathered.places.others.faults,
        "top": functions.iter().take(PLACES).map(row).collect::<Vec<_>>(),
    })
}

/// Pages that would have come back with other limits.
fn curve(watched: &Watched, run: &Run) -> Value {
    /// In percent of the limit.
    const STEPS: [u64; 13] = [100, 105, 110, 120, 130, 140, 150, 175, 200, 250, 300, 350, 400];
    let curve = &watched.gathered.curve;
    let frames = run.limit_bytes / PAGE;
    let back: u64 =
        watched.gathered.series.all().last().map_or(0, |last| last.pages_in.iter().sum());
    let pages = |part: f64| (part * back as f64).round() as u64;
    let points: Vec<Value> = STEPS
        .iter()
        .filter_map(|percent| {
            let left = curve.part_left(frames * (percent - 100) / 100)?;
            Some(json!({
                "limit_bytes": frames * percent / 100 * PAGE,
                "pages_back": pages(left),
            }))
        })
        .collect();
    json!({
        "pages_back": back,
        "points": points,
        "half": curve.with_half(frames).map(|more| json!({
            "limit_bytes": frames / 2 * PAGE,
            "pages_back": pages(more),
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_short() {
        let words = ["/usr/bin/sort", "-S", "4G"].map(OsString::from);
        assert_eq!(command(&words), "sort -S 4G");
        let long = [OsString::from("x".repeat(500))];
        assert_eq!(command(&long).chars().count(), 121);
    }

    #[test]
    fn a_map_has_few_rows_however_many_blocks() {
        let mut heat = Heat::default();
        for page in 0..40_000_u64 {
            heat.add(Kind::Anonymous, page << 12, 0, 1);
        }
        let rows = rows(&heat, |_| "heap".to_owned());
        let rows = rows.as_array().unwrap();
        assert!(rows.len() <= ROWS, "{}", rows.len());
        let fresh: u64 = rows.iter().map(|row| row["fresh"][0].as_u64().unwrap()).sum();
        assert_eq!(fresh, 40_000);
    }
}
