//! What the generator remembers: enough to hit mapped memory most of the time and never to run out
//! of it, but not the content of pages.

use crate::ast::{PAGE, Sharing};

/// The files of a script.
pub(super) const FILES: usize = 3;

/// The maximum length of a file, in pages.
pub(super) const LONGEST_FILE: u64 = 256;

/// The most processes alive at once.
const MOST_PROCESSES: usize = 6;

/// The most pages of all mappings of a process together.
pub(super) const MOST_PAGES: u64 = 300;

/// Processes, their mappings, and files.
pub(super) struct World {
    processes: Vec<Process>,
    current: usize,
    forked: u32,
    named: u32,
    pub(super) files: Vec<File>,
}

pub(super) struct Process {
    pub(super) name: String,
    pub(super) regions: Vec<Region>,
}

/// A named range, mapped at least once.
#[derive(Clone)]
pub(super) struct Region {
    pub(super) name: String,
    /// Its maximum number of pages.
    pub(super) pages: u64,
    pub(super) sharing: Sharing,
}

pub(super) struct File {
    pub(super) name: String,
    pub(super) pages: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            processes: vec![Process { name: "p0".to_owned(), regions: Vec::new() }],
            current: 0,
            forked: 0,
            named: 0,
            files: Vec::new(),
        }
    }

    pub(super) fn current(&self) -> &Process {
        &self.processes[self.current]
    }

    pub(super) fn regions(&mut self) -> &mut Vec<Region> {
        &mut self.processes[self.current].regions
    }

    pub(super) fn switch(&mut self, rng: &mut fastrand::Rng) {
        self.current = rng.usize(..self.processes.len());
    }

    /// A name that was never bound.
    pub(super) fn fresh(&mut self) -> String {
        self.named += 1;
        format!("m{}", self.named)
    }

    pub(super) fn add(&mut self, region: Region) {
        self.regions().push(region);
    }

    /// The name of a new child of the current process, if one more may live.
    pub(super) fn fork(&mut self) -> Option<String> {
        if self.processes.len() == MOST_PROCESSES {
            return None;
        }
        self.forked += 1;
        let child =
            Process { name: format!("p{}", self.forked), regions: self.current().regions.clone() };
        let name = child.name.clone();
        self.processes.push(child);
        Some(name)
    }

    pub(super) fn may_exit(&self) -> bool {
        self.processes.len() > 1
    }

    pub(super) fn exit(&mut self, rng: &mut fastrand::Rng) {
        self.processes.swap_remove(self.current);
        self.switch(rng);
    }

    /// Whether the current process has mapped more than it may.
    pub(super) fn is_crowded(&self) -> bool {
        let pages = |process: &Process| process.regions.iter().map(|r| r.pages).sum::<u64>();
        pages(self.current()) > MOST_PAGES
    }

    /// Forgets a region that is about to be unmapped whole, one of the older ones.
    pub(super) fn forget_one(&mut self, rng: &mut fastrand::Rng) -> Option<Region> {
        let regions = self.regions();
        let older = regions.len().div_ceil(2);
        (older > 0).then(|| regions.remove(rng.usize(..older)))
    }
}

impl Region {
    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.pages * PAGE
    }
}
