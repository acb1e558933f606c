//! The subcommand `pagefault script` on its own, with the machines of this crate alone.

use clap::Parser;
use pagefault_script::command::{ScriptArgs, run};
use pagefault_script::machine::Catalogue;
use std::process::ExitCode;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    script: ScriptArgs,
}

fn main() -> ExitCode {
    run(&Cli::parse().script, &Catalogue::new())
}
