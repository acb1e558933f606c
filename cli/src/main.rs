//! The command `pagefault`.
//!
//! | module | what it does |
//! |---|---|
//! | `boot` | `pagefault boot`: a program on the bare PC |
//! | `run` | `pagefault run`: a program whose memory pagefault manages |
//! | `top`, `ctl` | `pagefault top`, `pagefault ctl`: running process trees |
//! | `trees` | finds the managed process trees |
//! | `doctor` | `pagefault doctor`: what this machine offers |
//! | `program` | finds the program for `run` and `boot` |
//! | `status` | their exit statuses and the format of their statistics |
//! | [`pagefault_script`] | `pagefault script`: memory operations on every machine |
//! | [`pagefault_explain`] | `pagefault explain`, `pagefault lessons`: each fault of a script, step by step |
//! | `say` | messages on standard error; a failed write is ignored |
//! | `watch` | collects what `run --report` and `run --trace` show |
//! | `signals` | sets of signals, and a thread's mask |
//! | `size` | sizes with K, M, G and T |
//! | `stack` | a stack of our own where the limit of the caller's is small |

mod boot;
mod ctl;
mod doctor;
mod program;
mod run;
mod say;
mod signals;
mod size;
mod stack;
mod status;
mod top;
mod trees;
mod watch;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use pagefault_explain::command::ExplainArgs;
use pagefault_script::command::ScriptArgs;
use pagefault_script::machine::Catalogue;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  pagefault doctor                                      # whether `run` works on this machine
  pagefault run --memory 256M -- python3 job.py         # a program in less memory than it needs
  pagefault explain --lesson demand-zero                # page faults, step by step

`pagefault help COMMAND` shows a command's options and more examples.";

/// Linux's page-fault handling, outside Linux: run programs in less memory than they need, and see
/// every page fault.
#[derive(Parser)]
#[command(name = "pagefault", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Top(top::Arguments),
    Ctl(ctl::Arguments),
    Boot(boot::Arguments),
    Doctor(doctor::Arguments),
    Script(ScriptArgs),
    Explain(ExplainArgs),
    /// List the lessons of `explain`.
    Lessons,
}

fn main() -> ExitCode {
    stack::with_enough(obey)
}

/// Does what the command line says.
fn obey() -> ExitCode {
    match Arguments::try_parse() {
        Ok(Arguments { command: Command::Run(arguments) }) => run::run(arguments),
        Ok(Arguments { command: Command::Top(arguments) }) => top::run(&arguments),
        Ok(Arguments { command: Command::Ctl(arguments) }) => ctl::run(&arguments),
        Ok(Arguments { command: Command::Boot(arguments) }) => boot::run(&arguments),
        Ok(Arguments { command: Command::Doctor(arguments) }) => doctor::run(&arguments),
        Ok(Arguments { command: Command::Script(arguments) }) => {
            let mut machines = Catalogue::new();
            pagefault_script::managed::add_to(&mut machines);
            if let Ok(command) = std::env::current_exe() {
                pagefault_script::pc::add_to(&mut machines, command);
            }
            pagefault_script::command::run(&arguments, &machines)
        }
        Ok(Arguments { command: Command::Explain(arguments) }) => {
            pagefault_explain::command::explain(&arguments)
        }
        Ok(Arguments { command: Command::Lessons }) => pagefault_explain::command::list(),
        Err(error) => refuse(&error),
    }
}

/// Prints clap's message and returns the exit status of the intended subcommand.
fn refuse(error: &clap::Error) -> ExitCode {
    // If printing fails, there is no other channel for the message.
    let _ = error.print();
    let help = [
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayVersion,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    match std::env::args_os().nth(1) {
        _ if help[..2].contains(&error.kind()) => ExitCode::SUCCESS,
        Some(subcommand) if subcommand == "run" || subcommand == "boot" => {
            ExitCode::from(status::FAILED)
        }
        _ => ExitCode::from(2),
    }
}
