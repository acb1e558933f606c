//! Copies between processes: `process_vm_readv(2)` and `process_vm_writev(2)`.
//!
//! The other process may be this one, or share its memory, and may be named by the ID of any thread. Then the
//! pages of both sides are kept resident.
//!
//! Of another managed memory the host finds only the pages that are present. The other process's server makes the rest
//! of a read, and all of a write: the host pins up to a thousand pages before it copies the first byte, and where that
//! process has fewer, stores would reach frames that no longer belong to it.

use super::passed::{MOST_BYTES, Vectors, is_in_user_space, piece_len};
use super::{Call, Outcome};
use crate::memory::PAGE;
use crate::memory::outside::Other;
use crate::sys::{self, Errno};
use crate::thread::Thread;
use crate::user;
use alloc::vec;
use core::ops::{ControlFlow, Range};
use linux_raw_sys::general as nr;
use pagefault_calls::{Access, Area, Kind, Pieces, Rule};
use pagefault_control::outside::{Answer, Manner, WINDOW};

/// The most vectors of each side that one piece takes.
const VECTORS: usize = 8;

impl Call<'_> {
    /// Copies piece by piece: the pages of both sides need not fit into memory at once.
    pub(super) fn copy_between(&mut self) -> Outcome {
        let [_, here, here_count, there, there_count, _] = self.args;
        let sides = Vectors::of_buffers(here, here_count).zip(Vectors::read(there, there_count));
        let Some((here, there)) = sides else {
            return self.pass();
        };
        let all = here.total.min(there.total).min(MOST_BYTES);
        let [process, .., flags] = self.args;
        let is_here = flags != 0 || Thread::is_here(process as u32);
        let other = (!is_here).then(|| Other::of(process as u32)).flatten();
        if let Some(other) = &other
            && self.number == nr::__NR_process_vm_writev
            && let Some(raw) = self.copy_with(other, &here, &there, 0..all)
        {
            return Outcome::Raw(raw);
        }
        let raw = match all + (here_count + there_count) * PAGE <= piece_len() / 2 {
            true => self.make_with_pins(&self.args),
            false => self.copy_by_host(&here, &there, all),
        };
        let is_short = raw == -i64::from(Errno::EFAULT.0) || (0..all as i64).contains(&raw);
        match other.filter(|_| is_short) {
            Some(other) => {
                let rest = raw.max(0) as u64..all;
                Outcome::Raw(self.copy_with(&other, &here, &there, rest).unwrap_or(raw))
            }
            None => Outcome::Raw(raw),
        }
    }

    /// Has the host copy everything, piece by piece.
    fn copy_by_host(&self, here: &Vectors, there: &Vectors, all: u64) -> i64 {
        let mut done = 0;
        loop {
            let left = (piece_len() / 2).min(all - done);
            let (asked, raw) = self.copy_piece(here, there, done, left);
            match Pieces::finished(Rule::Each, done, asked, all, raw) {
                Some(result) => return result,
                // The program changes its vectors meanwhile.
                None if asked == 0 => return done as i64,
                None => done += raw as u64,
            }
        }
    }

    /// Has the other process's server copy bytes; returns the result of the whole call, or `None` if nobody answers.
    fn copy_with(
        &self,
        other: &Other,
        here: &Vectors,
        there: &Vectors,
        bytes: Range<u64>,
    ) -> Option<i64> {
        let Range { start: mut done, end: all } = bytes;
        while done < all {
            let raw = match self.serve_piece(other, here, there, done, all - done) {
                Some(raw) => raw,
                None if done == bytes.start => return None,
                None => 0,
            };
            if raw <= 0 {
                return Some(if done > 0 { done as i64 } else { raw });
            }
            done += raw as u64;
        }
        Some(done as i64)
    }

    /// One piece of that, within one vector of the other side.
    fn serve_piece(
        &self,
        other: &Other,
        here: &Vectors,
        there: &Vectors,
        done: u64,
        most: u64,
    ) -> Option<i64> {
        let fault = -i64::from(Errno::EFAULT.0);
        let (mut cut_here, mut cut_there) = ([[0_u64; 2]; VECTORS], [[0_u64; 2]; 1]);
        let (_, asked) = Pieces::cut(there.each(), done, most.min(WINDOW as u64), &mut cut_there);
        let (count, asked) = Pieces::cut(here.each(), done, asked, &mut cut_here);
        let cut_here = &cut_here[..count];
        let mut bytes = vec![0; asked as usize];
        let (manner, given) = match self.number {
            nr::__NR_process_vm_writev => (Manner::Write, gather(cut_here, &mut bytes)),
            _ => (Manner::Read, bytes.len()),
        };
        if given == 0 {
            return Some(fault);
        }
        let bytes = &mut bytes[..given];
        Some(match other.access(self.thread.member(), manner, cut_there[0][0], bytes)? {
            Answer::Copied(0) => fault,
            Answer::Copied(copied) if manner.writes() => copied.into(),
            Answer::Copied(copied) => match scatter(cut_here, &bytes[..copied as usize]) {
                0 => fault,
                scattered => scattered as i64,
            },
            Answer::Host(len) => self.copy_piece(here, there, done, u64::from(len).min(asked)).1,
        })
    }

    /// Copies at most so many bytes after `done`; returns the bytes that it asked for and its result.
    fn copy_piece(&self, here: &Vectors, there: &Vectors, done: u64, most: u64) -> (u64, i64) {
        let (mut cut_here, mut cut_there) = ([[0_u64; 2]; VECTORS], [[0_u64; 2]; VECTORS]);
        let (count_here, asked) = Pieces::cut(here.each(), done, most, &mut cut_here);
        // The host copies what fits on both sides.
        let (count_there, asked) = Pieces::cut(there.each(), done, asked, &mut cut_there);
        (asked, self.copy(&cut_here[..count_here], &cut_there[..count_there]))
    }

    fn copy(&self, here: &[[u64; 2]], there: &[[u64; 2]]) -> i64 {
        let [process, .., flags] = self.args;
        let here = [here.as_ptr() as u64, here.len() as u64];
        let there = [there.as_ptr() as u64, there.len() as u64];
        let piece = [process, here[0], here[1], there[0], there[1], flags];
        self.make_with_pins_by(&piece, |call, args| {
            // No signal cuts such a copy short.
            // SAFETY: the program asks for it, of its own memory.
            unsafe { sys::raw_call(call.number, *args) }
        })
    }
}

/// Reads bytes from buffers, in order; returns how many could be read.
fn gather(buffers: &[[u64; 2]], bytes: &mut [u8]) -> usize {
    let mut done = 0;
    for [base, len] in buffers {
        let part = &mut bytes[done..done + *len as usize];
        let (wanted, read) = (part.len(), user::read_some(*base, part));
        done += read;
        if read < wanted {
            break;
        }
    }
    done
}

/// Writes bytes to buffers, in order; returns how many went to buffers that could be written.
fn scatter(buffers: &[[u64; 2]], bytes: &[u8]) -> usize {
    let mut done = 0;
    for [base, len] in buffers {
        let part = &bytes[done..bytes.len().min(done + *len as usize)];
        if user::write_bytes(*base, part).is_err() {
            break;
        }
        done += part.len();
    }
    done
}

/// Names each area of the other side of such a copy, if that is in this memory too.
pub(super) fn each_remote_area(
    number: u32,
    args: &[u64; 6],
    f: &mut dyn FnMut(Area) -> ControlFlow<()>,
) {
    let access = match number {
        nr::__NR_process_vm_readv => Access::Read,
        nr::__NR_process_vm_writev => Access::Write,
        _ => return,
    };
    let Some(there) = Vectors::read(args[3], args[4]) else { return };
    if !Thread::is_here(args[0] as u32) {
        return;
    }
    for [start, len] in there.each() {
        if len == 0 || !is_in_user_space([start, len]) {
            continue;
        }
        if f(Area { start, len, access, kind: Kind::Data }).is_break() {
            return;
        }
    }
}
