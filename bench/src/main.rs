//! The yardstick: our speed compared with the kernel's own swap, in one run on this machine.
//!
//! | module | what it holds |
//! |---|---|
//! | `access` | page accesses: the library, `run`, the kernel and the bare floor, cell by cell |
//! | `programs` | whole programs: plain, under `run` and under the kernel's limit |
//! | `kernel` | the peer: a memory cgroup with zram or a swap file, undone at the end |
//!
//! All contestants take turns, so that background load hits them alike.

mod access;
mod kernel;
mod programs;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Compare pagefault with the kernel's own swap, in turns
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Page accesses: each workload by the library, under `run`, by the kernel and by the bare floor
    Access(access::Arguments),
    /// Whole programs: plainly, under `run` and under the kernel's own limit
    Programs(programs::Arguments),
    /// One measurement of `access`, in this process
    #[command(hide = true)]
    Worker(access::worker::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Access(arguments) => access::run(&arguments),
        What::Programs(arguments) => programs::run(&arguments),
        What::Worker(arguments) => access::worker::run(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pagefault-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// The median.
fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

/// The machine on which the figures were taken.
fn machine() -> String {
    let system = rustix::system::uname();
    let processors = std::thread::available_parallelism().map_or(1, Into::into);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    let release = system.release().to_string_lossy().into_owned();
    format!("{processors} processors ({model}), Linux {release}, load {load} at the start")
}
