//! Records a program's page accesses with valgrind's lackey.
//!
//! Lackey writes to a pipe of its own, since the program's messages would look like lines of the trace. The
//! program's standard output is dropped.
//!
//! Lackey reports every access, a hundred times more than a replay needs: the few most recently used
//! pages are in any memory. So only accesses to other pages are kept, and the first store to a page
//! since its last access was kept.

use crate::trace::Deed;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// How many recently used pages count as in memory.
const WINDOW: usize = 16;

/// The shell that starts valgrind: it moves the pipe from standard output to the number that lackey writes to.
const START: &str =
    "exec valgrind --tool=lackey --trace-mem=yes --log-fd=9 -- \"$@\" 9>&1 >/dev/null";

/// Runs a program and records it. Returns the number of steps.
pub fn record(command: &[String], out: &Path) -> io::Result<u64> {
    // Before the program runs in vain.
    let file = BufWriter::new(File::create(out)?);
    let mut child = Command::new("sh")
        .args(["-c", START, "valgrind"])
        .args(command)
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = child.stdout.take().ok_or_else(|| io::Error::other("valgrind tells nothing"))?;
    let steps = keep_news(lines, file).inspect_err(|_| end(&mut child))?;
    let ended = child.wait()?;
    match steps {
        0 => Err(io::Error::other(format!("valgrind recorded nothing: {ended}"))),
        // The status is the program's.
        _ => Ok(steps),
    }
}

/// Writes the steps that are news to a file; returns how many there are.
fn keep_news(lines: ChildStdout, mut file: BufWriter<File>) -> io::Result<u64> {
    let mut recent = Recent::default();
    let mut steps = 0;
    for line in BufReader::new(lines).split(b'\n') {
        let Some((page, deed)) = parse(&line?) else { continue };
        if recent.is_news(page, deed) {
            file.write_all(&(page << 3 | deed.code()).to_le_bytes())?;
            steps += 1;
        }
    }
    file.flush()?;
    Ok(steps)
}

/// Ends a program whose trace cannot be kept.
fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Parses a line about data, such as ` S 04222ca8,8`; lines about code and others are `None`.
fn parse(line: &[u8]) -> Option<(u64, Deed)> {
    let line = std::str::from_utf8(line).ok()?;
    let (deed, rest) = match line.get(..3)? {
        " L " => (Deed::Load, &line[3..]),
        " S " | " M " => (Deed::Store, &line[3..]),
        _ => return None,
    };
    let (address, _) = rest.split_once(',')?;
    Some((u64::from_str_radix(address, 16).ok()? >> 12, deed))
}

/// The most recently used pages, the latest first, each with whether it was stored to meanwhile.
#[derive(Default)]
struct Recent(Vec<(u64, bool)>);

impl Recent {
    fn is_news(&mut self, page: u64, deed: Deed) -> bool {
        let stores = deed == Deed::Store;
        match self.0.iter().position(|(other, _)| *other == page) {
            Some(at) => {
                let (_, stored) = self.0.remove(at);
                self.0.insert(0, (page, stored || stores));
                stores && !stored
            }
            None => {
                self.0.truncate(WINDOW - 1);
                self.0.insert(0, (page, stores));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lackeys_lines_are_read() {
        assert_eq!(parse(b" S 04222ca8,8"), Some((0x4222, Deed::Store)));
        assert_eq!(parse(b" M 0421c7cc,4"), Some((0x421c, Deed::Store)));
        assert_eq!(parse(b" L 1ffeffe7e8,8"), Some((0x01ff_effe, Deed::Load)));
        assert_eq!(parse(b"I  04016b80,3"), None);
        assert_eq!(parse(b"==123== Lackey"), None);
    }

    #[test]
    fn repeated_use_is_no_news_and_a_first_store_is() {
        let mut recent = Recent::default();
        assert!(recent.is_news(1, Deed::Load));
        assert!(!recent.is_news(1, Deed::Load));
        assert!(recent.is_news(1, Deed::Store));
        assert!(!recent.is_news(1, Deed::Store));
        assert!((2..2 + WINDOW as u64).all(|page| recent.is_news(page, Deed::Load)));
        assert!(recent.is_news(1, Deed::Load));
    }
}
