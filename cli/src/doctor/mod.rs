//! `pagefault doctor`: what this machine offers, whether `run` works, and how to fix what is missing.
//!
//! `facts` probes the machine, `judge` draws the conclusions, and `advice` has the remedies that
//! `run` prints too.

pub mod advice;
mod facts;
mod judge;

use crate::say;
use facts::Facts;
use judge::{Finding, Need};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

/// Check whether `run` works on this machine, and say how to fix what is missing.
#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 if `pagefault run` works here, 1 if not.")]
pub struct Arguments {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let findings = judge::findings(&Facts::gather());
    let text = if arguments.json { format!("{:#}\n", value(&findings)) } else { table(&findings) };
    say::print(&text);
    if judge::works(&findings, Need::Run) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What `doctor` decides about, by the name in its output.
const WAYS: [(&str, Need); 2] = [("run", Need::Run), ("run --delivery=threads", Need::Threads)];

fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for finding in findings {
        let mark = match (&finding.remedy, finding.need) {
            (None, _) => "",
            (Some(_), Need::Better) => "  (could be better)",
            (Some(_), _) => "  (not enough)",
        };
        let _ = writeln!(text, "  {:<32} {}{mark}", finding.name, finding.value);
    }
    text.push_str("what follows:\n");
    for (way, need) in WAYS {
        let works = if judge::works(findings, need) { "works" } else { "does not work" };
        let _ = writeln!(text, "  {way:<32} {works}");
    }
    let todo: Vec<_> = findings.iter().filter(|finding| finding.remedy.is_some()).collect();
    if !todo.is_empty() {
        text.push_str("what to do:\n");
    }
    for finding in todo {
        let remedy = finding.remedy.as_deref().unwrap_or_default();
        let _ = writeln!(text, "  {}: {remedy}", finding.name);
    }
    format!("this machine:\n{text}")
}

fn value(findings: &[Finding]) -> Value {
    let found: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "name": finding.name,
                "value": finding.value,
                "needed_for": match finding.need {
                    Need::Run => "run",
                    Need::Threads => "threads",
                    Need::Better => "better",
                },
                "suffices": finding.remedy.is_none(),
                "remedy": finding.remedy,
            })
        })
        .collect();
    json!({
        "findings": found,
        "works": {
            "run": judge::works(findings, Need::Run),
            "threads": judge::works(findings, Need::Threads),
        },
    })
}
