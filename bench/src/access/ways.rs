//! The contestants: each way as a command.

use super::place::Place;
use super::plan::Cell;
use super::worker::{Arguments, Figures};
use super::workload::Workload;
use crate::kernel::{Limit, Swap};
use clap::ValueEnum;
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Who owns the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The library in the process itself
    Library,
    /// The process under `pagefault run`
    Run,
    /// The kernel, with zram
    Zram,
    /// The kernel, with a swap file
    File,
    /// The cheapest ioctl for each fault and nothing else
    Floor,
    /// The kernel without a limit
    Unlimited,
}

impl Way {
    pub const ALL: [Self; 6] =
        [Self::Library, Self::Run, Self::Zram, Self::File, Self::Floor, Self::Unlimited];

    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Run => "run",
            Self::Zram => "kernel, zram",
            Self::File => "kernel, file",
            Self::Floor => "floor",
            Self::Unlimited => "no limit",
        }
    }

    /// Whether this way can run such a cell.
    pub fn can(self, cell: &Cell) -> bool {
        match self {
            // A child does not inherit the library's memory, and the floor has one process and one region.
            Self::Library => cell.workload != Workload::ForkAndWrite,
            Self::Floor => cell.workload != Workload::ForkAndWrite && cell.regions == 1,
            // A device is equally slow for all content, and reads nothing if all is resident.
            Self::File => {
                cell.workload == Workload::Uniform
                    && cell.resident_percent == 50
                    && cell.regions == 1
            }
            Self::Run | Self::Zram | Self::Unlimited => true,
        }
    }

    const fn place(self) -> Place {
        match self {
            Self::Library => Place::Library,
            Self::Floor => Place::Floor,
            Self::Run | Self::Zram | Self::File | Self::Unlimited => Place::Native,
        }
    }
}

/// The program that measures.
pub struct Bench {
    pagefault: PathBuf,
    program: PathBuf,
    directory: tempfile::TempDir,
}

impl Bench {
    pub fn new(pagefault: &Path) -> io::Result<Self> {
        Ok(Self {
            pagefault: crate::programs::find(pagefault)?,
            program: std::env::current_exe()?,
            directory: tempfile::tempdir()?,
        })
    }

    /// One run, or why it failed.
    pub fn measure(&self, way: Way, cell: &Cell, seed: u64) -> io::Result<Result<Figures, String>> {
        match way {
            Way::Library | Way::Floor | Way::Unlimited => {
                finish(Command::new(&self.program).args(words(way, cell, seed)))
            }
            Way::Run => self.run(cell, seed),
            Way::Zram => self.limited(way, cell, seed, Swap::Zram),
            Way::File => self.limited(way, cell, seed, Swap::File),
        }
    }

    fn run(&self, cell: &Cell, seed: u64) -> io::Result<Result<Figures, String>> {
        let statistics = self.directory.path().join("statistics.json");
        let mut command = Command::new(&self.pagefault);
        command.arg("run").arg(format!("--memory={}M", cell.resident())).arg("--stats=json");
        command.arg("--stats-file").arg(&statistics).arg("--").arg(&self.program);
        let mut figures = match finish(command.args(words(Way::Run, cell, seed)))? {
            Ok(figures) => figures,
            Err(why) => return Ok(Err(why)),
        };
        let text = std::fs::read_to_string(&statistics)?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(io::Error::other)?;
        let areas = value["swap"].as_array().map_or(&[][..], Vec::as_slice);
        let sum = |name| areas.iter().filter_map(|area| area[name].as_u64()).sum();
        (figures.pages_in, figures.pages_out) = (sum("pages_in"), sum("pages_out"));
        figures.peak = value["peak_resident_bytes"].as_u64().unwrap_or(0);
        Ok(Ok(figures))
    }

    fn limited(
        &self,
        way: Way,
        cell: &Cell,
        seed: u64,
        swap: Swap,
    ) -> io::Result<Result<Figures, String>> {
        let limit = match Limit::new((cell.resident() as u64) << 20, swap) {
            Ok(limit) => limit,
            Err(error) => return Ok(Err(format!("no kernel limit here: {error}"))),
        };
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{}; exec \"$0\" \"$@\"", limit.enter()));
        command.arg(&self.program).args(words(way, cell, seed));
        let (figures, used) = limit.watch(|| finish(&mut command))?;
        Ok(figures.map(|figures| Figures {
            pages_in: used.pages_in,
            pages_out: used.pages_out,
            peak: used.peak,
            ..figures
        }))
    }
}

/// The worker's arguments.
fn words(way: Way, cell: &Cell, seed: u64) -> Vec<String> {
    let arguments = Arguments {
        place: way.place(),
        workload: cell.workload,
        mib: cell.mib,
        resident: cell.resident(),
        threads: cell.threads,
        content: cell.content,
        regions: cell.regions,
        seed,
    };
    arguments.words()
}

/// Runs a worker to its end, and adds up the processor time of all processes involved.
fn finish(command: &mut Command) -> io::Result<Result<Figures, String>> {
    let before = children();
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output()?;
    let cpu = children() - before;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        let told = told.lines().last().unwrap_or("").to_owned();
        return Ok(Err(format!("{} {told}", output.status)));
    }
    let figures: Figures = serde_json::from_slice(&output.stdout)?;
    Ok(Ok(Figures { cpu, ..figures }))
}

/// The processor time of all children that ended, in seconds.
fn children() -> f64 {
    // SAFETY: all zeros are a valid structure, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
