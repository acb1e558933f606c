//! The table of results.

use super::list::Program;
use super::measure::Outcome;
use super::seconds;
use crate::median;
use serde_json::json;
use std::fmt::Write;

/// A program's runs.
pub struct Row {
    name: &'static str,
    limit: u64,
    pub plain: Vec<Outcome>,
    pub managed: Vec<Outcome>,
    pub kernel: Vec<Outcome>,
    /// Why the kernel has no runs.
    pub why_no_kernel: Option<String>,
}

impl Row {
    pub fn new(program: &Program) -> Self {
        let none = Vec::new;
        Self {
            name: program.name,
            limit: program.limit,
            plain: none(),
            managed: none(),
            kernel: none(),
            why_no_kernel: None,
        }
    }

    fn equal(&self) -> String {
        let equal = self.managed.iter().filter(|run| run.is_as(&self.plain[0])).count();
        format!("{equal} of {}", self.managed.len())
    }

    /// The time of the kernel's runs that ended, and how many were killed.
    fn kernel(&self) -> (Option<f64>, usize) {
        let ended: Vec<f64> = self
            .kernel
            .iter()
            .filter(|run| run.is_as(&self.plain[0]))
            .map(|run| run.seconds)
            .collect();
        let killed = self.kernel.len() - ended.len();
        (median(ended), killed)
    }

    fn middle(&self, runs: &[Outcome], figure: impl Fn(&Outcome) -> u64) -> u64 {
        median(runs.iter().map(|run| figure(run) as f64)).unwrap_or(0.0) as u64
    }
}

/// The table, as a document.
pub fn markdown(rows: &[Row], left_out: &[String], runs: usize, machine: &str) -> String {
    let mut text = format!(
        "# Programs under `pagefault run`\n\n\
         Made by `cargo run --release -p pagefault-bench -- programs --markdown docs/programs.md`: medians of \
         {runs} runs, the ways taking turns; {}.\n\n\
         *Equal*: runs with the plain run's output and status. *Kernel*: a memory cgroup with the \
         same limit and zram with LZ4; it charges page cache and code too, which `run` leaves to \
         the kernel. A kill is the cgroup's.\n\n\
         | program | limit | plain | managed | kernel | managed : kernel | faults | pages in, ours | \
         the kernel's | peak | equal |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
        machine
    );
    for row in rows {
        let (plain, managed) = (seconds(&row.plain), seconds(&row.managed));
        let (kernel, killed) = row.kernel();
        let time = |time: Option<f64>| time.map_or("–".to_owned(), |time| format!("{time:.2} s"));
        let ratio = managed.zip(kernel).map(|(ours, kernel)| format!("{:.2}", ours / kernel));
        let kills = if killed > 0 { format!(", {killed} killed") } else { String::new() };
        let _ = writeln!(
            text,
            "| {} | {} MiB | {} | {} | {}{kills} | {} | {} | {} | {} | {:.1} MiB | {} |",
            row.name,
            row.limit,
            time(plain),
            time(managed),
            time(kernel),
            ratio.unwrap_or("–".to_owned()),
            row.middle(&row.managed, |run| run.faults),
            row.middle(&row.managed, |run| run.pages_in),
            row.middle(&row.kernel, |run| run.pages_in),
            row.middle(&row.managed, |run| run.peak) as f64 / f64::from(1 << 20),
            row.equal(),
        );
    }
    if let Some(why) = rows.iter().find_map(|row| row.why_no_kernel.as_ref()) {
        let _ = writeln!(text, "\nNot measured: {why}.");
    }
    for why in left_out {
        let _ = writeln!(text, "\nLeft out: {why}.");
    }
    text
}

/// The figures as data.
pub fn json(rows: &[Row]) -> serde_json::Value {
    let runs = |runs: &[Outcome]| -> Vec<_> {
        runs.iter()
            .map(|run| {
                json!({
                    "seconds": run.seconds,
                    "status": run.status,
                    "output": run.output,
                    "faults": run.faults,
                    "pages_in": run.pages_in,
                    "peak_bytes": run.peak,
                })
            })
            .collect()
    };
    rows.iter()
        .map(|row| {
            json!({
                "program": row.name,
                "limit_mib": row.limit,
                "plain": runs(&row.plain),
                "managed": runs(&row.managed),
                "kernel": runs(&row.kernel),
            })
        })
        .collect()
}
