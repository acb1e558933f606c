//! `/proc` and `/sys`: files whose content is made when they are read.

mod process;
mod system;

use crate::fs::Open;
use crate::process::{self as processes, Process};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

pub use process::{pagemap, read_memory, write_memory};

/// What a path below `/proc` or `/sys` leads to.
pub enum Made {
    /// A text.
    Text(Vec<u8>),
    /// A text for which there is no memory.
    TooLong,
    /// Another path.
    Link(String),
    /// These names go on below it.
    Directory(Vec<String>),
    /// A word for each page of a process (`/proc/PID/pagemap`).
    Pagemap(Arc<Process>),
    /// A process's memory by address (`/proc/PID/mem`).
    Memory(Arc<Process>),
    /// A file without a path that a process has open (`/proc/PID/fd/N`).
    Opened(Arc<Open>),
}

impl Made {
    fn names(names: &[&str]) -> Self {
        Self::Directory(names.iter().map(|name| name.to_string()).collect())
    }

    fn text(text: String) -> Self {
        Self::Text(text.into_bytes())
    }
}

/// The directory of processes.
pub const ROOT: &str = "/proc";

/// Looks at an absolute path; `None` if it is not one of these.
pub fn look(path: &str) -> Option<Made> {
    let below = match path.strip_prefix("/proc/") {
        Some(below) => below,
        None => return system::look(path),
    };
    let (first, rest) = below.split_once('/').unwrap_or((below, ""));
    if matches!(first, "self" | "thread-self") && rest.is_empty() {
        return Some(Made::Link(processes::current().id.to_string()));
    }
    match first.parse() {
        Ok(id) => process::look(&processes::find(id)?, rest),
        Err(_) => system::look(path),
    }
}

/// Whether a path could be one of these, so that others need not ask.
pub fn is_below(path: &str) -> bool {
    path.starts_with("/proc/") || path.starts_with("/sys/")
}
