//! Runs a program on the bare PC: `boot --memory 64M --files DIR -- /program arguments`.

use pagefault_pc::command::{self, Report};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (boot, report) = match command::parse(std::env::args_os().skip(1)) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprint!("boot: {error}\n\n{}", command::USAGE);
            return ExitCode::from(2);
        }
    };
    match boot.run() {
        Ok(ended) => {
            if report == Report::Printed {
                eprint!("{}", ended.report);
            }
            ExitCode::from(ended.status)
        }
        Err(error) => {
            eprintln!("boot: {error}");
            ExitCode::from(125)
        }
    }
}
