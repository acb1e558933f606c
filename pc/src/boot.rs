//! A machine with a program: what it is made of, and running it.

use crate::archive::{self, Single};
use crate::kernel::{self, KernelError};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The emulator, and the Debian package that has it.
const QEMU: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// The most processors that the kernel uses.
pub const MOST_CPUS: u32 = 8;

/// The MiB that the kernel and the start of a program need beside the files.
const LEAST_MEMORY: u32 = 8;

/// How long a machine may be silent at the beginning. It speaks within a second, in QEMU's own
/// translation too, where the host has time for it.
const PATIENCE: Duration = Duration::from_secs(180);

/// The largest swap device in MiB: its pages are counted in 32 bits.
const MOST_SWAP: u32 = ((u32::MAX as u64 * 4096) >> 20) as u32;

/// How often it is looked whether the machine has ended.
const GLANCE: Duration = Duration::from_millis(5);

/// What carries out the machine's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU's own translation, which works everywhere.
    #[default]
    Tcg,
    /// The host's processor.
    Kvm,
}

/// A machine and the program to run on it.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The size of memory in MiB.
    pub memory: u32,
    /// How many processors the machine has, at most [`MOST_CPUS`].
    pub cpus: u32,
    /// The size of the swap device in MiB; 0 for none.
    pub swap: u32,
    /// The size in MiB of the disk for the files below `/disk`; 0 for none.
    pub disk: u32,
    /// The directories whose files the machine has.
    pub files: Vec<PathBuf>,
    /// Further files, which those of the directories override.
    pub singles: Vec<Single>,
    /// The program and its arguments.
    pub command: Vec<Vec<u8>>,
    /// What the kernel is told, as words of the form `name=value`.
    pub settings: Vec<String>,
    /// What carries out the instructions.
    pub accelerator: Accelerator,
    /// The processor's model, as QEMU names it.
    pub processor: String,
    /// Further arguments for QEMU.
    pub further: Vec<String>,
    /// How long the program may run, if there is a limit. Time in which the host gives the machine no processor
    /// does not count.
    pub limit: Option<Duration>,
    /// When this becomes true, the machine is stopped.
    pub stop: Arc<AtomicBool>,
}

impl Boot {
    /// A machine of one processor and 64 MiB without swap, with the files of a directory.
    pub fn new(files: &Path, command: &[&str]) -> Self {
        Self {
            memory: 64,
            cpus: 1,
            swap: 0,
            disk: 0,
            files: vec![files.to_path_buf()],
            singles: Vec::new(),
            command: command.iter().map(|text| text.as_bytes().to_vec()).collect(),
            settings: Vec::new(),
            accelerator: Accelerator::Tcg,
            processor: String::from("qemu64"),
            further: Vec::new(),
            limit: None,
            stop: Arc::default(),
        }
    }

    /// Makes the machine's clock count instructions, one a nanosecond, so that a program's
    /// measurements repeat exactly. For QEMU's own translation only.
    pub fn count_instructions(&mut self) {
        let arguments = ["-icount", "shift=0,sleep=off,align=off", "-rtc", "clock=vm"];
        self.further.extend(arguments.map(String::from));
    }
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// The program's exit status, as a shell shows it: 128 and the signal's number if one killed it.
    pub status: u8,
    /// What the program printed, where it was asked to be kept.
    pub output: Vec<u8>,
    /// What the kernel reported.
    pub report: String,
}

impl Ended {
    /// The kernel's counters by name.
    pub fn counters(&self) -> BTreeMap<&str, u64> {
        self.report
            .lines()
            .filter_map(|line| line.strip_prefix("counter ")?.split_once(' '))
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect()
    }
}

/// Why a program could not be run to its end.
#[derive(Debug)]
pub enum BootError {
    /// QEMU is not installed.
    NoQemu,
    /// There is no kernel.
    Kernel(KernelError),
    /// A file could not be read or written.
    Io(io::Error),
    /// Memory of so many MiB has no room for the files; so many are needed.
    TooSmall {
        /// What the machine was to have.
        memory: u32,
        /// What it needs.
        least: u32,
    },
    /// The swap device of so many MiB cannot be used: it is too large for the machine's memory.
    Swap(u32),
    /// What the program printed could not be written.
    Output(io::Error),
    /// The machine was stopped.
    Stopped,
    /// QEMU ended, or was stopped after a while, before the kernel said anything.
    Silent(Accelerator),
    /// KVM is there and cannot run the kernel, or is not there; this is what QEMU said.
    Kvm(String),
    /// The kernel could not start the first program: an error number.
    NotStarted(u32),
    /// The machine ended without an exit status; this is what the kernel reported.
    Crashed(String),
    /// The program ran longer than it may.
    TimedOut(Ended),
}

impl From<io::Error> for BootError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for BootError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoQemu => write!(f, "{QEMU} was not found; Debian's package is {PACKAGE}"),
            Self::Kernel(error) => error.fmt(f),
            Self::Io(error) => write!(f, "{error}"),
            Self::TooSmall { memory, least } => {
                write!(f, "{memory}M of memory has no room for the files; give at least {least}M")
            }
            Self::Swap(size) => {
                write!(
                    f,
                    "{size}M of swap is too much for the machine: its map has no room in memory"
                )
            }
            Self::Output(error) => write!(f, "standard output: {error}"),
            Self::Stopped => f.write_str("stopped"),
            Self::Silent(Accelerator::Tcg) => f.write_str("the machine did not start"),
            Self::Silent(Accelerator::Kvm) => {
                f.write_str("the machine did not start under KVM; use --accel tcg")
            }
            Self::Kvm(said) => {
                write!(f, "KVM cannot run the kernel on this host ({said}); use --accel tcg")
            }
            Self::NotStarted(number) => {
                let error = io::Error::from_raw_os_error(*number as i32);
                write!(f, "the program cannot be started: {error}")
            }
            Self::Crashed(report) => write!(f, "the kernel stopped; its report:\n{report}"),
            Self::TimedOut(ended) => write!(f, "the program ran too long:\n{}", ended.report),
        }
    }
}

impl std::error::Error for BootError {}

/// Where the program's input comes from and its output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// This process's own standard input and output.
    Inherited,
    /// No input; the output is kept.
    Kept,
}

/// Whether QEMU is installed.
pub fn is_available() -> bool {
    Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_ok()
}

impl Boot {
    /// Runs the program with this process's input and output.
    pub fn run(&self) -> Result<Ended, BootError> {
        self.start(Console::Inherited)
    }

    /// Runs the program without input and keeps its output.
    pub fn capture(&self) -> Result<Ended, BootError> {
        self.start(Console::Kept)
    }

    fn start(&self, console: Console) -> Result<Ended, BootError> {
        if !is_available() {
            return Err(BootError::NoQemu);
        }
        if self.swap > MOST_SWAP {
            return Err(BootError::Swap(self.swap));
        }
        let directory = tempfile::tempdir()?;
        let kernel = kernel::locate(directory.path()).map_err(BootError::Kernel)?;
        let archive = directory.path().join("archive");
        self.pack(&archive)?;
        let report = directory.path().join("report");
        let mut command = self.qemu(&kernel, &archive, &report);
        for (name, size) in [("swap", self.swap), ("files", self.disk)] {
            if size > 0 {
                command.args(disk(directory.path(), name, size)?);
            }
        }
        // A group of its own: what the terminal sends is for us, who stop the machine.
        command.process_group(0);
        end_with_us(&mut command);
        let complaints = match self.accelerator {
            Accelerator::Tcg => Stdio::inherit(),
            Accelerator::Kvm => Stdio::piped(),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complaints);
        let mut qemu = Qemu(command.spawn()?);
        let complaint = Complaint::listen(&mut qemu.0);
        let speaks = Arc::new(AtomicBool::new(false));
        let output = connect(&mut qemu.0, console, speaks.clone())?;
        let outcome = self.watch(&mut qemu, &output, &report, &speaks, &complaint)?;
        drop(qemu);
        let output = output.join().unwrap_or_else(|_| Ok(Vec::new())).map_err(BootError::Output)?;
        let report = String::from_utf8_lossy(&fs::read(&report)?).into_owned();
        match outcome {
            Outcome::Ended => self.judge(output, report),
            Outcome::Silent => Err(match complaint.finally() {
                Some(said) => BootError::Kvm(said),
                None => BootError::Silent(self.accelerator),
            }),
            Outcome::Failed(said) => Err(BootError::Kvm(said)),
            Outcome::TimedOut => Err(BootError::TimedOut(Ended { status: 0, output, report })),
            Outcome::Stopped => Err(BootError::Stopped),
        }
    }

    /// Waits until the machine has ended, or there is a reason to stop it.
    fn watch(
        &self,
        qemu: &mut Qemu,
        output: &Output,
        report: &Path,
        has_spoken: &AtomicBool,
        complaint: &Complaint,
    ) -> io::Result<Outcome> {
        let start = Instant::now();
        let mut speaks = false;
        loop {
            let has_ended = qemu.0.try_wait()?.is_some();
            // It may have said it with its last breath.
            if !speaks && fs::metadata(report).is_ok_and(|report| report.len() > 0) {
                speaks = true;
                has_spoken.store(true, Ordering::Release);
            }
            // QEMU stays, with a machine that is stopped.
            if let Some(said) = complaint.so_far().filter(|said| said.starts_with(KVM_FAILED)) {
                return Ok(Outcome::Failed(said));
            }
            let elapsed = start.elapsed();
            // On a busy host the machine may get no processor for minutes, and is not to blame.
            let is_late =
                |limit| elapsed > limit && elapsed - starved(qemu.0.id(), elapsed) > limit;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Stopped);
            }
            if has_ended || !speaks && is_late(PATIENCE) {
                return Ok(if speaks { Outcome::Ended } else { Outcome::Silent });
            }
            if output.is_finished() {
                // Nobody wants to hear more, or QEMU is about to end.
                return Ok(Outcome::Ended);
            }
            if self.limit.is_some_and(is_late) {
                return Ok(Outcome::TimedOut);
            }
            thread::sleep(GLANCE);
        }
    }

    /// What a machine's report says about how it ended.
    fn judge(&self, output: Vec<u8>, report: String) -> Result<Ended, BootError> {
        let last = |prefix| report.lines().rev().find_map(|line| line.strip_prefix(prefix));
        if last("the swap device cannot be used").is_some() {
            return Err(BootError::Swap(self.swap));
        }
        if let Some(error) = last("cannot start the first program: Errno(") {
            let number = error.trim_end_matches(')').parse();
            return Err(number.map_or(BootError::Crashed(report), BootError::NotStarted));
        }
        match last("exit ").and_then(|status| status.parse().ok()) {
            Some(status) => Ok(Ended { status, output, report }),
            None => Err(BootError::Crashed(report)),
        }
    }

    /// Writes the archive, and looks whether memory has room for it.
    fn pack(&self, archive: &Path) -> Result<(), BootError> {
        let file = io::BufWriter::new(File::create(archive)?);
        archive::write(file, &self.singles, &self.files, &self.command)?;
        let size = fs::metadata(archive)?.len().div_ceil(1 << 20);
        let least = u32::try_from(size).unwrap_or(u32::MAX).saturating_add(LEAST_MEMORY);
        if self.memory < least {
            return Err(BootError::TooSmall { memory: self.memory, least });
        }
        Ok(())
    }

    fn qemu(&self, kernel: &Path, archive: &Path, report: &Path) -> Command {
        let mut command = Command::new(QEMU);
        let accelerator = match self.accelerator {
            Accelerator::Tcg => "tcg",
            Accelerator::Kvm => "kvm",
        };
        command
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-accel", accelerator])
            .args(["-cpu", &self.processor, "-m", &format!("{}M", self.memory)])
            .args(["-smp", &self.cpus.to_string()])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(archive)
            .args(["-append", &self.settings.join(" ")])
            .args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"])
            .args(["-serial", &format!("file:{}", report.display())])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .args(&self.further);
        command
    }
}

/// An empty disk of so many MiB, which the machine knows by its name.
fn disk(directory: &Path, name: &str, size: u32) -> io::Result<[String; 4]> {
    let path = directory.join(name);
    File::create(&path)?.set_len(u64::from(size) << 20)?;
    // A host without room is an error of the device, not a reason to wait for room.
    let drive = format!(
        "if=none,id={name},format=raw,cache=unsafe,werror=report,rerror=report,file={}",
        path.display()
    );
    let device = format!("virtio-blk-pci,drive={name},serial={name}");
    Ok(["-drive".into(), drive, "-device".into(), device])
}

/// What ends the input: the machine's console has no other way to say so.
const END: u8 = 4;

/// Has the host kill a process when the thread that starts it ends, as by `kill -9`.
#[allow(unsafe_code)]
fn end_with_us(command: &mut Command) {
    let ask = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec this makes one system call, which allocates nothing and takes no lock.
    unsafe { command.pre_exec(ask) };
}

/// How much of the time since its start a process was ready to run and got no processor: the longest of its
/// threads.
fn starved(pid: u32, most: Duration) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let waits = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        wait_in(&text)
    });
    // A host that counts nothing is not busy.
    waits.max().unwrap_or_default().min(most)
}

/// The time on a run queue in a line of `/proc/PID/schedstat`: nanoseconds that a thread ran, that it waited, and
/// how often it ran.
fn wait_in(schedstat: &str) -> Option<Duration> {
    let wait = schedstat.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(wait))
}

/// QEMU, which does not outlive this value.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself, and then neither is needed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How QEMU begins to say that KVM met what it cannot carry out.
const KVM_FAILED: &str = "KVM internal error";

/// What QEMU complains about, where that is not passed on.
struct Complaint {
    /// The first line of its standard error that is no warning; what follows are registers.
    first: Arc<Mutex<Option<String>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Complaint {
    fn listen(child: &mut Child) -> Self {
        let first = Arc::default();
        let reader = child.stderr.take().map(|stderr| {
            let first: Arc<Mutex<Option<String>>> = Arc::clone(&first);
            thread::spawn(move || {
                for line in io::BufReader::new(stderr).lines().map_while(Result::ok) {
                    let line = line.trim_start_matches("qemu-system-x86_64: ");
                    if !line.starts_with("warning: ") {
                        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                        first.get_or_insert_with(|| line.trim_end_matches('.').to_owned());
                    }
                }
            })
        });
        Self { first, reader }
    }

    fn so_far(&self) -> Option<String> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All of it, of a QEMU that has ended.
    fn finally(self) -> Option<String> {
        // A reader that panicked has kept what it had read.
        let _ = self.reader.map(thread::JoinHandle::join);
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Why a machine is no longer watched.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It ended, or its output has nowhere to go.
    Ended,
    /// It said nothing for too long, or ended before it said anything.
    Silent,
    /// KVM could not go on; this is what QEMU said.
    Failed(String),
    /// It ran too long.
    TimedOut,
    /// Someone wants it stopped.
    Stopped,
}

/// What passes the output on and returns what was kept of it.
type Output = thread::JoinHandle<io::Result<Vec<u8>>>;

/// Connects the machine's console. Input is given to it once it speaks: before, its line loses what
/// arrives.
fn connect(child: &mut Child, console: Console, speaks: Arc<AtomicBool>) -> io::Result<Output> {
    let mut input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    thread::spawn(move || {
        while !speaks.load(Ordering::Acquire) {
            if Arc::strong_count(&speaks) == 1 {
                // Nobody watches any more: it never spoke.
                return;
            }
            thread::sleep(GLANCE);
        }
        if console == Console::Inherited {
            // The machine may end before its input does.
            let _ = io::copy(&mut io::stdin().lock(), &mut input);
        }
        let _ = input.write_all(&[END]);
        // QEMU would take a closed input for the end of the machine's terminal.
        thread::park();
    });
    Ok(thread::spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = output.read(&mut buffer) {
            match console {
                Console::Kept => kept.extend(&buffer[..n]),
                Console::Inherited => {
                    let mut stdout = io::stdout().lock();
                    stdout.write_all(&buffer[..n])?;
                    stdout.flush()?;
                }
            }
        }
        Ok(kept)
    }))
}

#[cfg(test)]
mod tests;
