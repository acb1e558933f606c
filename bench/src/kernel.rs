//! The peer: the kernel's own swap to zram with LZ4, under a memory cgroup, undone at the end.
//!
//! zram's memory is not charged to the cgroup, so that the limit is the resident limit alone. The
//! cgroup charges page cache and code too, which `pagefault run` leaves to the kernel.

use crate::measure::{Outcome, Runner, time};
use crate::programs::Program;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

const ZRAM: &str = "/sys/block/zram0";
const DEVICE: &str = "/dev/zram0";

/// The limit, as long as this lives.
struct Limit {
    group: PathBuf,
}

/// Runs a program under the kernel's limit, or says why that cannot be done here.
pub fn run(runner: &Runner, program: &Program) -> io::Result<Result<Outcome, String>> {
    let limit = match Limit::new(program.limit << 20) {
        Ok(limit) => limit,
        Err(error) => return Ok(Err(format!("no kernel limit here: {error}"))),
    };
    // The shell moves itself, so that nothing runs outside.
    let enter = format!("echo $$ > '{}/cgroup.procs'; {}", limit.group.display(), program.command);
    let before = pages_in();
    let mut outcome = time(&mut runner.shell(&enter))?;
    outcome.pages_in = pages_in() - before;
    Ok(Ok(outcome))
}

/// The pages that the machine has read from swap so far.
fn pages_in() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("pswpin "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

impl Limit {
    fn new(bytes: u64) -> io::Result<Self> {
        let size = fs::read_to_string(Path::new(ZRAM).join("disksize"))?;
        if size.trim() != "0" {
            return Err(io::Error::other("zram0 is in use"));
        }
        let name = format!("pagefault-bench.{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (group, file) = if first.is_dir() {
            (first.join(name), "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup").join(name), "memory.max")
        };
        fs::create_dir(&group)?;
        // From here on dropping undoes everything.
        let limit = Self { group };
        fs::write(limit.group.join(file), bytes.to_string())?;
        fs::write(Path::new(ZRAM).join("comp_algorithm"), "lz4")?;
        fs::write(Path::new(ZRAM).join("disksize"), "8G")?;
        for command in [&["mkswap", DEVICE][..], &["swapon", "-p", "5", DEVICE]] {
            let made = Command::new(command[0]).args(&command[1..]).output()?;
            if !made.status.success() {
                return Err(io::Error::other(format!("{} failed", command[0])));
            }
        }
        Ok(limit)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // What was not set up cannot be undone, and need not be.
        let _ = fs::write(self.group.join("memory.force_empty"), "0");
        let _ = fs::remove_dir(&self.group);
        let _ = Command::new("swapoff").arg(DEVICE).output();
        let _ = fs::write(Path::new(ZRAM).join("reset"), "1");
    }
}
