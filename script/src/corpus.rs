//! The scripts in the folder `corpus/`, each of which pins one requirement.
//!
//! A line's answer follows it in a comment that starts with `#>`. Linux 6.18 gave this answer, and
//! every machine must. `corpus/DEPARTURES.md` lists where it departs from the specification.

use crate::diff::texts;
use crate::machine::{Entry, Failures, Simulates, StartError};
use crate::parse::{ParseError, parse};
use crate::runner::setup;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::Path;

/// One script of the corpus.
#[derive(Clone, Debug)]
pub struct Example {
    /// The file's name without `.pf`.
    pub name: String,
    /// The script.
    pub text: String,
}

impl Example {
    /// The answers in the script's comments, with their line numbers.
    pub fn expected(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines()).filter_map(|(number, line)| {
            let (_, answer) = line.split_once("#> ")?;
            Some((number, answer.trim_end()))
        })
    }

    /// The Linux version, if any, before which the host answers differently: the words
    /// `needs Linux 6.17` in the comment at the top.
    pub fn needs_linux(&self) -> Option<(u32, u32)> {
        let (_, version) = self.text.split_once("needs Linux ")?;
        version_of(version)
    }

    /// Whether this host's kernel is recent enough for the answers; also if its version is unknown.
    pub fn is_for_host(&self) -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let versions = self.needs_linux().zip(version_of(&release));
        versions.is_none_or(|(needed, host)| host >= needed)
    }
}

/// Every script of the corpus by name, from the source tree.
pub fn load() -> io::Result<Vec<Example>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut examples = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pf") {
            examples.push(Example {
                name: path.file_stem().unwrap_or_default().to_string_lossy().into(),
                text: std::fs::read_to_string(&path)?,
            });
        }
    }
    examples.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(examples)
}

/// A line with another answer than the corpus has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The script's name.
    pub script: String,
    /// The line's number.
    pub line: usize,
    /// The machine's answer.
    pub answer: String,
    /// The corpus's answer; `None` if it has none.
    pub expected: String,
}

impl Display for Wrong {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { script, line, answer, expected } = self;
        write!(f, "{script}, line {line}: {answer}, where the corpus says {expected}")
    }
}

/// Runs a script of the corpus on a fresh machine, and returns the answers that differ.
///
/// A script that the machine cannot run, because it has no failing devices or simulated processors,
/// differs nowhere.
pub fn wrong(example: &Example, machine: &Entry, seed: u64) -> Result<Vec<Wrong>, WrongError> {
    let script = parse(&example.text)?;
    let refused = script.injects_failures() && machine.failures == Failures::Refused
        || script.needs_simulation() && machine.simulates == Simulates::Nothing;
    if refused {
        return Ok(Vec::new());
    }
    let answers = texts(&script, &mut *(machine.start)(&setup(&script, seed))?);
    let expected: BTreeMap<usize, &str> = example.expected().collect();
    let numbers = script.lines.iter().map(|line| line.number);
    let wrong = numbers.zip(answers).filter_map(|(line, answer)| {
        let expected = expected.get(&line).copied().unwrap_or_default();
        let (script, expected) = (example.name.clone(), expected.to_owned());
        (answer != expected).then_some(Wrong { script, line, answer, expected })
    });
    Ok(wrong.collect())
}

/// Why a script of the corpus did not run.
#[derive(Debug)]
pub enum WrongError {
    /// It does not parse.
    Parse(ParseError),
    /// The machine did not start.
    Start(StartError),
}

impl Display for WrongError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parse(error) => error.fmt(f),
            Self::Start(error) => write!(f, "the machine did not start: {error}"),
        }
    }
}

impl std::error::Error for WrongError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Parse(error) => Some(error),
            Self::Start(error) => Some(error),
        }
    }
}

impl From<ParseError> for WrongError {
    fn from(error: ParseError) -> Self {
        Self::Parse(error)
    }
}

impl From<StartError> for WrongError {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

/// The first two numbers of a version such as `6.18.44-generic`.
fn version_of(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
