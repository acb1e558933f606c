//! `pagefault run`: runs an unmodified program and manages its memory.
//!
//! | module | what it does |
//! |---|---|
//! | [`launcher`] | starts the supervisor and the program, forwards signals, waits |
//! | [`inherited`] | what the program inherits from our caller |
//! | [`limits`] | limits that are meant for the program, not for us |
//! | [`ask`] | the child that becomes the program: asks the supervisor, executes |
//! | [`supervisor`] | the process that places the runtime in every program of the tree |
//! | [`place`] | how it is placed: boot block, registers |
//! | [`trace`] | `ptrace(2)` |
//! | [`loader`] | the code by which a program maps it |
//! | [`image`] | the runtime's memory image |
//! | [`spawn`] | `fork(2)` |
//! | [`stopped`] | the launcher while the program is stopped |
//! | [`report`], [`swap`] | statistics; swap areas on the command line |
//!
//! The runtime manages the memory, inside the program's own process.

mod ask;
mod compress;
mod image;
mod inherited;
mod launcher;
mod limits;
mod loader;
mod place;
mod report;
pub mod spawn;
mod stopped;
mod supervisor;
mod swap;
pub mod trace;

pub use launcher::die_of;
pub use report::ratio as compression_ratio;
pub use swap::directory as swap_directory;

use crate::doctor::advice;
use crate::program::Found;
use crate::say::say;
use crate::size::Size;
use crate::status::Format;
use crate::watch::{Outputs, Run, Watch};
use crate::{complain, program, status};
use ask::{Failure, Program};
use image::{Image, ImageError};
use launcher::{Child, Ended, Fell, Shared, StartError};
use limits::Limits;
use pagefault_control::{Calls, Config, Control, Delivery, Mapped, Storage};
use rustix::io::Errno;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The smallest resident limit with which a program can make progress.
pub const LEAST_MEMORY: Size = Size(1 << 20);

/// The memory that is shared with the program is larger than this.
const LEAST_SHARED: u64 = 1 << 20;

/// The limit may grow by this factor while the program runs.
const MOST_MEMORY: u64 = 4;

/// The default of `--delivery`.
const DEFAULT_DELIVERY: Choice = Choice::Inline;

/// The runtime's ELF file, from the build script.
static RUNTIME: &[u8] = include_bytes!(env!("PAGEFAULT_RUNTIME"));

const EXAMPLES: &str = "\
Sizes are bytes, or a number with K, M, G or T (powers of 1024).

Swap areas fill up in the order given:
  ram[:SIZE]          compressed in memory; uses at most SIZE on top of --memory
                      (default: half of --memory, at most 16T)
  file:PATH[:SIZE]    in the file PATH, created if missing; an existing file must be empty
                      or former swap of pagefault
  file[::SIZE]        in an unlinked temporary file in $TMPDIR, or else /var/tmp
Default: ram, then file. All processes of the tree share these areas and their SIZE. A file
without SIZE leaves 5 % of its file system free. If /var/tmp takes no file by default, /tmp is tried,
and then RAM is used alone.

Examples:
  pagefault run --memory 256M -- sort --parallel=2 huge.txt
  pagefault run --memory 1G --swap ram:512M --swap file:/scratch/swap:20G -- python3 job.py
  pagefault run --memory 64M --stats=json --stats-file stats.json -- sqlite3 :memory: '.read x.sql'

pagefault manages the private anonymous memory of the program and of every process that it starts,
under one limit. The kernel keeps files, shared memory, code, static data and the initial stack.
Any x86-64 program runs; set-user-ID and unreadable programs run unmanaged.
`pagefault doctor` says whether `run` works on this machine.

Exit status: the program's own. If a signal kills the program, the same signal kills pagefault.
  125  pagefault failed, or had to stop the program
  126  the program cannot be run
  127  the program was not found";

/// Run a program with at most SIZE of its memory resident, the rest in swap.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub struct Arguments {
    /// Resident memory limit of the process tree [default: half of the machine's memory]
    #[arg(long, short, value_name = "SIZE")]
    memory: Option<Size>,
    // An attribute, because rustdoc would take the brackets for links.
    #[arg(
        long,
        value_name = "AREA",
        help = "Swap area for evicted pages: ram[:SIZE], file:PATH[:SIZE] or file; repeatable"
    )]
    swap: Vec<swap::Area>,
    /// Who handles faults: the faulting thread, or a separate process, for debuggers
    #[arg(long, value_enum, default_value_t = DEFAULT_DELIVERY, value_name = "WHO")]
    delivery: Choice,
    // For comparisons, and for programs that read their own code.
    #[arg(long, value_enum, default_value_t = CallChoice::Rewritten, value_name = "HOW", hide = true)]
    calls: CallChoice,
    // For tests: uses this runtime instead of the embedded one.
    #[arg(long, value_name = "PATH", hide = true)]
    runtime: Option<PathBuf>,
    /// Print statistics to standard error at the end
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true,
          default_missing_value = "table")]
    stats: Option<Format>,
    /// Write the statistics to this file instead
    #[arg(long, value_name = "PATH")]
    stats_file: Option<PathBuf>,
    /// Write a report on the program's memory as an HTML page
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write every fault and eviction to a trace file for Perfetto
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROGRAM"
    )]
    command: Vec<OsString>,
}

/// The choices of `--delivery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    /// The faulting thread: fast, for any program
    Inline,
    /// A separate process, so that process_vm_readv and a debugger under `pagefault run` see
    /// evicted memory; needs root, vm.unprivileged_userfaultfd=1 or access to /dev/userfaultfd
    Threads,
}

impl Choice {
    const fn delivery(self) -> Delivery {
        match self {
            Self::Inline => Delivery::Inline,
            Self::Threads => Delivery::Threads,
        }
    }
}

/// The choices of `--calls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CallChoice {
    /// Frequent call sites are rewritten to jump into the runtime
    Rewritten,
    /// Every call traps
    Trapped,
}

impl CallChoice {
    const fn calls(self) -> Calls {
        match self {
            Self::Rewritten => Calls::Rewritten,
            Self::Trapped => Calls::Trapped,
        }
    }
}

/// Why the program did not run to completion.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("--memory {0}: too small to work; give at least {LEAST_MEMORY}")]
    TooSmall(Size),
    #[error("--swap: at most {} areas", pagefault_control::MOST_AREAS)]
    TooManyAreas,
    #[error("--swap: {0} of compressed RAM in all; each process reserves addresses for it, at most {MOST_RAM}", MOST_RAM = swap::MOST_RAM)]
    TooMuchRam(Size),
    #[error(transparent)]
    Swap(#[from] swap::Error),
    #[error(transparent)]
    Program(#[from] program::Error),
    #[error("--stats-file {}: {source}", path.display())]
    StatsFile { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Output { path: PathBuf, source: io::Error },
    #[error("cannot watch the program: {0}")]
    Watch(io::Error),
    #[error("cannot share memory with the program: {0}")]
    Share(#[from] pagefault_control::AttachError),
    #[error("/proc is not mounted; pagefault finds the program's mappings and threads there")]
    NoProc,
    #[error(
        "files may have at most {0} bytes (ulimit -f), but the memory that pagefault shares with the \
         program is a file; raise the hard limit"
    )]
    FileSizeLimit(u64),
    #[error("{}: {source}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("--runtime {}: {source}", path.display())]
    Runtime { path: PathBuf, source: io::Error },
    #[error("cannot start the program: {0}")]
    Start(io::Error),
    #[error("cannot trace the program, and so cannot manage it: {0}\n{advice}", advice = advice::ptrace())]
    Refused(io::Error),
    #[error("the supervisor ended before the program began")]
    Supervisor,
    #[error("the supervisor was killed, and with it {}, which had not started yet", .0.display())]
    Fell(PathBuf),
    #[error(
        "the supervisor was killed, so {} was too: without a supervisor no program can start, and processes \
         cannot give memory to each other", .0.display()
    )]
    Unkept(PathBuf),
    #[error(
        "too few file descriptors: {0}; raise the limit (`ulimit -n 256`, or in \
         /etc/security/limits.conf)"
    )]
    Descriptors(io::Error),
    #[error("cannot wait for the program: {0}")]
    Wait(io::Error),
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
    let limits = Limits::raise();
    match supervise(arguments, &limits) {
        Ok(Ended::Status(status)) => ExitCode::from(status),
        Ok(Ended::Signal(signal)) => die_of(signal),
        Err(error) => {
            complain!("{error}");
            ExitCode::from(error.status())
        }
    }
}

// A frame of its own, which begins after the limit of the stack has been raised.
#[inline(never)]
fn supervise(arguments: Arguments, limits: &Limits) -> Result<Ended, Error> {
    if !Path::new("/proc/self").exists() {
        return Err(Error::NoProc);
    }
    limits.permit(LEAST_SHARED)?;
    let (config, swap) = configure(&arguments)?;
    let program = program::find(&arguments.command[0])?;
    let stats = Stats::prepare(&arguments)?;

    let outputs = Outputs::open(arguments.trace.as_deref(), arguments.report.as_deref())
        .map_err(|(path, source)| Error::Output { path, source })?;

    let create = if outputs.want_events() { Control::create_observed } else { Control::create };
    limits.permit(config.plan().observed_len())?;
    let (shared, control) = create(config.plan())?;
    control.publish(&config).map_err(|_| Error::TooManyAreas)?;
    let tree = Shared { control: &control, memory: &shared, swap: &swap };
    let mut child = start(&arguments, &program, tree, limits)?;
    let watch = Watch::start(&shared, &config, outputs).unwrap_or_else(|error| {
        complain!("{}", Error::Watch(error));
        control.stop_observing();
        None
    });
    let ended = child.wait().map_err(Error::Wait)?;

    let watched = watch.and_then(Watch::finish);

    stats.write(&config, &control);
    if let Some(watched) = watched {
        watched.write(&told(&arguments, &config, &control, ended));
    }
    let fell = child.take_leave(&control);
    match fell {
        Some(Fell::AtItsStart) if ended == Ended::Signal(libc::SIGKILL) => {
            return Err(Error::Fell(program.path));
        }
        // Whatever its status: it may depend on children that were killed.
        Some(Fell::WithTheTree) => return Err(Error::Unkept(program.path)),
        _ => {}
    }
    check(&control, &program.path)?;
    Ok(ended)
}

/// The parts of a report that do not come from watching.
fn told<'a>(arguments: &'a Arguments, config: &Config, control: &Control, ended: Ended) -> Run<'a> {
    Run {
        command: &arguments.command,
        ended: ended.to_string(),
        table: report::text(Format::Table, config, control),
        stats: report::value(config, control),
        limit_bytes: config.limit_bytes,
        areas: config.swap.iter().map(report::area).collect(),
    }
}

/// Starts the program, managed or not.
fn start(
    arguments: &Arguments,
    program: &Found,
    tree: Shared<'_>,
    limits: &Limits,
) -> Result<Child, Error> {
    let to_execute = executable(&program.path, &arguments.command);
    let started = match &program.unmanaged {
        Some(why) => {
            complain!("{why}");
            launcher::start_unmanaged(&to_execute, limits)
        }
        None => {
            let image = runtime(arguments.runtime.as_deref())?;
            launcher::start(&to_execute, tree, &image, limits)
        }
    };
    started.map_err(|error| refused(error, program.path.clone()))
}

/// The runtime: the embedded one, or one from a file.
fn runtime(path: Option<&Path>) -> Result<Image<'static>, Error> {
    let Some(path) = path else { return Ok(Image::parse(RUNTIME)?) };
    let file =
        std::fs::read(path).map_err(|source| Error::Runtime { path: path.to_owned(), source })?;
    Ok(Image::parse(file.leak())?)
}

fn executable(path: &Path, arguments: &[OsString]) -> Program {
    // Arguments and environment variables contain no zero byte.
    let string = |text: &[u8]| CString::new(text).unwrap_or_default();
    let arguments = arguments.iter().map(|argument| string(argument.as_bytes())).collect();
    Program::new(string(path.as_os_str().as_bytes()), arguments)
}

fn refused(error: StartError, program: PathBuf) -> Error {
    match error {
        StartError::Host(errno @ Errno::MFILE) => Error::Descriptors(errno.into()),
        StartError::Host(errno) => Error::Start(errno.into()),
        StartError::Child(Failure::Exec(errno)) => Error::Spawn { program, source: errno.into() },
        StartError::Child(Failure::Refused(errno)) => Error::Refused(errno.into()),
        StartError::Child(Failure::Supervisor) => Error::Supervisor,
        StartError::Child(Failure::Descriptors(errno)) => Error::Descriptors(errno.into()),
    }
}

/// Makes the configuration, and opens the swap files of the tree.
fn configure(arguments: &Arguments) -> Result<(Config, Vec<Option<OwnedFd>>), Error> {
    let memory = arguments.memory.unwrap_or_else(half_of_the_machine);
    if memory < LEAST_MEMORY {
        return Err(Error::TooSmall(memory));
    }
    if arguments.swap.len() > pagefault_control::MOST_AREAS {
        return Err(Error::TooManyAreas);
    }
    let areas = match &arguments.swap[..] {
        [] => swap::default_areas(memory)?,
        areas => areas.iter().map(|area| area.open(memory)).collect::<Result<_, _>>()?,
    };
    let ram = areas.iter().filter(|area| area.spec.storage == Storage::Ram);
    let ram = ram.filter_map(|area| area.spec.bytes).fold(0, u64::saturating_add);
    if ram > swap::MOST_RAM.0 {
        return Err(Error::TooMuchRam(Size(ram)));
    }
    let (swap, files) = areas.into_iter().map(|area| (area.spec, area.file)).unzip();
    let config = Config {
        limit_bytes: memory.0,
        most_bytes: memory.0.saturating_mul(MOST_MEMORY),
        delivery: arguments.delivery.delivery(),
        calls: arguments.calls.calls(),
        room_bytes: room_bytes(),
        swap,
    };
    Ok((config, files))
}

/// The addresses that each process reserves for its tables. Only a host that never overcommits counts them as memory.
fn room_bytes() -> u64 {
    const ROOM: u64 = 4 << 30;
    let is_counted =
        std::fs::read("/proc/sys/vm/overcommit_memory").map_or(true, |mode| mode.starts_with(b"2"));
    if is_counted { 0 } else { ROOM }
}

fn half_of_the_machine() -> Size {
    let machine = rustix::system::sysinfo();
    Size(machine.totalram as u64 * u64::from(machine.mem_unit) / 2)
}

/// Checks whether the program was managed to its end.
fn check(control: &Control, program: &Path) -> Result<(), Error> {
    if let Some((process, message)) = control.failure() {
        // It was another process of the tree; the program itself deals with that.
        complain!("stopped process {process}: {message}");
    }
    match control.own_failure() {
        Some(message) => Err(Error::Stopped { program: program.to_owned(), message }),
        None => Ok(()),
    }
}

/// Where the statistics go, if anywhere.
struct Stats {
    format: Option<Format>,
    file: Option<(PathBuf, File)>,
}

impl Stats {
    /// Opens the file at the start, so that a bad path fails before the program has run for hours.
    fn prepare(arguments: &Arguments) -> Result<Self, Error> {
        let open = |path: &PathBuf| match File::create(path) {
            Ok(file) => Ok((path.clone(), file)),
            Err(source) => Err(Error::StatsFile { path: path.clone(), source }),
        };
        let file = arguments.stats_file.as_ref().map(open).transpose()?;
        let default = file.is_some().then_some(Format::Table);
        Ok(Self { format: arguments.stats.or(default), file })
    }

    /// Writes the statistics. A failure does not change the exit status.
    fn write(self, config: &Config, control: &Mapped) {
        let Some(format) = self.format else { return };
        let text = report::text(format, config, control);
        match self.file {
            Some((path, mut file)) => {
                if let Err(error) = io::Write::write_all(&mut file, text.as_bytes()) {
                    complain!("--stats-file {}: {error}", path.display());
                }
            }
            None => say(format_args!("{text}")),
        }
    }
}
