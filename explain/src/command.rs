//! `pagefault explain` and `pagefault lessons`: the command lines.

use crate::html;
use crate::lessons::{self, Lesson};
use crate::model::Explanation;
use crate::record::{RecordError, Request, record};
use crate::text::{Colour, Detail, Lines};
use clap::{ArgGroup, Args};
use pagefault_script::ast::Arch;
use std::fmt::{self, Display, Formatter};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  pagefault explain --lesson copy-on-write                   # in the terminal
  pagefault explain --lesson copy-on-write --html cow.html   # a page to step through in a browser
  pagefault explain --lesson swap --arch ia32 -v             # on another processor, with every detail
  echo 'mmap A 1p rw private anon
  write A \"hi\"' | pagefault explain -                       # a script of your own";

/// Run a script on the simulated computer and explain every fault, step by step.
///
/// Exit status: 0, or 2 when the script or the arguments are bad.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("source").required(true).args(["file", "lesson"]))]
#[command(after_help = EXAMPLES)]
pub struct ExplainArgs {
    /// The script; - reads standard input
    file: Option<PathBuf>,
    /// A lesson of `pagefault lessons`
    #[arg(long, value_name = "NAME")]
    lesson: Option<String>,
    /// Override the script's processor: x86-64, ia32, pae or alpha
    #[arg(long, value_name = "NAME", value_parser = arch)]
    arch: Option<Arch>,
    /// The number of CPUs, if larger than the script's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    cpus: Option<u64>,
    /// Write a page that steps through the explanation to this file
    #[arg(long, value_name = "OUT.html", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// Print the explanation as JSON (docs/explain.md)
    #[arg(long)]
    json: bool,
    /// Print everything: page-table walks in bits, the values behind each answer, every action
    #[arg(short, long)]
    verbose: bool,
}

fn arch(name: &str) -> Result<Arch, String> {
    Arch::named(name).ok_or_else(|| "one of x86-64, ia32, pae, alpha".into())
}

/// Runs the command.
pub fn explain(args: &ExplainArgs) -> ExitCode {
    match attempt(args) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has gone. The script did not fail.
        Err(Error::Output(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pagefault explain: {error}");
            ExitCode::from(2)
        }
    }
}

/// Lists the lessons.
pub fn list() -> ExitCode {
    let width = lessons::ALL.iter().map(|lesson| lesson.name.len()).max().unwrap_or(0);
    let mut out = io::stdout().lock();
    for lesson in lessons::ALL {
        if writeln!(out, "{:width$}  {}", lesson.name, lesson.title()).is_err() {
            return ExitCode::SUCCESS;
        }
    }
    if out.is_terminal() {
        // A reader who has gone needs no hint.
        let _ = writeln!(out, "\nA lesson in the terminal: pagefault explain --lesson NAME");
        let _ = writeln!(
            out,
            "As a page for a browser:  pagefault explain --lesson NAME --html NAME.html"
        );
    }
    ExitCode::SUCCESS
}

fn attempt(args: &ExplainArgs) -> Result<(), Error> {
    let explanation = record(&request(args)?).map_err(Error::Record)?;
    if let Some(path) = &args.html {
        let page = html::page(&explanation).map_err(Error::Json)?;
        return std::fs::write(path, page).map_err(|error| Error::Output(path.clone(), error));
    }
    print(args, &explanation)
}

fn print(args: &ExplainArgs, explanation: &Explanation) -> Result<(), Error> {
    let text = if args.json {
        serde_json::to_string_pretty(explanation).map_err(Error::Json)? + "\n"
    } else {
        let detail = if args.verbose { Detail::All } else { Detail::Short };
        let in_colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let colour = if in_colour { Colour::On } else { Colour::Off };
        Lines { explanation, detail, colour }.to_string()
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::Output("standard output".into(), error))
}

fn request(args: &ExplainArgs) -> Result<Request, Error> {
    let (title, prose, source) = match (&args.lesson, &args.file) {
        (Some(name), _) => {
            let lesson = Lesson::named(name).ok_or_else(|| Error::UnknownLesson(name.clone()))?;
            (lesson.title().into(), lesson.text().into(), lesson.script.into())
        }
        (None, Some(path)) => (title(path), String::new(), read(path)?),
        (None, None) => return Err(Error::NoScript),
    };
    Ok(Request { title, prose, source, arch: args.arch, cpus: args.cpus })
}

fn title(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into())
}

fn read(path: &Path) -> Result<String, Error> {
    let input = |error| Error::Input(path.to_owned(), error);
    if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(input)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(input)
}

/// Why there is no explanation.
#[derive(Debug)]
enum Error {
    Input(PathBuf, io::Error),
    Output(PathBuf, io::Error),
    Record(RecordError),
    Json(serde_json::Error),
    UnknownLesson(String),
    NoScript,
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(path, error) | Self::Output(path, error) => {
                write!(f, "{}: {error}", path.display())
            }
            Self::Record(error) => error.fmt(f),
            Self::Json(error) => error.fmt(f),
            Self::UnknownLesson(name) => {
                write!(f, "there is no lesson {name:?}; `pagefault lessons` lists them")
            }
            Self::NoScript => f.write_str("name a script or a lesson"),
        }
    }
}
