//! `pagefault boot`: an unmodified program on the bare PC, in QEMU, under a kernel whose memory
//! pagefault manages.

use crate::run::die_of;
use crate::say::say;
use crate::size::Size;
use crate::status::Format;
use crate::{program, status};
use clap::ValueEnum;
use pagefault_pc::boot::{Accelerator, MOST_CPUS};
use pagefault_pc::host::{BringError, bring};
use pagefault_pc::{Boot, BootError, Ended};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const HELP: &str = "\
The machine searches for PROGRAM among the files of --files, by its path or in /bin, /usr/bin,
/sbin and /usr/sbin. Otherwise it gets the host's, with its interpreter and libraries.

Examples:
  pagefault boot --memory 64M -- busybox sh -c 'echo hello'
  pagefault boot --memory 32M --swap 256M --files root --stats=json -- /bin/sort /numbers.txt

Exit status: the program's own, as a shell shows it. Or:
  125  pagefault itself failed, or the machine did
  126  the program was found but cannot be run
  127  the program was not found";

/// Boot a small kernel around pagefault in QEMU and run a program on it.
#[derive(clap::Args)]
#[command(after_long_help = HELP, after_help = HELP)]
pub struct Arguments {
    /// The machine's memory
    #[arg(long, short, value_name = "SIZE", default_value = "64M")]
    memory: Size,
    /// The number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CPUS)))]
    cpus: u32,
    /// The size of a swap device [default: none]
    #[arg(long, value_name = "SIZE")]
    swap: Option<Size>,
    /// The size of an empty disk, mounted on /disk [default: none]
    #[arg(long, value_name = "SIZE")]
    disk: Option<Size>,
    /// A directory with files for the machine; repeatable
    #[arg(long, value_name = "DIR")]
    files: Vec<PathBuf>,
    /// Print the kernel's counters to standard error at the end
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true,
          default_missing_value = "table")]
    stats: Option<Format>,
    /// What executes the machine's instructions
    #[arg(long, value_name = "KIND", default_value = "tcg")]
    accel: Accel,
    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROGRAM"
    )]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Accel {
    /// QEMU's own translation, which works everywhere
    Tcg,
    /// The host's processor
    Kvm,
}

/// Why the program did not run to completion.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{option} {size}: a PC cannot have this size")]
    Size { option: &'static str, size: Size },
    #[error("--files {}: {source}", path.display())]
    Files { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Program(#[from] program::Error),
    #[error(transparent)]
    Bring(#[from] BringError),
    #[error("{}: {source}", program.display())]
    Boot { program: PathBuf, source: BootError },
}

impl Error {
    fn status(&self) -> u8 {
        match self {
            Self::Program(error) => error.status(),
            Self::Boot { source: BootError::NotStarted(2), .. } => status::NOT_FOUND,
            Self::Bring(BringError::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                status::NOT_FOUND
            }
            Self::Boot { source: BootError::NotStarted(_), .. } | Self::Bring(_) => {
                status::CANNOT_RUN
            }
            _ => status::FAILED,
        }
    }
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let (stop, signal) = (Arc::default(), Arc::default());
    if let Err(error) = listen(&stop, &signal) {
        say(format_args!("pagefault boot: {error}\n"));
        return ExitCode::from(status::FAILED);
    }
    match attempt(arguments, stop) {
        Ok(ended) => {
            if let Some(format) = arguments.stats {
                say(format_args!("{}", statistics(format, &ended)));
            }
            ExitCode::from(ended.status)
        }
        Err(Error::Boot { source: BootError::Stopped, .. }) => {
            die_of(signal.load(Ordering::Relaxed) as libc::c_int)
        }
        // The reader has gone. The program itself would have got the same error.
        Err(Error::Boot { source: BootError::Output(error), .. })
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            die_of(libc::SIGPIPE)
        }
        Err(error) => {
            say(format_args!("pagefault boot: {error}\n"));
            ExitCode::from(error.status())
        }
    }
}

/// Makes the signals that end a program stop the machine, so that nothing is left behind.
fn listen(stop: &Arc<AtomicBool>, signal: &Arc<AtomicUsize>) -> io::Result<()> {
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // The reason first: a thread that sees the stop flag reads it.
        signal_hook::flag::register_usize(number, signal.clone(), number as usize)?;
        signal_hook::flag::register(number, stop.clone())?;
    }
    Ok(())
}

fn attempt(arguments: &Arguments, stop: Arc<AtomicBool>) -> Result<Ended, Error> {
    for path in &arguments.files {
        let read = std::fs::read_dir(path);
        read.map_err(|source| Error::Files { path: path.clone(), source })?;
    }
    let mut boot = Boot::new(Path::new("/"), &[]);
    boot.stop = stop;
    boot.files.clone_from(&arguments.files);
    boot.memory = mebibytes("--memory", arguments.memory)?;
    boot.cpus = arguments.cpus;
    boot.swap = arguments.swap.map_or(Ok(0), |size| mebibytes("--swap", size))?;
    boot.disk = arguments.disk.map_or(Ok(0), |size| mebibytes("--disk", size))?;
    boot.accelerator = match arguments.accel {
        Accel::Tcg => Accelerator::Tcg,
        Accel::Kvm => Accelerator::Kvm,
    };
    boot.command = arguments.command.iter().map(|word| word.clone().into_vec()).collect();
    let name = &arguments.command[0];
    if !arguments.files.iter().any(|files| has(files, name)) {
        let path = std::path::absolute(program::search(name)?)
            .map_err(|source| program::Error::Read { path: name.into(), source })?;
        boot.singles = bring(&path)?;
        boot.command[0] = path.into_os_string().into_vec();
    }
    boot.run().map_err(|source| Error::Boot { program: name.into(), source })
}

/// Whether the kernel would find a program among the files of a directory.
fn has(files: &Path, name: &OsStr) -> bool {
    let there = |path: PathBuf| files.join(path).symlink_metadata().is_ok();
    if name.as_bytes().contains(&b'/') {
        let path = Path::new(name);
        return there(path.strip_prefix("/").unwrap_or(path).to_owned());
    }
    let places = ["bin", "usr/bin", "sbin", "usr/sbin", ""];
    places.iter().any(|place| there(Path::new(place).join(name)))
}

/// A size in MiB, rounded up.
fn mebibytes(option: &'static str, size: Size) -> Result<u32, Error> {
    let wrong = Error::Size { option, size };
    match u32::try_from(size.0.div_ceil(1 << 20)) {
        Ok(0) | Err(_) => Err(wrong),
        Ok(mebibytes) => Ok(mebibytes),
    }
}

/// The kernel's counters as text that ends with a line feed.
fn statistics(format: Format, ended: &Ended) -> String {
    let counters = ended.counters();
    match format {
        Format::Table => {
            let line = |(name, count): (&str, u64)| format!("  {name:<32} {count}\n");
            let lines: String = counters.into_iter().map(line).collect();
            format!("pagefault:\n{lines}")
        }
        Format::Json => format!("{:#}\n", serde_json::json!(counters)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_mebibytes() {
        let of = |text: &str| mebibytes("--memory", text.parse().unwrap());
        assert_eq!((of("64M").unwrap(), of("1G").unwrap(), of("1").unwrap()), (64, 1024, 1));
        assert!(of("0").is_err() && of("8192T").is_err());
    }

    #[test]
    fn programs_are_found_where_the_kernel_looks() {
        let files = std::env::temp_dir().join(format!("pagefault-boot-{}", std::process::id()));
        std::fs::create_dir_all(files.join("usr/bin")).unwrap();
        std::fs::write(files.join("usr/bin/tool"), "").unwrap();
        let found = ["tool", "/usr/bin/tool", "usr/bin/tool", "other", "/bin/tool"]
            .map(|name| has(&files, OsStr::new(name)));
        std::fs::remove_dir_all(&files).unwrap();
        assert_eq!(found, [true, true, true, false, false]);
    }
}
