//! The kernel's own limit: a memory cgroup with zram as swap, undone when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A memory cgroup with a limit.
pub struct Limit {
    group: PathBuf,
}

const ZRAM: &str = "/sys/block/zram0";

impl Limit {
    /// Sets zram and a cgroup up, or says why that cannot be done.
    pub fn new(bytes: u64) -> Result<Self, String> {
        let size = fs::read_to_string(format!("{ZRAM}/disksize")).map_err(|_| "no zram device")?;
        if size.trim() != "0" {
            return Err("zram0 is in use".into());
        }
        let group = PathBuf::from(format!("/sys/fs/cgroup/memory/limit.{}", std::process::id()));
        // From here on dropping it undoes what was done.
        let limit = Self { group };
        let done = write(format!("{ZRAM}/comp_algorithm"), "lz4")
            .and_then(|()| write(format!("{ZRAM}/disksize"), "4G"))
            .and_then(|()| run("mkswap", &["/dev/zram0"]))
            .and_then(|()| run("swapon", &["-p", "5", "/dev/zram0"]))
            .and_then(|()| fs::create_dir(&limit.group).map_err(|error| error.to_string()))
            .and_then(|()| write(limit.group.join("memory.limit_in_bytes"), &bytes.to_string()));
        done.map(|()| limit)
    }

    /// A command that runs a program in the cgroup.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\"; exec \"$@\""]);
        command.arg(&self.group).arg(program);
        command
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // What was not set up need not be undone, so that errors mean nothing here.
        let _ = write(self.group.join("memory.force_empty"), "0");
        let _ = fs::remove_dir(&self.group);
        let _ = run("swapoff", &["/dev/zram0"]);
        let _ = write(format!("{ZRAM}/reset"), "1");
    }
}

fn write(path: impl AsRef<Path>, text: &str) -> Result<(), String> {
    let path = path.as_ref();
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    match Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
