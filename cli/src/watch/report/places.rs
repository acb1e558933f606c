//! Where in the program faults happen: by instruction, as an offset in its file.

use crate::watch::members::Member;
use std::collections::HashMap;
use std::path::PathBuf;

/// The most places that are distinguished.
const MOST: usize = 1 << 18;

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In a mapped file, at an offset.
    File(PathBuf, u64),
    /// In memory of no file: generated code of a process, or an unknown mapping.
    Memory(u32, u64),
}

/// The faults of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub faults: u64,
    /// Nanoseconds.
    pub time: u64,
}

/// All places of a run.
#[derive(Default)]
pub struct Places {
    costs: Vec<(Place, Cost)>,
    by_place: HashMap<Place, usize>,
    /// By process and instruction, so that a place is looked up once.
    by_ip: HashMap<(usize, u64), usize>,
    /// The last of these; the next fault is often there too.
    last: Option<((usize, u64), usize)>,
    /// Faults of places beyond the limit, and accesses of system calls.
    pub others: Cost,
}

impl Places {
    /// Counts a fault.
    pub fn add(&mut self, member: usize, seen: &mut Member, ip: u64, took: u64) {
        let who = (member, ip);
        let last = self.last.filter(|(last, _)| *last == who).map(|(_, index)| index);
        let known = last.or_else(|| self.by_ip.get(&who).copied());
        let Some(index) = known.or_else(|| self.find(member, seen, ip)) else {
            return self.others.add(took);
        };
        self.last = Some((who, index));
        self.costs[index].1.add(took);
    }

    fn find(&mut self, member: usize, seen: &mut Member, ip: u64) -> Option<usize> {
        if self.by_ip.len() >= MOST {
            // Entries of ended processes go too; living processes find their places again.
            self.by_ip.clear();
        }
        let mapping = seen.mapping_of_code(ip);
        let in_file = mapping.and_then(|(start, mapping)| {
            Some(Place::File(mapping.file()?, ip - start + mapping.offset))
        });
        let place = in_file.unwrap_or(Place::Memory(seen.pid, ip));
        let index = match self.by_place.get(&place) {
            Some(index) => *index,
            None if self.costs.len() >= MOST => return None,
            None => {
                self.costs.push((place.clone(), Cost::default()));
                self.by_place.insert(place, self.costs.len() - 1);
                self.costs.len() - 1
            }
        };
        self.by_ip.insert((member, ip), index);
        Some(index)
    }

    /// All places with their faults.
    pub fn all(&self) -> &[(Place, Cost)] {
        &self.costs
    }
}

impl Cost {
    /// Counts a fault.
    pub const fn add(&mut self, took: u64) {
        self.faults += 1;
        self.time += took;
    }
}
