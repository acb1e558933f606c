//! The names that a line may use: living processes, the addresses that they have bound, files.

use super::{Expected, Fault, MOST_PROCESSES, name};
use std::collections::{HashMap, HashSet};

/// The name of address 0, which a faulty kernel sometimes accesses.
const NULL: &str = "null";

/// The names before the next line.
pub(super) struct Scope {
    /// The living processes, each with the names that it, or an ancestor before the fork, has
    /// bound.
    processes: HashMap<String, HashSet<String>>,
    files: HashSet<String>,
    current: String,
    /// The meaning of the suffix `p`.
    pub(super) page: u64,
}

impl Scope {
    /// A scope with the process p0.
    pub(super) fn new() -> Self {
        Self {
            processes: HashMap::from([("p0".to_owned(), HashSet::from([NULL.to_owned()]))]),
            files: HashSet::new(),
            current: "p0".to_owned(),
            page: crate::ast::PAGE,
        }
    }

    /// Makes `process` the process of the following lines.
    pub(super) fn switch<'a>(&mut self, process: &'a str) -> Result<(), Fault<'a>> {
        if !self.processes.contains_key(process) {
            return Err((process, Expected::LiveProcess));
        }
        process.clone_into(&mut self.current);
        Ok(())
    }

    /// The line's process. If it has ended, the error names `word`.
    pub(super) fn current<'a>(&self, word: &'a str) -> Result<&str, Fault<'a>> {
        if self.processes.contains_key(&self.current) {
            Ok(&self.current)
        } else {
            Err((word, Expected::LiveProcess))
        }
    }

    pub(super) fn fork<'a>(&mut self, child: &'a str) -> Result<String, Fault<'a>> {
        let child = name(child)?;
        if self.processes.contains_key(child) {
            return Err((child, Expected::NewProcess));
        }
        if self.processes.len() == MOST_PROCESSES {
            return Err((child, Expected::FewerProcesses));
        }
        let names = self.names().clone();
        self.processes.insert(child.to_owned(), names);
        Ok(child.to_owned())
    }

    pub(super) fn exit(&mut self) {
        self.processes.remove(&self.current);
    }

    pub(super) fn bind(&mut self, name: &str) {
        if let Some(names) = self.processes.get_mut(&self.current) {
            names.insert(name.to_owned());
        }
    }

    /// The kernel's part is the same in every address space.
    pub(super) fn bind_everywhere(&mut self, name: &str) {
        for names in self.processes.values_mut() {
            names.insert(name.to_owned());
        }
    }

    pub(super) fn bound<'a>(&self, name: &'a str) -> Result<String, Fault<'a>> {
        if self.names().contains(name) {
            Ok(name.to_owned())
        } else {
            Err((name, Expected::BoundName))
        }
    }

    pub(super) fn make_file<'a>(&mut self, file: &'a str) -> Result<String, Fault<'a>> {
        let file = name(file)?;
        if self.files.insert(file.to_owned()) {
            Ok(file.to_owned())
        } else {
            Err((file, Expected::NewFile))
        }
    }

    pub(super) fn file<'a>(&self, file: &'a str) -> Result<String, Fault<'a>> {
        if self.files.contains(file) {
            Ok(file.to_owned())
        } else {
            Err((file, Expected::KnownFile))
        }
    }

    fn names(&self) -> &HashSet<String> {
        // `current` was found alive before any operation of the line was read.
        static NONE: std::sync::LazyLock<HashSet<String>> = std::sync::LazyLock::new(HashSet::new);
        self.processes.get(&self.current).unwrap_or(&NONE)
    }
}
