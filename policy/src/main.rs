//! Compares replacement policies on recorded page accesses.
//!
//! | module | what it holds |
//! |---|---|
//! | `record` | records a program's accesses with valgrind |
//! | `trace` | the steps of a program, in order |
//! | `memory` | a memory of a given size that replays a trace |
//! | `ahead` | read-ahead by runs of misses |
//! | `policies` | which page leaves, with the optimum as the bound |
//! | `list` | FIFO queues |

mod ahead;
mod list;
mod memory;
mod policies;
mod record;
mod trace;

use ahead::Ahead;
use clap::Parser;
use memory::Counts;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use trace::Trace;

/// Record a program's page accesses, or replay them against replacement policies.
#[derive(Parser)]
enum Arguments {
    /// Record a program under valgrind, which slows it down a thousandfold: use a small input
    Record {
        /// The file for the trace
        #[arg(long)]
        out: PathBuf,
        /// The program and its arguments
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// Replay a trace against every policy
    Replay {
        /// The trace
        trace: PathBuf,
        /// The memory size in pages
        #[arg(long, value_parser = at_least_one)]
        frames: usize,
        /// The most pages to read ahead of a run of misses; 0: none
        #[arg(long, default_value_t = 0)]
        ahead: u32,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse() {
        Arguments::Record { out, command } => {
            record::record(&command, &out).map(|steps| eprintln!("{steps} steps"))
        }
        Arguments::Replay { trace, frames, ahead } => Trace::read(&trace).and_then(|trace| {
            let ahead = if ahead == 0 { Ahead::Nothing } else { Ahead::Runs(ahead) };
            print(&table(&trace, frames, ahead))
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pagefault-policy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number: NonZero<usize> = text.parse().map_err(|error| format!("{error}"))?;
    Ok(number.get())
}

/// Prints a table. A reader who has gone is no error.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// In microseconds: the cost of a fault that moves nothing, the extra cost of bringing a page in, and
/// of storing one; measured under `run` with compressed RAM.
const FAULT: f64 = 3.5;
const IN: f64 = 2.5;
const OUT: f64 = 5.0;

/// One line for each policy.
fn table(trace: &Trace, frames: usize, ahead: Ahead) -> String {
    let next = trace.next_uses();
    let mut lines = format!(
        "{} steps, {} pages, {frames} frames\n\n\
         | policy | misses | rescues | pages in | out | moved : OPT | read ahead, wasted | ms |\n\
         |---|---|---|---|---|---|---|---|\n",
        trace.steps.len(),
        trace.pages(),
    );
    let mut bound = None;
    for (name, make) in policies::ALL {
        let mut policy = make(trace.pages(), frames);
        let counts = memory::replay(trace, &next, frames, ahead, &mut *policy);
        let bound = *bound.get_or_insert(counts.moved());
        lines += &line(name, &counts, bound);
    }
    lines
}

fn line(name: &str, counts: &Counts, bound: u64) -> String {
    let Counts { misses, rescues, pages_in, pages_out, used, wasted } = counts;
    let ratio = counts.moved() as f64 / bound.max(1) as f64;
    let faults = (misses + rescues) as f64 * FAULT;
    let time = (faults + *pages_in as f64 * IN + *pages_out as f64 * OUT) / 1000.0;
    format!(
        "| {name} | {misses} | {rescues} | {pages_in} | {pages_out} | {ratio:.2} | {}, {wasted} \
         | {time:.0} |\n",
        used + wasted,
    )
}

#[cfg(test)]
mod tests;
