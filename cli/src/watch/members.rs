//! The processes of a tree that were seen: what they are called, and what is mapped where.

use pagefault_control::Control;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// The least time between two looks at the mappings of a process.
const LOOK: Duration = Duration::from_millis(250);
/// The least time between two where code is found in no mapping.
const LOOK_FOR_CODE: Duration = Duration::from_millis(20);
/// The most mappings that are remembered of a process.
const MOST_MAPPINGS: usize = 20_000;

/// A process that was seen.
pub struct Member {
    /// Its number as we see it.
    pub pid: u32,
    /// The program that it last was.
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
    /// Where it ends.
    pub end: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// Whether instructions are fetched from it.
    pub executable: bool,
    /// The file, or what the kernel calls it; empty for other anonymous memory.
    pub name: String,
}

impl Mapping {
    /// The file that is mapped.
    pub fn file(&self) -> Option<PathBuf> {
        self.name.starts_with('/').then(|| PathBuf::from(&self.name))
    }
}

impl Member {
    /// The mapping at an address and where it begins, as far as it was seen.
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
        // A process with very many mappings is not to be held up by our looking.
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

/// The number of a process that calls itself `process`, where its slot is said to be that of `seen`: another
/// if it is in a namespace of its own, and of no account if the slot has passed to another.
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

/// All processes that were seen.
#[derive(Default)]
pub struct Members {
    all: Vec<Member>,
    /// By the slot and the number in the process's own namespace.
    known: HashMap<(u32, u32), usize>,
}

impl Members {
    /// The process in a slot that calls itself `process`, from now on a member.
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

    /// The same to be read alone.
    pub fn seen(&self, index: usize) -> &Member {
        &self.all[index]
    }

    /// Those in a slot now, by the number as we see it.
    pub fn named(&self, slot: u32, pid: u32) -> Option<&Member> {
        self.all.iter().rev().find(|member| member.slot == slot && member.pid == pid)
    }

    /// Looks again at those that live, where it is time to.
    pub fn look(&mut self, control: &Control) {
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
