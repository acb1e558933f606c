//! Runs a script on the simulated computer and records what happens.

mod actions;
mod calls;
mod decision;
mod names;
mod processor;
mod sentences;
mod state;
mod story;
mod tap;
mod words;

use crate::model::Explanation;
use pagefault::machine::PAGE_SIZE;
use pagefault::{Config, Manager, NonlinearPolicy};
use pagefault_script::ast::{Arch, Script};
use pagefault_script::machine::StartError;
use pagefault_script::managed::{self, Managed};
use pagefault_script::parse::{ParseError, parse};
use pagefault_script::runner::{Run, setup};
use pagefault_sim::{Alpha, Architecture, Computer, Ia32, Pae, Traced, X86_64};
use processor::Recording;
use std::cell::RefCell;
use std::fmt::{self, Display, Formatter};
use std::rc::Rc;
use std::sync::Arc;
use story::Story;
use tap::Tap;

/// The machine that is watched.
type Watched<A> = Traced<Computer<A>, Tap>;

/// What to explain.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The title.
    pub title: String,
    /// The text beside the script.
    pub prose: String,
    /// The script.
    pub source: String,
    /// The processor; it overrides the script's.
    pub arch: Option<Arch>,
    /// The number of CPUs, if larger than the script's.
    pub cpus: Option<u64>,
}

/// Why a script was not recorded.
#[derive(Debug)]
pub enum RecordError {
    /// The script cannot be read.
    Parse(ParseError),
    /// The computer cannot be built.
    Start(StartError),
    /// The build with the right page size failed.
    Elsewhere(String),
}

impl Display for RecordError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parse(error) => error.fmt(f),
            Self::Start(error) => error.fmt(f),
            Self::Elsewhere(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for RecordError {}

/// Runs a script and explains it.
pub fn record(request: &Request) -> Result<Explanation, RecordError> {
    let script = script(request).map_err(RecordError::Parse)?;
    // The page size is a constant: computers with other pages are not compiled.
    match script.sizes.arch {
        Arch::X86_64 if PAGE_SIZE == 4096 => run::<X86_64>(request, &script),
        Arch::Ia32 if PAGE_SIZE == 4096 => run::<Ia32>(request, &script),
        Arch::Pae if PAGE_SIZE == 4096 => run::<Pae>(request, &script),
        Arch::Alpha if PAGE_SIZE == 8192 => run::<Alpha>(request, &script),
        arch @ (Arch::X86_64 | Arch::Ia32 | Arch::Pae | Arch::Alpha) => {
            return elsewhere(request, arch);
        }
    }
    .map_err(RecordError::Start)
}

/// Passes a script to the build with the other page size.
#[cfg(feature = "alpha")]
fn elsewhere(request: &Request, arch: Arch) -> Result<Explanation, RecordError> {
    let Request { title, prose, source, cpus, .. } = request;
    let told = pagefault_explain_8k::record::json(title, prose, source, arch.name(), *cpus);
    let told = told.map_err(RecordError::Elsewhere)?;
    serde_json::from_str(&told).map_err(|error| RecordError::Elsewhere(error.to_string()))
}

#[cfg(not(feature = "alpha"))]
fn elsewhere(_: &Request, _: Arch) -> Result<Explanation, RecordError> {
    Err(RecordError::Start(StartError::PageSize))
}

/// Like [`record()`], for a caller whose own types are of another build: JSON, or what went wrong.
pub fn json(
    title: &str,
    prose: &str,
    source: &str,
    arch: &str,
    cpus: Option<u64>,
) -> Result<String, String> {
    let (title, prose, source) = (title.into(), prose.into(), source.into());
    let request = Request { title, prose, source, arch: Arch::named(arch), cpus };
    let told = record(&request).map_err(|error| error.to_string())?;
    serde_json::to_string(&told).map_err(|error| error.to_string())
}

/// Parses the script for the requested processor, which decides how many bytes the suffix `p` means.
fn script(request: &Request) -> Result<Script, ParseError> {
    let sized = parse(&request.source)?;
    let arch = request.arch.unwrap_or(sized.sizes.arch);
    let mut script = match arch == sized.sizes.arch {
        true => sized,
        // An `arch` line goes in front; the numbers are corrected below.
        false => parse_as(&request.source, arch)?,
    };
    script.sizes.cpus = request.cpus.unwrap_or(script.sizes.cpus).max(script.sizes.cpus);
    Ok(script)
}

fn parse_as(source: &str, arch: Arch) -> Result<Script, ParseError> {
    let without: String =
        source
            .lines()
            .map(|line| {
                if line.trim_start().starts_with("arch ") {
                    "\n".into()
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
    let mut script = parse(&format!("arch {}\n{without}", arch.name()))
        .map_err(|error| ParseError { line: error.line.saturating_sub(1), ..error })?;
    script.lines.iter_mut().for_each(|line| line.number -= 1);
    Ok(script)
}

fn run<A: Architecture>(request: &Request, script: &Script) -> Result<Explanation, StartError> {
    let number = |n: u64| u32::try_from(n).map_err(|_| StartError::Sizes);
    let config = pagefault_sim::Config {
        frames: number(script.sizes.frames)?,
        cpus: number(script.sizes.cpus)?,
        device_frames: number(script.device_pages())?,
        // The processor does nothing of its own accord, so that a lesson shows only its script.
        ..pagefault_sim::Config::calm()
    };
    let sim = Computer::<A>::try_new(config).map_err(|_| StartError::Sizes)?;
    let tap = Tap::default();
    let machine: Arc<Watched<A>> = Arc::new(Traced::new(sim.clone(), tap.clone()));
    let manager = Manager::new(
        machine,
        Config {
            // As in the textbooks: the pieces of an object stay in one region.
            nonlinear: NonlinearPolicy::Entries,
            observer: Some(Box::new(tap.clone())),
            // A fault reads its own page alone, unless the script is about read-ahead.
            file_read_ahead: script.sizes.read_ahead.unwrap_or(1),
            ..managed::config()
        },
    );
    let story = Rc::new(RefCell::new(Story::new(sim, manager.clone(), tap)));
    let processor = Recording::new(story.clone(), script.sizes.arch);
    let mut managed = Managed::new(manager, processor, &setup(script, 0))?;
    tell(script, &mut managed, &story);
    drop(managed);
    let story = Rc::into_inner(story).expect("the machine is gone").into_inner();
    Ok(story.finish(request, script))
}

/// Runs one line after the other.
fn tell<A: Architecture>(
    script: &Script,
    machine: &mut Managed<Watched<A>, Recording<A>>,
    story: &RefCell<Story<A>>,
) {
    let mut run = Run::new(script, machine);
    for line in &script.lines {
        story.borrow_mut().begin(line);
        let Some(answer) = run.next() else { break };
        let mut story = story.borrow_mut();
        // For all processes: a child inherits names, and the kernel's names are everyone's.
        for process in story.processes() {
            let names = run.names(&process).map(|(name, at, length)| (name.to_owned(), at, length));
            story.names.set(&process, names.collect());
        }
        story.end(line, answer.text);
    }
}
