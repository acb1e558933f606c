//! Page accesses, cell by cell: the library, `run`, the kernel and the bare floor.
//!
//! | module | what it holds |
//! |---|---|
//! | `plan` | the cells: a workload with its size, limit, threads, content and regions |
//! | `ways` | the contestants: each way as a command |
//! | `worker` | one measurement, in its own process |
//! | `workload` | which page is accessed next |
//! | `place` | the memory that is measured |
//! | `floor` | the cheapest answer to a fault that there is |
//! | `table` | results as a document and as JSON |
//! | `plot` | results as pictures |

mod floor;
mod place;
mod plan;
mod plot;
mod table;
mod ways;
pub mod worker;
mod workload;

use crate::kernel;
use indicatif::{ProgressBar, ProgressStyle};
use plan::{Cell, Scope};
use std::io;
use std::path::PathBuf;
use ways::{Bench, Way};
use worker::Figures;

#[derive(clap::Args)]
pub struct Arguments {
    /// The command to measure
    #[arg(long, default_value = "target/release/pagefault")]
    pagefault: PathBuf,
    /// How often to measure each cell each way
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Which cells to measure
    #[arg(long, value_enum, default_value_t = Scope::Usual)]
    scope: Scope,
    /// Only workloads whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Only these ways
    #[arg(long, value_enum, value_delimiter = ',')]
    ways: Vec<Way>,
    /// Write the table, the data and the pictures into this folder
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// A cell's figures by way, or why there are none.
pub struct Measured {
    pub cell: Cell,
    pub ways: Vec<(Way, Result<Vec<Figures>, String>)>,
}

/// Measures everything, all ways of a cell in turn. Returns whether all our own ways could be
/// measured.
pub fn run(arguments: &Arguments) -> io::Result<bool> {
    kernel::catch_interrupts()?;
    let machine = crate::machine();
    let bench = Bench::new(&arguments.pagefault)?;
    let ways = if arguments.ways.is_empty() { Way::ALL.to_vec() } else { arguments.ways.clone() };
    let cells = plan::cells(arguments.scope, arguments.only.as_deref());
    if cells.is_empty() {
        return Err(io::Error::other("--only names no workload"));
    }
    let progress = progress(cells.len() * arguments.runs * ways.len());
    let mut results = Vec::new();
    for cell in cells {
        let fits = |way: &&Way| way.can(&cell);
        let mut measured: Vec<_> =
            ways.iter().filter(fits).map(|way| (*way, Ok(Vec::new()))).collect();
        for round in 0..arguments.runs {
            for (way, figures) in &mut measured {
                if kernel::is_interrupted() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                progress.set_message(format!("{cell}, {}", way.name()));
                note(figures, bench.measure(*way, &cell, round as u64 + 1)?);
                progress.inc(1);
            }
        }
        results.push(Measured { cell, ways: measured });
    }
    progress.finish_and_clear();
    tell(arguments, &results, &machine)?;
    let ours = |way: &Way| matches!(way, Way::Library | Way::Run);
    Ok(results.iter().all(|one| one.ways.iter().all(|(way, got)| !ours(way) || got.is_ok())))
}

/// Adds a run; of several failures only the first is kept.
fn note(figures: &mut Result<Vec<Figures>, String>, run: Result<Figures, String>) {
    match (figures.as_mut(), run) {
        (Ok(figures), Ok(run)) => figures.push(run),
        (Ok(_), Err(why)) => *figures = Err(why),
        (Err(_), _) => {}
    }
}

fn tell(arguments: &Arguments, results: &[Measured], machine: &str) -> io::Result<()> {
    let text = table::markdown(results, arguments.runs, machine);
    let data = table::json(results, machine);
    if arguments.json {
        println!("{data:#}");
    } else {
        print!("{text}");
    }
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("access.md"), text)?;
        std::fs::write(folder.join("access.json"), format!("{data:#}\n"))?;
        plot::draw(results, folder)?;
    }
    Ok(())
}

/// A bar on a terminal, nothing elsewhere.
pub fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} {msg}");
    ProgressBar::new(steps as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
