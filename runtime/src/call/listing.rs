//! Lists of descriptors (`/proc/PID/fd` and its kin), without those that the runtime keeps.

use super::{Call, Outcome};
use crate::{files, sys, user};
use alloc::vec::Vec;
use core::ffi::CStr;
use core::ops::Range;
use linux_raw_sys::general as nr;

/// The words of an entry before its name: inode, offset, length; `getdents64` has a byte for the type.
const LENGTH_AT: usize = 16;

impl Call<'_> {
    /// `getdents64(2)` and `getdents(2)`.
    pub(super) fn list(&mut self) -> Outcome {
        let directory = self.args[0] as u32;
        loop {
            let raw = self.make_pinned(self.args);
            if raw <= 0 {
                return Outcome::Raw(raw);
            }
            let Some(owner) = files::owner_of_list(directory) else { return Outcome::Raw(raw) };
            let left = self.without_kept(&owner, raw as u64);
            // An empty result would mean the end.
            if left > 0 {
                return Outcome::Raw(left as i64);
            }
        }
    }

    /// Removes entries from the program's buffer, of which `len` bytes are used; returns how many
    /// bytes remain.
    fn without_kept(&self, owner: &files::Owner, len: u64) -> u64 {
        let buffer = self.args[1];
        let name_at =
            if self.number == nr::__NR_getdents64 { LENGTH_AT + 3 } else { LENGTH_AT + 2 };
        let (mut from, mut to) = (0, 0);
        while from < len {
            let mut entry = [0_u8; 64];
            let known = user::read_some(buffer + from, &mut entry);
            let entry = &entry[..known];
            let Some(entry_len) = length_of(entry, name_at..known) else { return len };
            let is_kept = number_of(&entry[name_at..entry_len.min(known)])
                .is_some_and(|number| owner.keeps(number));
            if !is_kept {
                if to < from
                    && user::write_bytes(buffer + to, &entry[..entry_len.min(known)]).is_err()
                {
                    return len;
                }
                to += entry_len as u64;
            }
            from += entry_len as u64;
        }
        to
    }
}

/// The length of an entry, of which at least the first bytes of the name are there.
fn length_of(entry: &[u8], name: Range<usize>) -> Option<usize> {
    let bytes = entry.get(LENGTH_AT..LENGTH_AT + 2)?;
    let len = usize::from(u16::from_ne_bytes(bytes.try_into().ok()?));
    // An entry of such a list is a number, and short.
    (len > name.start && len <= name.end).then_some(len)
}

/// The descriptor of an entry: its name ends with a NUL.
fn number_of(name: &[u8]) -> Option<u32> {
    let digits = name.split(|byte| *byte == 0).next()?;
    core::str::from_utf8(digits).ok()?.parse().ok()
}

/// The numbers that are names in a directory of the host's, such as the threads of a process.
pub(super) fn numbers_in(directory: &CStr) -> Vec<u32> {
    let mut numbers = Vec::new();
    files::with_file(directory, |file| {
        let mut entries = [0_u8; 1024];
        let at = entries.as_mut_ptr() as u64;
        let args = [file, at, entries.len() as u64];
        // SAFETY: the buffer is ours.
        while let Ok(len @ 1..) = unsafe { sys::call(nr::__NR_getdents64, args) } {
            let mut left = &entries[..len as usize];
            while let Some(len) = left.get(LENGTH_AT..LENGTH_AT + 2) {
                let len = usize::from(u16::from_ne_bytes([len[0], len[1]])).clamp(1, left.len());
                let (entry, rest) = left.split_at(len);
                numbers.extend(entry.get(LENGTH_AT + 3..).and_then(number_of));
                left = rest;
            }
        }
        Some(())
    });
    numbers
}
