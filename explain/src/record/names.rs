//! Addresses by the names that the script gave them.

use std::collections::HashMap;

/// How far from a named range an address may lie and still be called by its name.
const NEAR: u64 = 16 << 20;

/// The ranges that each process has named.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_process: HashMap<String, Vec<(String, u64, u64)>>,
    page: u64,
}

impl Names {
    pub(super) fn new(page: u64) -> Self {
        Self { by_process: HashMap::new(), page }
    }

    pub(super) fn set(&mut self, process: &str, names: Vec<(String, u64, u64)>) {
        if !names.is_empty() {
            self.by_process.insert(process.to_owned(), names);
        }
    }

    /// `A`, `A+2p`, `A+2p+8`, or the number if no name is near.
    pub(super) fn place(&self, process: &str, address: u64) -> String {
        let Some(names) = self.by_process.get(process) else { return format!("{address:#x}") };
        let inside = |&&(_, start, length): &&(String, u64, u64)| {
            start <= address && address - start < length
        };
        let near = |&&(_, start, length): &&(String, u64, u64)| {
            length > 0 && start <= address && address - start < NEAR
        };
        // Of several, the shortest range: the name of a part says more than the name of the whole.
        let smallest = names
            .iter()
            .filter(inside)
            .min_by_key(|(name, start, length)| (*length, u64::MAX - start, name.clone()));
        let below =
            || names.iter().filter(near).max_by_key(|(name, start, _)| (*start, name.clone()));
        match smallest.or_else(below) {
            Some((name, start, _)) => self.offset(name, address - start),
            None => format!("{address:#x}"),
        }
    }

    fn offset(&self, name: &str, offset: u64) -> String {
        let (pages, bytes) = (offset / self.page, offset % self.page);
        match (pages, bytes) {
            (0, 0) => name.to_owned(),
            (0, bytes) => format!("{name}+{bytes}"),
            (pages, 0) => format!("{name}+{pages}p"),
            (pages, bytes) => format!("{name}+{pages}p+{bytes}"),
        }
    }
}
