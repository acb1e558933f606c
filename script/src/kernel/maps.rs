//! What /proc says about a process.

use super::Faults;
use crate::ast::{Protection, Sharing};
use crate::layout::{WINDOW_END, WINDOW_START};
use crate::outcome::Mapping;
use std::io;

/// Whether this process has nothing in the scripts' window.
pub(super) fn window_is_free() -> io::Result<bool> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    Ok(maps
        .lines()
        .filter_map(mapping)
        .all(|mapping| cut(mapping, WINDOW_START, WINDOW_END).is_none()))
}

/// The mappings of a process in the scripts' window.
pub(super) fn of_window(pid: libc::pid_t) -> Vec<Mapping> {
    of_range(pid, WINDOW_START, WINDOW_END)
}

/// The mappings of a process between two addresses, cut to them; none of a process that is gone.
pub(super) fn of_range(pid: libc::pid_t, start: u64, end: u64) -> Vec<Mapping> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter_map(mapping).filter_map(|mapping| cut(mapping, start, end)).collect()
}

/// The faults that a living process has taken.
pub(super) fn faults(pid: libc::pid_t) -> Faults {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields are counted after the program's name, which may contain spaces.
    let fields = stat.rsplit(')').next().unwrap_or("");
    let field = |index| {
        let number = fields.split_whitespace().nth(index);
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Faults { minor: field(7), major: field(9) }
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let has = |letter, bit| {
        if permissions.contains(letter) { bit } else { Protection::empty() }
    };
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        protection: has('r', Protection::READ)
            | has('w', Protection::WRITE)
            | has('x', Protection::EXEC),
        sharing: if permissions.contains('s') { Sharing::Shared } else { Sharing::Private },
    })
}

fn cut(mapping: Mapping, start: u64, end: u64) -> Option<Mapping> {
    let cut = Mapping { start: mapping.start.max(start), end: mapping.end.min(end), ..mapping };
    (cut.start < cut.end).then_some(cut)
}
