//! What runs printed that were not as the first plain run: kept in files, so that the cause can be found.

use super::measure::{Outcome, Printed};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Keeps the runs of one program that differ from its first plain run.
pub struct Differing<'a> {
    program: &'a str,
    /// The first plain run, with which all others are compared.
    first: Option<Outcome>,
    kept: usize,
}

impl<'a> Differing<'a> {
    pub fn new(program: &'a str) -> Self {
        Self { program, first: None, kept: 0 }
    }

    /// Compares a run with the first one. Keeps what both printed if they differ; what else a run
    /// printed is dropped.
    pub fn look(&mut self, way: &str, outcome: &mut Outcome) -> io::Result<()> {
        let printed = std::mem::take(&mut outcome.printed);
        let Some(first) = &self.first else {
            self.first = Some(Outcome { printed, ..*outcome });
            return Ok(());
        };
        if first.is_as(outcome) {
            return Ok(());
        }
        let directory = self.directory();
        fs::create_dir_all(&directory)?;
        write(&directory, "first-plain", first.status, &first.printed)?;
        write(&directory, way, outcome.status, &printed)?;
        self.kept += 1;
        eprintln!("{}: a {way} run differs: {}", self.program, directory.display());
        Ok(())
    }

    /// A new directory beside other temporary ones; nobody removes it.
    fn directory(&self) -> PathBuf {
        let letters = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let program: String = self.program.chars().map(letters).take(20).collect();
        let name = format!("pagefault-bench.{}.{program}.{}", std::process::id(), self.kept);
        std::env::temp_dir().join(name)
    }
}

fn write(directory: &Path, run: &str, status: i32, printed: &Printed) -> io::Result<()> {
    fs::write(directory.join(format!("{run}.status")), format!("{status}\n"))?;
    fs::write(directory.join(format!("{run}.stdout")), &printed.output)?;
    fs::write(directory.join(format!("{run}.stderr")), &printed.errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(output: &[u8]) -> Outcome {
        Outcome {
            seconds: 0.0,
            status: 0,
            output: crc32fast::hash(output),
            printed: Printed { output: output.to_vec(), errors: b"why\n".to_vec() },
            faults: 0,
            pages_in: 0,
            peak: 0,
        }
    }

    #[test]
    fn a_run_that_differs_is_kept_beside_the_first_one() {
        let mut differing = Differing::new("a test, of runs");
        let directory = differing.directory();
        differing.look("plain", &mut outcome(b"one\n")).unwrap();
        differing.look("managed", &mut outcome(b"one\n")).unwrap();
        assert!(!directory.exists());
        let mut other = outcome(b"two\n");
        differing.look("managed", &mut other).unwrap();
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        let kept =
            ["first-plain.stdout", "managed.stdout", "managed.stderr", "managed.status"].map(read);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(kept, ["one\n", "two\n", "why\n", "0\n"]);
        assert!(other.printed.output.is_empty());
    }
}
