//! The subcommand `pagefault script` on its own, with all machines of this crate.

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
    let mut catalogue = Catalogue::new();
    pagefault_script::managed::add_to(&mut catalogue);
    run(&Cli::parse().script, &catalogue)
}
