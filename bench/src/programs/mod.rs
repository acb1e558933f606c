//! Whole programs, measured from outside: a plain run, `pagefault run`, and the kernel's own swap to
//! zram with the same resident limit, taking turns.
//!
//! | module | what it holds |
//! |---|---|
//! | `differing` | keeps what a run printed that was not as the plain one |
//! | `list` | the programs, and what each needs |
//! | `measure` | one run of a program |
//! | `report` | the table |

mod differing;
mod list;
mod measure;
mod report;

pub use measure::find;

use crate::{kernel, median};
use differing::Differing;
use list::Program;
use measure::{Outcome, Runner};
use report::Row;
use std::io;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// The command to measure
    #[arg(long, default_value = "target/release/pagefault")]
    pagefault: PathBuf,
    /// How often to run each program each way
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only programs whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Leave the kernel's own limit out
    #[arg(long)]
    no_kernel: bool,
    /// Write the table to this file too
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Measures everything. Returns whether all managed runs had the plain run's output and status.
pub fn run(arguments: &Arguments) -> io::Result<bool> {
    kernel::catch_interrupts()?;
    let machine = crate::machine();
    let runner = Runner::new(&arguments.pagefault)?;
    let wanted = |program: &&Program| {
        arguments.only.as_ref().is_none_or(|only| program.name.contains(only.as_str()))
    };
    let programs: Vec<&Program> = list::ALL.iter().filter(wanted).collect();
    if programs.is_empty() {
        return Err(io::Error::other("--only names no program"));
    }
    let progress = crate::access::progress(programs.len() * arguments.runs);
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for program in programs {
        progress.set_message(program.name);
        if let Some(missing) = program.missing() {
            left_out.push(format!("{}: {missing} is not installed", program.name));
            continue;
        }
        match measure_program(&runner, program, arguments, &progress)? {
            Ok(row) => rows.push(row),
            Err(why) => left_out.push(why),
        }
    }
    progress.finish_and_clear();
    let text = report::markdown(&rows, &left_out, arguments.runs, &machine);
    if arguments.json {
        println!("{:#}", report::json(&rows));
    } else {
        print!("{text}");
    }
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, text)?;
    }
    Ok(rows.iter().all(|row| row.managed.iter().all(|run| run.is_as(&row.plain[0]))))
}

/// All runs of one program, or why it cannot be measured.
fn measure_program(
    runner: &Runner,
    program: &Program,
    arguments: &Arguments,
    progress: &indicatif::ProgressBar,
) -> io::Result<Result<Row, String>> {
    let (mut row, mut differing) = (Row::new(program), Differing::new(program.name));
    for _ in 0..arguments.runs {
        if kernel::is_interrupted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        runner.prepare(program)?;
        let mut plain = runner.plain(program)?;
        if plain.status != 0 && row.plain.is_empty() {
            let status = plain.status;
            return Ok(Err(format!("{}: it ends with status {status} by itself", program.name)));
        }
        differing.look("plain", &mut plain)?;
        row.plain.push(plain);
        runner.prepare(program)?;
        let mut managed = runner.managed(program)?;
        differing.look("managed", &mut managed)?;
        row.managed.push(managed);
        if !arguments.no_kernel {
            runner.prepare(program)?;
            match runner.limited(program)? {
                Ok(outcome) => row.kernel.push(outcome.without_output()),
                Err(why) if row.kernel.is_empty() => row.why_no_kernel = Some(why),
                Err(_) => {}
            }
        }
        progress.inc(1);
    }
    Ok(Ok(row))
}

/// The median of the runs' seconds.
fn seconds(outcomes: &[Outcome]) -> Option<f64> {
    median(outcomes.iter().map(|outcome| outcome.seconds))
}
