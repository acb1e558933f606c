//! Results as a document and as data.

use super::worker::Figures;
use super::{Measured, Way};
use crate::median;
use serde_json::{Value, json};
use std::fmt::Write;

/// A figure of a run.
type Figure = fn(&Figures) -> f64;

impl Measured {
    /// The median of a figure over the runs of a way.
    pub fn figure(&self, way: Way, figure: impl Fn(&Figures) -> f64) -> Option<f64> {
        let (_, runs) = self.ways.iter().find(|(one, _)| *one == way)?;
        median(runs.as_ref().ok()?.iter().map(figure))
    }
}

/// The tables, as a document.
pub fn markdown(results: &[Measured], runs: usize, machine: &str) -> String {
    let mut text = format!(
        "# Page accesses\n\n\
         Made by `cargo run --release -p pagefault-bench -- access --out docs/performance`: medians of \
         {runs} runs, all ways taking turns; {machine}.\n\n\
         Each access is a load and a store. *Library*: `pagefault_linux::Memory`. *Run*: the process under \
         `pagefault run`. *Kernel*: a memory cgroup with the same limit, with zram (LZ4) or a swap file; \
         zram's own memory is not charged. *Floor*: `UFFDIO_COPY` of the same bytes for each fault, \
         `madvise` of 64 pages at a time, data lost. A *miss* is an access that takes more than 1 µs. The pages moved \
         are those of the whole process, its filling and warming up included.\n"
    );
    section(&mut text, results, "An access, the mean, in ns", |figures| figures.mean);
    ratios(&mut text, results);
    section(&mut text, results, "A miss, the middle one, in ns", |figures| figures.miss_p50 as f64);
    section(&mut text, results, "A miss, p99, in ns", |figures| figures.miss_p99 as f64);
    section(&mut text, results, "The longest access, in µs", |figures| figures.max as f64 / 1e3);
    section(&mut text, results, "Pages brought in", |figures| figures.pages_in as f64);
    section(&mut text, results, "Processor time of all, in ms", |figures| figures.cpu * 1e3);
    section(&mut text, results, "Most resident, in MiB", |figures| figures.peak as f64 / 1048576.0);
    missing(&mut text, results);
    text
}

fn section(text: &mut String, results: &[Measured], title: &str, figure: Figure) {
    heading(text, title, &Way::ALL.map(Way::name));
    for measured in results {
        let cell = |way| measured.figure(way, figure);
        let show = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.0}"));
        let row = Way::ALL.map(|way| show(cell(way)));
        let _ = writeln!(text, "| {} | {} |", measured.cell, row.join(" | "));
    }
}

/// Ours against the kernel's with zram.
fn ratios(text: &mut String, results: &[Measured]) {
    let names = ["library", "run", "floor", "library, a miss p99", "run, a miss p99"];
    heading(text, "Against the kernel with zram (below 1 is faster)", &names);
    for measured in results {
        let ratio = |way, figure: Figure| {
            let (ours, kernel) = (measured.figure(way, figure), measured.figure(Way::Zram, figure));
            let ratio = ours.zip(kernel).filter(|(_, kernel)| *kernel > 0.0);
            ratio.map_or("–".to_owned(), |(ours, kernel)| format!("{:.2}", ours / kernel))
        };
        let mean: Figure = |figures| figures.mean;
        let p99: Figure = |figures| figures.miss_p99 as f64;
        let row = [
            ratio(Way::Library, mean),
            ratio(Way::Run, mean),
            ratio(Way::Floor, mean),
            ratio(Way::Library, p99),
            ratio(Way::Run, p99),
        ];
        let _ = writeln!(text, "| {} | {} |", measured.cell, row.join(" | "));
    }
}

fn heading(text: &mut String, title: &str, columns: &[&str]) {
    let _ = writeln!(text, "\n## {title}\n\n| | {} |", columns.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(columns.len()));
}

/// What could not be measured, and why.
fn missing(text: &mut String, results: &[Measured]) {
    let mut told = false;
    for measured in results {
        for (way, got) in &measured.ways {
            if let Err(why) = got {
                if !told {
                    text.push_str("\n## Not measured\n\n");
                }
                told = true;
                let _ = writeln!(text, "- {}, {}: {why}", measured.cell, way.name());
            }
        }
    }
}

/// All figures of all runs.
pub fn json(results: &[Measured], machine: &str) -> Value {
    let ways = |measured: &Measured| -> Vec<Value> {
        let one = |(way, got): &(Way, Result<Vec<Figures>, String>)| match got {
            Ok(runs) => json!({ "way": way, "runs": runs }),
            Err(why) => json!({ "way": way, "not_measured": why }),
        };
        measured.ways.iter().map(one).collect()
    };
    let cells = results.iter().map(|one| json!({ "cell": one.cell, "ways": ways(one) }));
    json!({ "machine": machine, "cells": cells.collect::<Vec<_>>() })
}
