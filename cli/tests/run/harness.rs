//! Runs the command and checks what it did.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The command under test.
pub const PAGEFAULT: &str = env!("CARGO_BIN_EXE_pagefault");

/// A temporary swap file that may take all of the disk.
pub const SIZED_FILE: &str = "file::64G";

/// Whether the tests use the full sizes.
pub fn full() -> bool {
    std::env::var_os("PAGEFAULT_FULL").is_some_and(|value| value == "1")
}

/// Whether a program is installed. Prints a note if not, because the test then proves nothing.
pub fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// The system's own Python, if it exists. `PATH` may have a shell script before it that searches for
/// another one, and would be measured too.
pub fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

/// A test's own directory for files and swap, removed at its end. No two are the same, whatever their names.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new(name: &str) -> Self {
        leave_descriptors();
        // Other users' programs look into some of them.
        let open = fs::Permissions::from_mode(0o755);
        let prefix = format!("pagefault-{name}-");
        let directory = tempfile::Builder::new().prefix(&prefix).permissions(open).tempdir();
        let scratch = Self(directory.unwrap());
        fs::create_dir(scratch.path("swap")).unwrap();
        scratch
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `pagefault run` with these options, its swap in this directory. Without `--swap` the areas are
    /// the default ones, but for a size: a file without one leaves 5 % of the file system free, and
    /// how full that is must not decide a test.
    pub fn run(&self, options: &[&str], program: &[&str]) -> Command {
        let mut command = Command::new(PAGEFAULT);
        command.arg("run").args(options);
        if !options.iter().any(|option| option.starts_with("--swap")) {
            command.args(["--swap", "ram", "--swap", SIZED_FILE]);
        }
        command.arg("--").args(program);
        command.current_dir(self.0.path()).env("TMPDIR", self.path("swap"));
        command.env("LC_ALL", "C");
        command
    }

    /// The program alone.
    pub fn plain(&self, program: &[&str]) -> Command {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).current_dir(self.0.path()).env("LC_ALL", "C");
        command
    }

    /// Runs a program plain and managed, and asserts that the effects are equal. Returns the
    /// statistics.
    pub fn compare(&self, memory: &str, program: &[&str]) -> serde_json::Value {
        let stats = self.path("stats.json");
        let stats_option = stats.to_str().unwrap();
        let options = ["--memory", memory, "--stats=json", "--stats-file", stats_option];
        let managed = self.run(&options, program).stdin(Stdio::null()).output().unwrap();
        let plain = self.plain(program).stdin(Stdio::null()).output().unwrap();
        assert_same(&plain, &managed);
        self.assert_nothing_left();
        serde_json::from_str(&fs::read_to_string(&stats).unwrap()).unwrap()
    }

    /// Asserts that no swap file is left.
    pub fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.path("swap")).unwrap().collect();
        assert!(left.is_empty(), "left over: {left:?}");
    }
}

fn assert_same(plain: &Output, managed: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
    assert_eq!(text(&managed.stderr), text(&plain.stderr), "standard error");
    assert_eq!(managed.status, plain.status);
    // Not assert_eq: the outputs may be hundreds of megabytes.
    assert!(
        managed.stdout == plain.stdout,
        "output of {} bytes instead of {}: {}",
        managed.stdout.len(),
        plain.stdout.len(),
        text(&managed.stdout)
    );
}

/// Leaves the runtime room above the limit of descriptors. If a host begins us with none, and without the right to get
/// some, a program sees a smaller limit than without the runtime, and its lists of descriptors are shorter.
fn leave_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const ROOM: u64 = 64;
    let limit = getrlimit(Resource::Nofile);
    let Some(most) = limit.maximum.map(|hard| hard.saturating_sub(ROOM)) else { return };
    if limit.current.is_none_or(|soft| soft > most) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit }).unwrap();
    }
}

/// The value of a number in the statistics.
pub fn number(stats: &serde_json::Value, pointer: &str) -> u64 {
    stats.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap_or_else(|| {
        panic!("{pointer} is no number in {stats:#}");
    })
}

/// Asserts that a run needed swap and kept its limit.
pub fn assert_limited(stats: &serde_json::Value) {
    let out: u64 = (0..2).map(|area| number(stats, &format!("/swap/{area}/pages_out"))).sum();
    assert!(out > 0, "nothing was swapped out: {stats:#}");
    assert!(number(stats, "/faults/swap_in") > 0, "nothing came back: {stats:#}");
    let peak = number(stats, "/peak_resident_bytes");
    assert!(peak > 0 && peak <= number(stats, "/limit_bytes"), "{stats:#}");
}

/// Writes a file of lines in no order, with many equal parts.
pub fn write_lines(path: &Path, bytes: usize) {
    let mut file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    let mut random = 88_172_645_463_325_252_u64;
    let mut written = 0;
    while written < bytes {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let line = format!("{:x} {} the quick brown fox\n", random >> 20, random % 1000);
        file.write_all(line.as_bytes()).unwrap();
        written += line.len();
    }
    file.flush().unwrap();
}

/// Compiles one of the C programs beside this file.
pub fn compile(scratch: &Scratch, name: &str) -> Option<String> {
    if !have("cc") {
        return None;
    }
    let source = format!("{}/tests/run/{name}.c", env!("CARGO_MANIFEST_DIR"));
    let program = scratch.path(name);
    let mut compiler = Command::new("cc");
    let status = compiler.args(["-O1", "-w", "-pthread", "-o"]).arg(&program).arg(source).status();
    assert!(status.unwrap().success());
    Some(program.to_str().unwrap().to_owned())
}

/// A run's standard error.
pub fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Writes an executable script or program.
pub fn write_executable(path: &Path, content: impl AsRef<[u8]>) -> &OsStr {
    let text = path.with_added_extension("text");
    fs::write(&text, content).unwrap();
    copy_executable(&text, path, 0o755);
    fs::remove_file(text).unwrap();
    path.as_os_str()
}

/// Copies a program, which then has this mode. Another process writes the copy: a child that another test's thread
/// makes would inherit a file that this process has open, and nobody may execute a file that is open for writing.
pub fn copy_executable(from: impl AsRef<Path>, to: &Path, mode: u32) {
    assert!(Command::new("cp").arg(from.as_ref()).arg(to).status().unwrap().success());
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).unwrap();
}
