//! `/proc/PID/status` as without the runtime: what a program does with signals, and its filters of calls.
//!
//! The runtime handles signals that the program does not, blocks none of those that it needs, and judges the program's
//! calls itself. So the host's lines about that are corrected where the program has read them. Each keeps its length.

use super::Call;
use crate::signal::virtual_mask;
use crate::thread::Thread;
use crate::{files, process, user};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;

/// How a status file begins.
const BEGINNING: &[u8] = b"Name:\t";
/// Longer than a status file.
const MOST: usize = 4096;
/// The digits of a set of signals.
const HEX: usize = 16;
/// The descriptors, by their lowest bits, through which the beginning of a status file was read: more of it may follow.
static READ: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

/// The word of a descriptor in [`READ`], and its bit there.
fn place_of(descriptor: u32) -> (&'static AtomicU64, u64) {
    let place = descriptor as usize % (READ.len() * 64);
    (&READ[place / 64], 1 << (place % 64))
}

impl Call<'_> {
    /// Corrects `done` bytes that the program has read into its buffers, if they are of a status file. `at` is their
    /// place in the file, if the call says so.
    pub(super) fn correct_status(
        &self,
        done: u64,
        at: Option<u64>,
        buffers: impl Iterator<Item = [u64; 2]>,
    ) {
        let descriptor = self.args[0] as u32;
        let (word, bit) = place_of(descriptor);
        let mut buffers = buffers.filter(|[_, len]| *len > 0).peekable();
        let was_read = word.load(Relaxed) & bit != 0;
        let Some(&[first, len]) = buffers.peek() else { return };
        if !was_read && !begins_status(first, done.min(len)) {
            return;
        }
        let Some(status) = Status::of(descriptor, self.thread) else {
            word.fetch_and(!bit, Relaxed);
            return;
        };
        word.fetch_or(bit, Relaxed);
        let here = || files::position(descriptor)?.checked_sub(done);
        let Some(mut position) = at.or_else(here) else { return };
        let end = position + done;
        for [buffer, len] in buffers {
            let next = end.min(position.saturating_add(len));
            status.correct(buffer, position..next);
            position = next;
        }
    }
}

/// Whether bytes that the program has read may be the beginning of a status file: a quick test.
fn begins_status(buffer: u64, len: u64) -> bool {
    if user::read(buffer) != Ok(BEGINNING[0]) {
        return false;
    }
    let mut bytes = [0; BEGINNING.len()];
    let bytes = &mut bytes[..BEGINNING.len().min(len as usize)];
    user::read_bytes(buffer, bytes).is_ok() && BEGINNING.starts_with(bytes)
}

/// A status file of the tree's.
struct Status<'a> {
    lines: Lines<'a>,
    /// The host's text.
    text: [u8; MOST],
    /// The values that differ from the program's, each with its place.
    values: Vec<(usize, Value)>,
}

impl<'a> Status<'a> {
    fn of(descriptor: u32, thread: &'a Thread) -> Option<Self> {
        if !files::is_of_proc(descriptor) {
            return None;
        }
        let mut path = [0; 64];
        let path = files::link_of(descriptor, &mut path)?;
        let (process, rest) = path.strip_prefix("/proc/")?.split_once('/')?;
        let task = match rest {
            "status" => process,
            _ => rest.strip_prefix("task/")?.strip_suffix("/status")?,
        };
        let lines = Lines::of(process, task.parse().ok()?, thread)?;
        let mut name = [0; 64];
        let name = files::path(&mut name, format_args!("{path}\0"))?;
        let mut text = [0; MOST];
        let len = files::read_start(name, &mut text)?;
        let values = lines.values(&text[..len]);
        Some(Self { lines, text, values })
    }

    /// Corrects a part of the file that the program has in its buffer.
    fn correct(&self, buffer: u64, part: Range<u64>) {
        let mut bytes = [0; MOST];
        let len = MOST.min((part.end - part.start) as usize);
        let len = user::read_some(buffer, &mut bytes[..len]);
        for (start, value) in self.lines.values(&bytes[..len]) {
            // It could be written a moment ago.
            let _ = user::write_bytes(buffer + start as u64, value.text());
        }
        self.correct_cut(buffer, part);
    }

    /// Corrects lines of which the buffer has a part: the host's text says what they are.
    fn correct_cut(&self, buffer: u64, part: Range<u64>) {
        for (start, value) in &self.values {
            let end = start + value.text().len();
            let common = (*start).max(part.start as usize)..end.min(part.end as usize);
            if common.is_empty() {
                continue;
            }
            let at = buffer + (common.start as u64 - part.start);
            // The file may have changed between the program's reading and ours.
            let mut read = [0; HEX];
            let read = &mut read[..common.len()];
            if user::read_bytes(at, read).is_ok() && *read == self.text[common.clone()] {
                let wanted = &value.text()[common.start - start..common.end - start];
                let _ = user::write_bytes(at, wanted);
            }
        }
    }
}

/// What a status file is to say.
#[derive(Default)]
struct Lines<'a> {
    ignored: u64,
    handled: u64,
    /// The thread, if it is of this process.
    thread: Option<&'a Thread>,
    /// Whether it is the calling one: only that knows its own mask.
    is_caller: bool,
}

impl<'a> Lines<'a> {
    /// Those of a thread of a process of the tree, by their numbers here.
    fn of(process: &str, task: u32, caller: &'a Thread) -> Option<Self> {
        let slots = &process::control()?.slots;
        let mut own = [0; 16];
        let is_own = files::link(c"/proc/self", &mut own)? == process;
        if !is_own && process::has_numbers_of_its_own() {
            return None;
        }
        let slot = match is_own {
            true => slots.get(caller.member().slot())?,
            false => slots.of(process.parse().ok()?)?,
        };
        if slot.is_unmanaged() {
            return None;
        }
        let all = if is_own { Thread::all() } else { Vec::new() };
        let thread = all.into_iter().find(|thread| thread.number() == task);
        Some(Self {
            ignored: slot.ignored.load(Relaxed),
            handled: slot.handled.load(Relaxed),
            thread,
            is_caller: thread.is_some_and(|thread| core::ptr::eq(thread, caller)),
        })
    }

    /// The values in the host's text that are others, each with its place.
    fn values(&self, text: &[u8]) -> Vec<(usize, Value)> {
        let set = |set: u64| Value::new(format_args!("{set:0HEX$x}"));
        let mut wanted = Vec::from([("SigIgn", set(self.ignored)), ("SigCgt", set(self.handled))]);
        for name in ["SigPnd", "ShdPnd"] {
            // The host blocks no SIGSYS, so one that is pending there is about to arrive: a request of ours, most likely.
            if let Some(pending) = set_of(text, name) {
                wanted.push((name, set(pending & !(1 << (nr::SIGSYS - 1)))));
            }
        }
        if let Some(thread) = self.thread {
            let mode = thread.seccomp.get();
            wanted.push(("Seccomp", Value::new(format_args!("{}", mode.number()))));
            wanted.push(("Seccomp_filters", Value::new(format_args!("{}", mode.filters()))));
            if let Some(blocked) = set_of(text, "SigBlk").filter(|_| self.is_caller) {
                wanted.push(("SigBlk", set(virtual_mask(thread, blocked).0)));
            }
        }
        let placed = wanted.into_iter().filter_map(|(name, value)| {
            let host = value_of(text, name)?;
            // A longer value would move what follows.
            let differs = text[host.clone()] != *value.text();
            (differs && host.len() == value.text().len()).then_some((host.start, value))
        });
        placed.collect()
    }
}

/// The set of signals that a line names.
fn set_of(text: &[u8], name: &str) -> Option<u64> {
    let digits = core::str::from_utf8(&text[value_of(text, name)?]).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

/// The digits of a value.
#[derive(Default)]
struct Value {
    bytes: [u8; HEX],
    len: usize,
}

impl Value {
    fn new(digits: fmt::Arguments<'_>) -> Self {
        let mut value = Self::default();
        // All of them fit.
        let _ = fmt::write(&mut value, digits);
        value
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Write for Value {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes[self.len..].get_mut(..text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// Where the value behind a name is in a status file.
fn value_of(text: &[u8], name: &str) -> Option<Range<usize>> {
    let mut start = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let value = line.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b":\t"));
        if let Some(value) = value {
            let end = start + line.len();
            return Some(end - value.len()..end - usize::from(value.ends_with(b"\n")));
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] =
        b"Name:\ta\nSeccomp:\t0\nSeccomp_filters:\t0\nSigCgt:\t00000000000000ff\nSigIgn:\tx";

    #[test]
    fn a_value_is_found_behind_its_whole_name() {
        let value = |name| value_of(TEXT, name).map(|range| &TEXT[range]);
        assert_eq!(value("Name"), Some(&b"a"[..]));
        assert_eq!(value("Seccomp"), Some(&b"0"[..]));
        assert_eq!(value("SigIgn"), Some(&b"x"[..]));
        assert_eq!(value("Sig"), None);
    }

    #[test]
    fn values_that_differ_are_replaced_if_they_are_as_long() {
        let lines = Lines { handled: 0x400, ..Lines::default() };
        let values = lines.values(TEXT);
        let [(start, value)] = &values[..] else { panic!("{} values", values.len()) };
        assert_eq!(TEXT[start - 8..*start], *b"SigCgt:\t");
        assert_eq!(value.text(), b"0000000000000400");
    }
}
