//! Scripts on the bare PC: the oracle's own program runs on it, as it runs on the host.
//!
//! The PC runs programs of Linux, so nothing is translated for it. Its files contain the command
//! `pagefault` and the script. The command runs the script by system calls, and its answers come
//! back over the console.

use crate::ast::{Script, Sizes};
use crate::machine::{
    Action, Call, Catalogue, Entry, Failures, Machine, Process, Simulates, StartError,
};
use crate::outcome::{Errno, Outcome};
use pagefault_pc::archive::{Content, Single};
use pagefault_pc::boot::MOST_CPUS;
use pagefault_pc::{Boot, BootError, host};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The paths of the command and the script in the PC.
const PROGRAM: &str = "/pagefault";
const SCRIPT: &str = "/script";

/// The size in MiB of the disk for the script's files. The host stores only what is written.
const DISK: u32 = 16 << 10;

/// The time limit of a script, while the host gives the PC a processor.
const LIMIT: Duration = Duration::from_secs(300);

/// Adds the PC to a catalogue. `command` is the command `pagefault` that runs in it.
pub fn add_to(catalogue: &mut Catalogue, command: PathBuf) {
    catalogue.add(Entry {
        name: "pc",
        simulates: Simulates::Nothing,
        failures: Failures::Injected,
        start: Box::new(move |setup| {
            Ok(Box::new(Pc { command: command.clone(), sizes: setup.sizes, faults: Vec::new() }))
        }),
    });
}

/// A PC that boots when it gets a script.
struct Pc {
    command: PathBuf,
    sizes: Sizes,
    faults: Vec<(&'static str, u64)>,
}

/// The kernel's counters that `--stats` prints.
const COUNTERS: [&str; 15] = [
    "minor",
    "major",
    "anonymous",
    "zero",
    "file",
    "swap_in",
    "copy_on_write",
    "reuse",
    "standby",
    "spurious",
    "flushes",
    "cpus",
    "shootdowns_sent",
    "shootdowns_answered",
    "shootdowns_avoided",
];

impl Pc {
    fn boot(&self, script: &Script) -> Result<Boot, StartError> {
        let bring = |error| StartError::Guest(Box::new(error));
        let mut singles = host::bring(&self.command).map_err(bring)?;
        let program = host::stripped(&self.command).map_err(bring)?;
        let size = program.len() as u64;
        singles[0] = Single { path: PROGRAM.into(), content: Content::Program(program) };
        let text = Content::Data(script.to_string().into_bytes());
        singles.push(Single { path: SCRIPT.into(), content: text });
        let mut boot = Boot::new(Path::new(""), &[PROGRAM, "script", SCRIPT, "--on", "kernel"]);
        boot.files.clear();
        boot.singles = singles;
        boot.settings = ["nonlinear=regions", "overcommit=always"].map(String::from).to_vec();
        if self.sizes.read_ahead == Some(1) {
            boot.settings.push("file_read_ahead=1".into());
        }
        boot.limit = Some(LIMIT);
        let cpus = u32::try_from(self.sizes.cpus).ok().filter(|cpus| *cpus <= MOST_CPUS);
        boot.cpus = cpus.ok_or(StartError::Sizes)?;
        boot.disk = DISK;
        // The script's frames, besides those of the files and the kernel itself.
        let bytes = self.sizes.frames.saturating_mul(4096).saturating_add(size);
        let mebibytes = |bytes: u64| u32::try_from(bytes.div_ceil(1 << 20));
        boot.memory = mebibytes(bytes.saturating_add(16 << 20)).map_err(|_| StartError::Sizes)?;
        let swap = self.sizes.swap.saturating_mul(4096);
        boot.swap = mebibytes(swap).map_err(|_| StartError::Sizes)?;
        Ok(boot)
    }

    fn run(&mut self, script: &Script) -> Result<Vec<String>, StartError> {
        let failed = |error: BootError| StartError::Pc(Box::new(error));
        let ended = self.boot(script)?.capture().map_err(failed)?;
        let counters = ended.counters();
        self.faults = COUNTERS.map(|name| (name, counters.get(name).copied().unwrap_or(0))).into();
        let output = String::from_utf8_lossy(&ended.output);
        let answers = output.lines().filter_map(|line| line.split_once(": "));
        let texts: Vec<String> = answers.map(|(_, text)| text.to_owned()).collect();
        if texts.len() == script.lines.len() {
            return Ok(texts);
        }
        eprint!("{output}{}", ended.report);
        Err(StartError::Short(texts.len()))
    }
}

impl Machine for Pc {
    fn perform(&mut self, _: Process, _: &Call<'_>) -> Outcome {
        Outcome::Errno(Errno::EOPNOTSUPP)
    }

    fn act(&mut self, _: &Action<'_>) -> Outcome {
        Outcome::Errno(Errno::EOPNOTSUPP)
    }

    fn whole(&mut self, script: &Script) -> Option<Result<Vec<String>, StartError>> {
        Some(self.run(script))
    }

    fn stats(&mut self) -> Vec<(&'static str, u64)> {
        self.faults.clone()
    }
}
