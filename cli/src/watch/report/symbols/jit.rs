//! Names of generated code.
//!
//! A JIT compiler writes them to `/tmp/perf-PID.map` if it is asked to, by convention of Linux's `perf`: node with
//! `--perf-basic-prof`, Java with `-XX:+DumpPerfMapAtExit`, Python with `-X perf`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

/// More is not read.
const MOST_BYTES: u64 = 256 << 20;

/// The functions that one process has generated.
#[derive(Default)]
pub struct Map {
    /// Start, end and name, by address; where memory was used again, the later function follows.
    functions: Vec<(u64, u64, String)>,
}

impl Map {
    /// What a process wrote; empty if it wrote nothing.
    pub fn of(pid: u32) -> Self {
        Self::read(&format!("/tmp/perf-{pid}.map")).unwrap_or_default()
    }

    fn read(path: &str) -> Option<Self> {
        // Anybody may make a file there, a pipe without an end too.
        let is_ours = |metadata: std::fs::Metadata| {
            metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw()
        };
        std::fs::symlink_metadata(path).is_ok_and(is_ours).then_some(())?;
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        Some(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    fn parse(text: &str) -> Self {
        let mut functions: Vec<(u64, u64, String)> = text.lines().filter_map(function).collect();
        functions.sort_by_key(|(start, ..)| *start);
        Self { functions }
    }

    /// The name of the function at an address.
    pub fn name(&self, address: u64) -> Option<String> {
        let next = self.functions.partition_point(|(start, ..)| *start <= address);
        let (_, end, name) = self.functions.get(next.checked_sub(1)?)?;
        (address < *end).then(|| name.clone())
    }
}

/// A line: start and length in hexadecimal, and a name.
fn function(line: &str) -> Option<(u64, u64, String)> {
    let mut words = line.splitn(3, ' ');
    let mut number = || u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok();
    let (start, length) = (number()?, number()?);
    Some((start, start.checked_add(length)?, words.next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_function_at_an_address_is_there_now() {
        let map = Map::parse("2000 80 old\n1000 10 JS:*sum /a b.js:2\nnonsense\n2000 40 new\n");
        assert_eq!(map.name(0x100f).as_deref(), Some("JS:*sum /a b.js:2"));
        assert_eq!(map.name(0x1010), None);
        assert_eq!(map.name(0x2000).as_deref(), Some("new"));
        assert_eq!(map.name(0xfff), None);
    }

    #[test]
    fn a_process_without_a_map_has_no_names() {
        assert_eq!(Map::of(0).name(0x1000), None);
    }
}
