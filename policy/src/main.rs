//! Replacement and read-ahead policies, compared on what programs did to their pages.

mod ahead;
mod list;
mod memory;
mod policies;
mod trace;

use ahead::Ahead;
use clap::Parser;
use std::path::PathBuf;
use trace::Trace;

/// Replay traces.
#[derive(Parser)]
struct Arguments {
    /// The trace
    trace: PathBuf,
    /// Frames, in pages
    #[arg(long)]
    frames: usize,
    /// Read ahead so many pages
    #[arg(long, default_value_t = 0)]
    ahead: u32,
}

fn main() {
    let a = Arguments::parse();
    let trace = Trace::read(&a.trace).unwrap();
    let next = trace.next_uses();
    println!("{} steps, {} pages, {} frames", trace.steps.len(), trace.pages(), a.frames);
    let ahead = if a.ahead == 0 { Ahead::Nothing } else { Ahead::Runs(a.ahead) };
    let mut best = 0;
    for (name, make) in policies::ALL {
        let mut policy = make(trace.pages(), a.frames);
        let c = memory::replay(&trace, &next, a.frames, ahead, &mut *policy);
        if best == 0 {
            best = c.moved();
        }
        let us = c.misses as f64 * 3.0
            + c.rescues as f64 * 4.0
            + c.pages_in as f64 * 2.5
            + c.pages_out as f64 * 5.0;
        println!(
            "{name:30} miss {:8} soft {:8} in {:8} out {:8} used {:7} wasted {:7} x{:.2}  {:.2}s",
            c.misses,
            c.rescues,
            c.pages_in,
            c.pages_out,
            c.used,
            c.wasted,
            c.moved() as f64 / best as f64,
            us / 1e6
        );
    }
}
