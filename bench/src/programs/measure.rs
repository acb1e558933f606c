//! One run of a program.

use super::list::Program;
use crate::kernel::{Limit, Swap};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs programs in their own directory.
pub struct Runner {
    directory: tempfile::TempDir,
    pagefault: PathBuf,
}

/// The result of a run.
pub struct Outcome {
    /// The time from start to end.
    pub seconds: f64,
    /// The exit status as in a shell: over 128 for a signal.
    pub status: i32,
    /// The checksum of what it printed on standard output.
    pub output: u32,
    /// What it printed, until somebody has compared it.
    pub printed: Printed,
    /// Faults, if they were counted.
    pub faults: u64,
    /// Pages brought back from swap, if they were counted.
    pub pages_in: u64,
    /// The peak of resident memory in bytes, if it was counted.
    pub peak: u64,
}

/// What a run printed.
#[derive(Default)]
pub struct Printed {
    pub output: Vec<u8>,
    pub errors: Vec<u8>,
}

impl Outcome {
    /// Whether output and status are equal.
    pub fn is_as(&self, other: &Self) -> bool {
        (self.status, self.output) == (other.status, other.output)
    }

    /// The figures alone: what many runs printed would fill memory.
    pub fn without_output(self) -> Self {
        Self { printed: Printed::default(), ..self }
    }
}

impl Runner {
    pub fn new(pagefault: &Path) -> io::Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, pagefault: find(pagefault)? })
    }

    /// Makes a program's input, or the part that the previous run has changed.
    pub fn prepare(&self, program: &Program) -> io::Result<()> {
        let made = self.shell(program.prepare).stdout(Stdio::null()).status()?;
        if made.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("{}: its input cannot be made", program.name)))
    }

    /// A shell command in the directory.
    pub fn shell(&self, text: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(text).current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    /// Runs a program plainly.
    pub fn plain(&self, program: &Program) -> io::Result<Outcome> {
        time(&mut self.shell(program.command))
    }

    /// Runs a program under the kernel's limit, or says why that is impossible here.
    pub fn limited(&self, program: &Program) -> io::Result<Result<Outcome, String>> {
        let limit = match Limit::new(program.limit << 20, Swap::Zram) {
            Ok(limit) => limit,
            Err(error) => return Ok(Err(format!("no kernel limit here: {error}"))),
        };
        // The shell moves itself, so that nothing runs outside.
        let text = format!("{}; {}", limit.enter(), program.command);
        let (mut outcome, used) = limit.watch(|| time(&mut self.shell(&text)))?;
        outcome.pages_in = used.pages_in;
        outcome.peak = used.peak;
        Ok(Ok(outcome))
    }

    /// Runs a program under `pagefault run`.
    pub fn managed(&self, program: &Program) -> io::Result<Outcome> {
        let statistics = self.directory.path().join("statistics.json");
        let mut command = Command::new(&self.pagefault);
        command
            .arg("run")
            .arg(format!("--memory={}M", program.limit))
            .args(program.options)
            .arg("--stats=json")
            .arg("--stats-file")
            .arg(&statistics)
            .args(["--", "sh", "-c", program.command])
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        let mut outcome = time(&mut command)?;
        let text = std::fs::read_to_string(&statistics)?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(io::Error::other)?;
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
        outcome.faults = number(&value["faults"]["minor"]) + number(&value["faults"]["major"]);
        outcome.peak = number(&value["peak_resident_bytes"]);
        let areas = value["swap"].as_array().map_or(&[][..], Vec::as_slice);
        outcome.pages_in = areas.iter().map(|area| number(&area["pages_in"])).sum();
        Ok(outcome)
    }
}

/// The command to measure, or what to do if it does not exist.
pub fn find(pagefault: &Path) -> io::Result<PathBuf> {
    pagefault.canonicalize().map_err(|error| {
        let path = pagefault.display();
        io::Error::other(format!("{path}: {error}; build it with `cargo build --release`"))
    })
}

/// Runs a command and measures its time.
pub fn time(command: &mut Command) -> io::Result<Outcome> {
    use std::os::unix::process::ExitStatusExt;
    let begin = Instant::now();
    let ended = command.output()?;
    let seconds = begin.elapsed().as_secs_f64();
    let signal = || ended.status.signal().map_or(-1, |signal| 128 + signal);
    Ok(Outcome {
        seconds,
        status: ended.status.code().unwrap_or_else(signal),
        output: crc32fast::hash(&ended.stdout),
        printed: Printed { output: ended.stdout, errors: ended.stderr },
        faults: 0,
        pages_in: 0,
        peak: 0,
    })
}
