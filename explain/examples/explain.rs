//! The subcommand `pagefault explain` on its own.

use clap::Parser;
use pagefault_explain::command::{ExplainArgs, explain};
use std::process::ExitCode;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    explain: ExplainArgs,
}

fn main() -> ExitCode {
    explain(&Cli::parse().explain)
}
