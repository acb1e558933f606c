//! The known processes of a tree: their names and mappings.

use super::sample::Sample;
use pagefault_control::Control;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// The minimum interval between two reads of a process's mappings.
const LOOK: Duration = Duration::from_millis(500);
/// The minimum interval if an instruction is in no known mapping.
const LOOK_FOR_CODE: Duration = Duration::from_millis(20);
/// The most mappings kept for a process.
const MOST_MAPPINGS: usize = 20_000;

/// A known process.
pub struct Member {
    /// Its process ID in our namespace.
    pub pid: u32,
    /// The last program that it executed.
    pub name: String,
    mappings: BTreeMap<u64, Mapping>,
    last_look: Instant,
    next_look: Instant,
    slot: u32,
    ended: bool,
}

/// A mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The end address.
    pub end: u64,
    /// The offset of its start in the file.
    pub offset: u64,
    /// Whether it is executable.
    pub executable: bool,
    /// The file, or the kernel's name for it; empty for other anonymous memory.
    pub name: String,
}

impl Mapping {
    /// The file that is mapped.
    pub fn file(&self) -> Option<PathBuf> {
        self.name.starts_with('/').then(|| PathBuf::from(&self.name))
    }
}

impl Member {
    /// The known mapping at an address, with its start.
    pub fn mapping(&self, address: u64) -> Option<(u64, &Mapping)> {
        let (start, mapping) = self.mappings.range(..=address).next_back()?;
        (address < mapping.end).then_some((*start, mapping))
    }

    /// The mapping of an instruction; reads the mappings again if none of the known ones contains it.
    pub fn mapping_of_code(&mut self, ip: u64) -> Option<(u64, &Mapping)> {
        let is_known = self.mapping(ip).is_some_and(|(_, mapping)| mapping.executable);
        if !is_known && !self.ended && self.last_look.elapsed() >= LOOK_FOR_CODE {
            self.look();
        }
        self.mapping(ip)
    }

    fn look(&mut self) {
        let begin = Instant::now();
        self.last_look = begin;
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid));
        match name {
            Ok(name) => name.trim_end().clone_into(&mut self.name),
            Err(_) => {
                self.ended = true;
                return;
            }
        }
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{}/maps", self.pid)) {
            self.learn(&text);
        }
        // Reading very many mappings would slow the process down.
        self.next_look = Instant::now() + LOOK.max(begin.elapsed() * 200);
    }

    fn learn(&mut self, maps: &str) {
        for (start, mapping) in maps.lines().filter_map(parse) {
            let stale: Vec<u64> =
                self.mappings.range(start + 1..mapping.end).map(|(start, _)| *start).collect();
            stale.iter().for_each(|start| drop(self.mappings.remove(start)));
            if self.mappings.len() < MOST_MAPPINGS || self.mappings.contains_key(&start) {
                self.mappings.insert(start, mapping);
            }
        }
    }
}

/// Our process ID of a process whose own ID is `process` and whose slot shows `seen`. The two differ if it
/// is in a PID namespace of its own. If the slot has passed to another process, the answer does not matter.
fn as_we_see(process: u32, seen: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{seen}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let own = numbers.and_then(|numbers| numbers.split_whitespace().next_back()?.parse().ok());
    if own == Some(process) { seen } else { process }
}

/// A line of `/proc/PID/maps`.
fn parse(line: &str) -> Option<(u64, Mapping)> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?;
    let offset = words.next()?;
    let name = words.nth(2).unwrap_or("").trim_start();
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let mapping = Mapping {
        end: number(end)?,
        offset: number(offset)?,
        executable: rights.contains('x'),
        name: name.to_owned(),
    };
    Some((number(start)?, mapping))
}

/// All known processes.
#[derive(Default)]
pub struct Members {
    all: Vec<Member>,
    /// By slot and process ID in the process's own namespace.
    known: HashMap<(u32, u32), usize>,
    /// The names of processes without an event so far, by slot and process ID in our namespace.
    quiet: HashMap<(u32, u32), String>,
}

impl Members {
    /// The process in a slot whose own ID is `process`; adds it if it is new.
    pub fn find(&mut self, control: &Control, slot: u32, process: u32) -> usize {
        *self.known.entry((slot, process)).or_insert_with(|| {
            let seen = control.slots.get(slot).map_or(0, |slot| slot.pid.load(Relaxed));
            let mut member = Member {
                pid: as_we_see(process, seen),
                name: String::from("?"),
                mappings: BTreeMap::new(),
                last_look: Instant::now(),
                next_look: Instant::now(),
                slot,
                ended: false,
            };
            member.look();
            self.all.push(member);
            self.all.len() - 1
        })
    }

    /// A member by what [`Members::find`] returned.
    pub fn at(&mut self, index: usize) -> &mut Member {
        &mut self.all[index]
    }

    /// The same, shared.
    pub fn seen(&self, index: usize) -> &Member {
        &self.all[index]
    }

    /// The member in a slot now, by its process ID in our namespace.
    pub fn named(&self, slot: u32, pid: u32) -> Option<&Member> {
        self.all.iter().rev().find(|member| member.slot == slot && member.pid == pid)
    }

    /// The name of the process in a slot, by its process ID in our namespace.
    pub fn name(&self, slot: u32, pid: u32) -> &str {
        let of_quiet = || self.quiet.get(&(slot, pid)).map(String::as_str);
        self.named(slot, pid).map(|member| &*member.name).or_else(of_quiet).unwrap_or("?")
    }

    /// Reads the mappings of living members again, if it is time, and the names of the others in a sample.
    pub fn look(&mut self, control: &Control, sample: &Sample) {
        for held in &sample.processes {
            if self.named(held.slot, held.pid).is_none()
                && let Ok(name) = std::fs::read_to_string(format!("/proc/{}/comm", held.pid))
            {
                // Again each time: it may have executed another program.
                name.trim_end().clone_into(self.quiet.entry((held.slot, held.pid)).or_default());
            }
        }
        let now = Instant::now();
        for member in self.all.iter_mut().filter(|member| !member.ended) {
            if member.next_look > now {
                continue;
            }
            let slot = control.slots.get(member.slot);
            if slot.is_some_and(|slot| slot.is_taken()) {
                member.look();
            } else {
                member.ended = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_that_of_the_slot_where_both_are_one_process() {
        let own = std::process::id();
        assert_eq!(as_we_see(own, own), own);
        assert_eq!(as_we_see(12_345_678, own), 12_345_678);
        assert_eq!(as_we_see(own, 0), own);
    }

    #[test]
    fn lines_of_maps_are_understood() {
        let line =
            "7f5c8e600000-7f5c8e628000 r-xp 00028000 fe:00 1234       /usr/lib/a b.so (deleted)";
        let (start, mapping) = parse(line).unwrap();
        assert_eq!((start, mapping.end), (0x7f5c_8e60_0000, 0x7f5c_8e62_8000));
        assert_eq!((mapping.offset, mapping.executable), (0x28000, true));
        assert_eq!(mapping.name, "/usr/lib/a b.so (deleted)");
        let (_, anonymous) = parse("1000-2000 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!((anonymous.name.as_str(), anonymous.executable), ("", false));
        assert_eq!(parse("nonsense"), None);
    }
}
