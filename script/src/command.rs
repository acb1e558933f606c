//! `pagefault script`: the command line of this crate.

use crate::ast::{Script, Sizes};
use crate::diff::compare_told;
use crate::hunt::{Found, Hunt};
use crate::machine::{Catalogue, Entry, Failures, Machine, Simulates, StartError};
use crate::parse::{ParseError, parse};
use crate::random;
use crate::runner::{Run, setup};
use crate::shrink::{Minimal, shrink};
use clap::{ArgGroup, Args};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::{self, Display, Formatter};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

const MACHINES: &str = "\
Machines:
  kernel    this host's own kernel
  sim       the simulated computer
  sim-bare  the same without accessed and dirty bits, and without a frame of zeros
  linux     a Linux process, by userfaultfd
  pc        the bare PC, in QEMU

Examples:
  pagefault script fault.pf --on sim
  pagefault script fault.pf --diff sim,linux,kernel
  pagefault script --random 1000 --seed 7 --diff sim,kernel";

/// Run a script of memory operations on one machine, or compare several.
///
/// Exit status: 0 if the script ran (with --diff: if all answers are equal; with --shrink: if
/// there is nothing to shrink), 1 if answers differ, 2 if the script or the arguments are bad.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("source").required(true).args(["file", "random"]))]
#[command(after_help = MACHINES)]
pub struct ScriptArgs {
    /// The script; - reads standard input
    file: Option<PathBuf>,
    /// The machine to run it on
    #[arg(long, value_name = "MACHINE", conflicts_with = "diff")]
    on: Option<String>,
    /// The machines to compare, separated by commas
    #[arg(long, value_name = "MACHINES", value_delimiter = ',')]
    diff: Option<Vec<String>>,
    /// Write a random script of N lines, or run it with --on or --diff
    #[arg(long, value_name = "LINES")]
    random: Option<usize>,
    /// The seed of the random script and of the simulated CPUs' schedule [default: 0; with
    /// --hunt a new one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Override the script's number of frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "hunt")]
    frames: Option<u64>,
    /// Print the smallest script on which the machines differ in the same way
    #[arg(long, requires = "diff")]
    shrink: bool,
    /// Compare COUNT random scripts with seeds from --seed on, every third with few frames; stop
    /// at the first difference and shrink it
    #[arg(long, value_name = "COUNT", requires_all = ["random", "diff"], conflicts_with = "shrink")]
    hunt: Option<u64>,
    /// Override the script's number of CPUs; the host keeps its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    cpus: Option<u64>,
    /// Print the run's cost to standard error, one line of JSON for each machine
    #[arg(long)]
    stats: bool,
}

/// Runs the command; `catalogue` has the machines of this build.
pub fn run(args: &ScriptArgs, catalogue: &Catalogue) -> ExitCode {
    match attempt(args, catalogue, &mut io::stdout().lock()) {
        Ok(Verdict::Equal) => ExitCode::SUCCESS,
        Ok(Verdict::Different) => ExitCode::from(1),
        // The reader has gone. The script did not fail.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pagefault script: {error}");
            ExitCode::from(2)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Equal,
    Different,
}

fn attempt(
    args: &ScriptArgs,
    catalogue: &Catalogue,
    output: &mut dyn Write,
) -> Result<Verdict, Error> {
    if let Some([name]) = args.diff.as_deref() {
        return Err(Error::OneMachine(name.clone()));
    }
    if let (Some(scripts), Some(names)) = (args.hunt, &args.diff) {
        return hunt(args, scripts, names, catalogue, output);
    }
    let text = source(args)?;
    let (on, diff) = (args.on.as_deref(), args.diff.as_deref());
    if on.is_none() && diff.is_none() {
        if args.random.is_none() {
            return Err(Error::NoMachine);
        }
        output.write_all(text.as_bytes())?;
        return Ok(Verdict::Equal);
    }
    let mut script = parse(&text)?;
    set_sizes(args, &mut script);
    let find = |name: &str| machine(name, catalogue, &script);
    match (on, diff) {
        (Some(name), _) => run_one(args, &script, find(name)?, output),
        (None, names) => {
            let names = names.unwrap_or_default();
            let entries: Vec<&Entry> =
                names.iter().map(|name| find(name)).collect::<Result<_, _>>()?;
            match args.shrink {
                true => print_minimal(args, &script, &entries, output),
                false => run_several(args, &script, &entries, output),
            }
        }
    }
}

/// The script's text.
fn source(args: &ScriptArgs) -> Result<String, Error> {
    if let Some(lines) = args.random {
        let mut script = random::script(lines, seed(args));
        set_sizes(args, &mut script);
        return Ok(script.to_string());
    }
    match args.file.as_deref() {
        None => Err(Error::NoMachine),
        Some(path) if path.as_os_str() == "-" => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Error::Input(path.to_owned(), error))?;
            Ok(text)
        }
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| Error::Input(path.to_owned(), error))
        }
    }
}

fn set_sizes(args: &ScriptArgs, script: &mut Script) {
    script.sizes.cpus = args.cpus.unwrap_or(script.sizes.cpus);
    script.sizes.frames = args.frames.unwrap_or(script.sizes.frames);
}

fn seed(args: &ScriptArgs) -> u64 {
    args.seed.unwrap_or(0)
}

/// The machine called `name`, if it can run the script.
fn machine<'a>(name: &str, catalogue: &'a Catalogue, script: &Script) -> Result<&'a Entry, Error> {
    let Some(entry) = catalogue.find(name) else {
        return Err(Error::UnknownMachine {
            wanted: name.to_owned(),
            known: catalogue.names().collect(),
        });
    };
    if script.injects_failures() && entry.failures == Failures::Refused {
        return Err(Error::CannotFail(entry.name));
    }
    if script.needs_simulation() && entry.simulates == Simulates::Nothing {
        return Err(Error::CannotSimulate(entry.name));
    }
    Ok(entry)
}

fn run_one(
    args: &ScriptArgs,
    script: &Script,
    entry: &Entry,
    output: &mut dyn Write,
) -> Result<Verdict, Error> {
    let mut machine = (entry.start)(&setup(script, seed(args)))?;
    if let Some(texts) = machine.whole(script) {
        for (line, text) in script.lines.iter().zip(texts?) {
            writeln!(output, "{}: {text}", line.number)?;
        }
    } else {
        run_here(script, &mut *machine, output)?;
    }
    output.flush()?;
    if args.stats {
        print_stats(entry.name, &machine.stats());
    }
    Ok(Verdict::Equal)
}

fn run_here(
    script: &Script,
    machine: &mut dyn Machine,
    output: &mut dyn Write,
) -> Result<(), Error> {
    for answer in Run::new(script, machine) {
        writeln!(output, "{}: {}", answer.number, answer.text)?;
    }
    Ok(())
}

fn run_several(
    args: &ScriptArgs,
    script: &Script,
    entries: &[&Entry],
    output: &mut dyn Write,
) -> Result<Verdict, Error> {
    // A script from a file ends soon.
    let lines = args.random.map_or(0, |_| script.lines.len() * entries.len());
    let bar = progress(lines as u64, "lines");
    let compared = compare_told(script, entries, seed(args), &|lines| bar.inc(lines as u64));
    bar.finish_and_clear();
    let comparison = compared?;
    write!(output, "{comparison}")?;
    output.flush()?;
    if args.stats {
        for answers in comparison.machines() {
            print_stats(answers.machine, &answers.stats);
        }
    }
    Ok(if comparison.differences() == 0 { Verdict::Equal } else { Verdict::Different })
}

fn print_minimal(
    args: &ScriptArgs,
    script: &Script,
    entries: &[&Entry],
    output: &mut dyn Write,
) -> Result<Verdict, Error> {
    let Some(minimal) = shrink(script, entries, seed(args))? else {
        eprintln!("pagefault script: the machines answer alike: nothing to shrink");
        return Ok(Verdict::Equal);
    };
    write_minimal(&minimal, output)?;
    Ok(Verdict::Different)
}

fn write_minimal(minimal: &Minimal, output: &mut dyn Write) -> Result<(), Error> {
    let Minimal { text, operations, tried } = minimal;
    write!(output, "# {operations} operations, after {tried} smaller scripts\n{text}")?;
    Ok(output.flush()?)
}

fn hunt(
    args: &ScriptArgs,
    scripts: u64,
    names: &[String],
    catalogue: &Catalogue,
    output: &mut dyn Write,
) -> Result<Verdict, Error> {
    let hunt = Hunt {
        lines: args.random.unwrap_or_default(),
        // More seeds than anybody tries.
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..1 << 48)),
        scripts,
        cpus: args.cpus.unwrap_or(1),
    };
    let script = hunt.script(hunt.seed);
    let entries: Vec<&Entry> =
        names.iter().map(|name| machine(name, catalogue, &script)).collect::<Result<_, _>>()?;
    let bar = progress(scripts, "scripts");
    let (mut operations, mut few) = (0, 0);
    let found = hunt.run(&entries, |script| {
        operations += script.lines.len();
        few += u64::from(script.sizes.frames < Sizes::default().frames);
        bar.inc(1);
    });
    bar.finish_and_clear();
    let (names, from) = (names.join(", "), hunt.seed);
    match found? {
        Found::Nothing => {
            writeln!(
                output,
                "{names}: {scripts} scripts from seed {from} on, {few} of them with few frames, \
                 {operations} operations, all equal"
            )?;
            Ok(Verdict::Equal)
        }
        Found::Difference { seed, frames, seen, minimal } => {
            let lines = hunt.lines;
            writeln!(
                output,
                "# {operations} operations were equal before; the difference is that of"
            )?;
            writeln!(
                output,
                "# --random {lines} --seed {seed} --frames {frames} --cpus {}",
                hunt.cpus
            )?;
            match minimal {
                Some(minimal) => write_minimal(&minimal, output)?,
                None => {
                    // A race may not happen again, so what was seen is all that is known.
                    writeln!(output, "# A second run had no difference. The first:")?;
                    seen.lines().try_for_each(|line| writeln!(output, "# {line}"))?;
                }
            }
            Ok(Verdict::Different)
        }
    }
}

/// A progress bar on standard error, if that is a terminal.
fn progress(length: u64, of: &str) -> ProgressBar {
    if length == 0 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    let template = format!("{{wide_bar}} {{pos}} of {{len}} {of}, {{per_sec}}, {{eta}} to go");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// One JSON object on a line; the names are our own and need no escapes.
fn print_stats(machine: &str, stats: &[(&'static str, u64)]) {
    let counts: String = stats.iter().map(|(name, count)| format!(",\"{name}\":{count}")).collect();
    eprintln!("{{\"machine\":\"{machine}\"{counts}}}");
}

/// Why the script did not run to its end.
#[derive(Debug)]
enum Error {
    Input(PathBuf, io::Error),
    Output(io::Error),
    Parse(ParseError),
    NoMachine,
    OneMachine(String),
    UnknownMachine { wanted: String, known: Vec<&'static str> },
    CannotFail(&'static str),
    CannotSimulate(&'static str),
    Start(StartError),
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Output(error) => error.fmt(f),
            Self::Parse(error) => error.fmt(f),
            Self::NoMachine => f.write_str("say where to run it: --on MACHINE or --diff A,B"),
            Self::OneMachine(name) => {
                write!(
                    f,
                    "{name} alone has nothing to compare with: name more machines, or say --on {name}"
                )
            }
            Self::UnknownMachine { wanted, known } => {
                let known = known.join(", ");
                write!(f, "this build has no machine {wanted:?}; it has: {known}")
            }
            Self::CannotFail(name) => {
                write!(f, "the script has fail lines, and {name} has no device to fail")
            }
            Self::CannotSimulate(name) => {
                write!(f, "the script needs a simulated computer, and {name} is none; sim is one")
            }
            Self::Start(error) => write!(f, "the machine did not start: {error}"),
        }
    }
}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Self {
        Self::Parse(error)
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

#[cfg(test)]
mod tests;
