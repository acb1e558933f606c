//! Whole programs, measured from outside: a plain run, `pagefault run`, and the kernel's own swap to
//! zram with the same resident limit, taking turns.
//!
//! | module | what it holds |
//! |---|---|
//! | `programs` | the programs, and what each needs |
//! | `measure` | one run of a program |
//! | `kernel` | the peer: a memory cgroup and zram, undone at the end |
//! | `report` | the table |

mod kernel;
mod measure;
mod programs;
mod report;

use clap::Parser;
use measure::{Outcome, Runner};
use programs::Program;
use report::Row;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run programs plainly, managed and under the kernel's own limit, in turn, and compare.
#[derive(Parser)]
struct Arguments {
    /// The command to measure
    #[arg(long, default_value = "target/release/pagefault")]
    pagefault: PathBuf,
    /// How often each program runs each way
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pagefault-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Measures everything; whether all managed runs gave the plain run's output and status.
fn run(arguments: &Arguments) -> std::io::Result<bool> {
    let runner = Runner::new(&arguments.pagefault)?;
    let wanted = |program: &&Program| {
        arguments.only.as_ref().is_none_or(|only| program.name.contains(only.as_str()))
    };
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for program in programs::ALL.iter().filter(wanted) {
        if let Some(missing) = program.missing() {
            left_out.push(format!("{}: {missing} is not installed", program.name));
            continue;
        }
        eprintln!("{}", program.name);
        runner.prepare(program)?;
        let mut row = Row::new(program);
        for _ in 0..arguments.runs {
            row.plain.push(runner.plain(program)?);
            row.managed.push(runner.managed(program)?);
            if !arguments.no_kernel {
                match kernel::run(&runner, program)? {
                    Ok(outcome) => row.kernel.push(outcome),
                    Err(why) if row.kernel.is_empty() => row.why_no_kernel = Some(why),
                    Err(_) => {}
                }
            }
        }
        rows.push(row);
    }
    let text = report::markdown(&rows, &left_out, arguments.runs);
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

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

/// The seconds of some runs, the middle one.
fn seconds(outcomes: &[Outcome]) -> Option<f64> {
    median(outcomes.iter().map(|outcome| outcome.seconds).collect())
}
