//! The peer: the kernel's own swap under a memory cgroup (version 1 or 2), undone at the end.
//!
//! Swap's memory is not charged to the cgroup, so the limit is a resident limit. Unlike `run`, the
//! cgroup also charges page cache and code.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const ZRAM: &str = "/sys/block/zram0";
const DEVICE: &str = "/dev/zram0";

/// The kernel's swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Compressed memory, with LZ4.
    Zram,
    /// A file in the temporary directory.
    File,
}

/// The directory of memory cgroups, and the names of their files.
struct Hierarchy {
    parent: &'static Path,
    /// Holds the limit.
    file: &'static str,
    /// Has the peak of the charge.
    peak: &'static str,
}

impl Hierarchy {
    fn of_the_host() -> Self {
        let first = Path::new("/sys/fs/cgroup/memory");
        if first.is_dir() {
            return Self {
                parent: first,
                file: "memory.limit_in_bytes",
                peak: "memory.max_usage_in_bytes",
            };
        }
        Self { parent: Path::new("/sys/fs/cgroup"), file: "memory.max", peak: "memory.peak" }
    }
}

/// The limit, for the lifetime of this value.
pub struct Limit {
    group: PathBuf,
    peak: &'static str,
    swap: Swap,
    area: PathBuf,
}

/// The kernel's counts of a run under the limit.
pub struct Used {
    /// Pages that the machine read from swap.
    pub pages_in: u64,
    /// Pages that it wrote.
    pub pages_out: u64,
    /// The peak of the charge in bytes; 0 if the kernel does not report it.
    pub peak: u64,
}

impl Limit {
    /// Sets up swap and a cgroup, or says why that is impossible here.
    pub fn new(bytes: u64, swap: Swap) -> io::Result<Self> {
        let Hierarchy { parent, file, peak } = Hierarchy::of_the_host();
        let name = format!("pagefault-bench.{}", std::process::id());
        let area = match swap {
            Swap::Zram if read(&Path::new(ZRAM).join("disksize"))? != "0" => {
                return Err(io::Error::other("zram0 is in use"));
            }
            Swap::Zram => PathBuf::from(DEVICE),
            Swap::File => std::env::temp_dir().join(format!("{name}.swap")),
        };
        let group = parent.join(name);
        fs::create_dir(&group)?;
        // From here on, the drop undoes everything.
        let limit = Self { group, peak, swap, area };
        fs::write(limit.group.join(file), bytes.to_string())?;
        limit.swap_on()?;
        Ok(limit)
    }

    fn swap_on(&self) -> io::Result<()> {
        let area = self.area.display().to_string();
        match self.swap {
            Swap::Zram => {
                fs::write(Path::new(ZRAM).join("comp_algorithm"), "lz4")?;
                fs::write(Path::new(ZRAM).join("disksize"), "8G")?;
            }
            Swap::File => {
                use std::os::unix::fs::OpenOptionsExt;
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.area)?;
                // A swap file must have no holes.
                command(&["fallocate", "-l", "8G", &area])?;
            }
        }
        command(&["mkswap", &area])?;
        command(&["swapon", "-p", "5", &area])
    }

    /// A shell command that puts the shell itself under the limit.
    pub fn enter(&self) -> String {
        format!("echo $$ > '{}/cgroup.procs'", self.group.display())
    }

    /// Runs a closure and returns the swap's counts meanwhile.
    pub fn watch<T>(&self, run: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Used)> {
        let (pages_in, pages_out) = (swapped("pswpin "), swapped("pswpout "));
        let done = run()?;
        let peak = read(&self.group.join(self.peak)).ok().and_then(|text| text.parse().ok());
        Ok((
            done,
            Used {
                pages_in: swapped("pswpin ") - pages_in,
                pages_out: swapped("pswpout ") - pages_out,
                peak: peak.unwrap_or(0),
            },
        ))
    }

    /// Kills the remaining processes of the group, and removes it.
    fn remove_group(&self) {
        const TRIES: u32 = 6000;
        for _ in 0..TRIES {
            let _ = fs::write(self.group.join("memory.force_empty"), "0");
            if fs::remove_dir(&self.group).is_ok() || !self.group.exists() {
                return;
            }
            let left = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
            let left = left.lines().filter_map(|line| line.parse().ok());
            for process in left.filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("pagefault-bench: {} could not be removed", self.group.display());
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Steps that were not set up need no undoing.
        self.remove_group();
        let _ = Command::new("swapoff").arg(&self.area).output();
        match self.swap {
            Swap::Zram => drop(fs::write(Path::new(ZRAM).join("reset"), "1")),
            Swap::File => drop(fs::remove_file(&self.area)),
        }
    }
}

/// Catches `SIGINT` and `SIGTERM`, so that the set-up is undone before the end.
pub fn catch_interrupts() -> io::Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted().clone())?;
    }
    Ok(())
}

/// Whether such a signal has arrived.
pub fn is_interrupted() -> bool {
    interrupted().load(Relaxed)
}

fn interrupted() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

fn command(words: &[&str]) -> io::Result<()> {
    let made = Command::new(words[0]).args(&words[1..]).output()?;
    if made.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&made.stderr).trim().to_owned();
    Err(io::Error::other(format!("{}: {why}", words.join(" "))))
}

fn read(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path);
    let named = |error| io::Error::other(format!("{}: {error}", path.display()));
    text.map(|text| text.trim().to_owned()).map_err(named)
}

/// A counter of the whole machine, which should do nothing else.
fn swapped(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_leaves_in_its_group_is_ended_with_it() {
        let group = Hierarchy::of_the_host()
            .parent
            .join(format!("pagefault-bench-test.{}", std::process::id()));
        if let Err(error) = fs::create_dir(&group) {
            eprintln!("skipped: no cgroup can be made here: {error}");
            return;
        }
        let limit =
            Limit { group, peak: "", swap: Swap::File, area: PathBuf::from("/nonexistent") };
        let text = format!("{}; setsid sleep 1000 &", limit.enter());
        let status = Command::new("sh").arg("-c").arg(text).status().unwrap();
        assert!(status.success());
        let group = limit.group.clone();
        drop(limit);
        assert!(!group.exists());
    }
}
