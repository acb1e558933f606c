//! `pagefault run`: an unmodified program with its memory managed by us.
//!
//! The command stays outside. It holds the shared object and the shared memory ([`object`]), starts
//! the program with both ([`child`]), waits, and reports ([`report`]). All managing happens in the
//! program's own process, by the object.

mod child;
mod object;
mod report;
mod swap;

pub use child::die_of;

use crate::size::Size;
use crate::status::Format;
use crate::{program, status};
use child::Ended;
use pagefault_control::{Config, Control, Delivery, Mapped, SwapSpec};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// The least resident limit that leaves a program room to go on.
const LEAST_MEMORY: Size = Size(1 << 20);

const EXAMPLES: &str = "\
Sizes are bytes, or a number with K, M, G or T (powers of 1024).

Swap areas are filled in the order given; when one is full the next is used:
  ram[:SIZE]          compressed in memory, in at most SIZE on top of --memory
                      (default: half of --memory)
  file:PATH[:SIZE]    in the file PATH, made if it does not exist; an existing one must be
                      empty or former swap of pagefault
  file[::SIZE]        in an unlinked temporary file in $TMPDIR, or else /var/tmp
Without --swap: ram, then file.

Examples:
  pagefault run --memory 256M -- sort --parallel=2 huge.txt
  pagefault run --memory 1G --swap ram:512M --swap file:/scratch/swap:20G -- python3 job.py
  pagefault run --memory 64M --stats=json --stats-file stats.json -- sqlite3 :memory: '.read x.sql'

What is managed: the program's heap and its private anonymous mappings, in every process that it
starts, at most --memory of them resident in each process. Files, shared memory, code and stacks
stay with the kernel. The program must be dynamically linked, for x86-64, with glibc.

Exit status: the program's own; if a signal ends the program, pagefault ends by the same. Or:
  125  pagefault itself failed, or had to stop the program
  126  the program was found and cannot be run
  127  the program was not found";

/// Run a program with its memory managed: at most SIZE of it resident, the rest in swap.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub struct Arguments {
    /// The most memory that stays resident [default: half of the machine's]
    #[arg(long, short, value_name = "SIZE")]
    memory: Option<Size>,
    // Given as an attribute, since the documentation would take the brackets for links.
    #[arg(
        long,
        value_name = "AREA",
        help = "Where pages go that do not fit: ram[:SIZE], file:PATH[:SIZE] or file; may be repeated"
    )]
    swap: Vec<swap::Area>,
    /// Print statistics at the end, on standard error
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true,
          default_missing_value = "table")]
    stats: Option<Format>,
    /// Write the statistics to a file instead
    #[arg(long, value_name = "PATH")]
    stats_file: Option<PathBuf>,
    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROGRAM"
    )]
    command: Vec<OsString>,
}

/// Why the program was not run, or not to its end.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("--memory {0}: too small to work; give at least {LEAST_MEMORY}")]
    TooSmall(Size),
    #[error("--swap: at most {} areas", pagefault_control::MOST_AREAS)]
    TooManyAreas,
    #[error(transparent)]
    Swap(#[from] swap::Error),
    #[error(transparent)]
    Program(#[from] program::Error),
    #[error("--stats-file {}: {source}", path.display())]
    StatsFile { path: PathBuf, source: io::Error },
    #[error("cannot share memory with the program: {0}")]
    Share(#[from] pagefault_control::AttachError),
    #[error("cannot keep the manager in memory: {0}")]
    Object(io::Error),
    #[error("{}: {source}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("cannot wait for the program: {0}")]
    Wait(io::Error),
    #[error("{} ran without being managed: the dynamic linker refused the manager", .0.display())]
    Unmanaged(PathBuf),
    #[error("stopped {}: {message}", program.display())]
    Stopped { program: PathBuf, message: String },
}

impl Error {
    fn status(&self) -> u8 {
        match self {
            Self::Program(error) => error.status(),
            Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                status::NOT_FOUND
            }
            Self::Spawn { .. } => status::CANNOT_RUN,
            _ => status::FAILED,
        }
    }
}

/// Runs the subcommand.
pub fn run(arguments: Arguments) -> ExitCode {
    match supervise(arguments) {
        Ok(Ended::Status(status)) => ExitCode::from(status),
        Ok(Ended::Signal(signal)) => child::die_of(signal),
        Err(error) => {
            eprintln!("pagefault: {error}");
            ExitCode::from(error.status())
        }
    }
}

fn supervise(arguments: Arguments) -> Result<Ended, Error> {
    let config = configure(&arguments)?;
    let program = program::find(&arguments.command[0])?;
    let stats = Stats::prepare(&arguments)?;

    let (shared, control) = Control::create()?;
    control.publish(&config).map_err(|_| Error::TooManyAreas)?;
    let object = object::hold().map_err(Error::Object)?;
    let mut child = child::start(&program, &arguments.command, &object, &shared)?;
    let ended = child.wait().map_err(Error::Wait)?;

    stats.write(&config, &control)?;
    check(&control, child.id(), program)?;
    Ok(ended)
}

/// Works out the configuration, and tries the swap areas.
fn configure(arguments: &Arguments) -> Result<Config, Error> {
    let memory = arguments.memory.unwrap_or_else(half_of_the_machine);
    if memory < LEAST_MEMORY {
        return Err(Error::TooSmall(memory));
    }
    if arguments.swap.len() > pagefault_control::MOST_AREAS {
        return Err(Error::TooManyAreas);
    }
    let default = [swap::Area::RAM, swap::Area::TEMPORARY];
    let areas = if arguments.swap.is_empty() { &default[..] } else { &arguments.swap };
    let swap =
        areas.iter().map(|area| area.resolve(memory)).collect::<Result<Vec<SwapSpec>, _>>()?;
    Ok(Config { limit_bytes: memory.0, delivery: Delivery::Inline, swap })
}

fn half_of_the_machine() -> Size {
    let machine = rustix::system::sysinfo();
    Size(machine.totalram as u64 * u64::from(machine.mem_unit) / 2)
}

/// Looks whether the program was managed to its end.
fn check(control: &Control, process: u32, program: PathBuf) -> Result<(), Error> {
    match control.failure() {
        Some((failed, message)) if failed == process => Err(Error::Stopped { program, message }),
        Some((failed, message)) => {
            // One of the processes that it started: what it makes of that is its own affair.
            eprintln!("pagefault: stopped process {failed}: {message}");
            Ok(())
        }
        None if control.counters.programs.value() == 0 => Err(Error::Unmanaged(program)),
        None => Ok(()),
    }
}

/// Where the statistics go, if anywhere.
struct Stats {
    format: Option<Format>,
    file: Option<(PathBuf, File)>,
}

impl Stats {
    /// Opens the file before the program has run for hours.
    fn prepare(arguments: &Arguments) -> Result<Self, Error> {
        let open = |path: &PathBuf| match File::create(path) {
            Ok(file) => Ok((path.clone(), file)),
            Err(source) => Err(Error::StatsFile { path: path.clone(), source }),
        };
        let file = arguments.stats_file.as_ref().map(open).transpose()?;
        let default = file.is_some().then_some(Format::Table);
        Ok(Self { format: arguments.stats.or(default), file })
    }

    fn write(self, config: &Config, control: &Mapped) -> Result<(), Error> {
        let Some(format) = self.format else { return Ok(()) };
        let text = report::text(format, config, &control.counters);
        match self.file {
            Some((path, mut file)) => io::Write::write_all(&mut file, text.as_bytes())
                .map_err(|source| Error::StatsFile { path, source }),
            None => {
                eprint!("{text}");
                Ok(())
            }
        }
    }
}
