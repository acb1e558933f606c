//! Copies between processes: `process_vm_readv(2)` and `process_vm_writev(2)`.
//!
//! The other process may be this one, or share its memory, and may be named by the ID of any thread. Then the
//! pages of both sides are kept resident.
//!
//! Of another memory the host pins up to a thousand pages before it copies the first byte. Where that process has
//! fewer, its first pages are evicted while the last ones are brought back, and stores would reach frames that no
//! longer belong to it. So a store to another memory goes page by page.

use super::passed::{MOST_BYTES, Vectors, is_in_user_space, piece_len};
use super::{Call, Outcome};
use crate::memory::PAGE;
use crate::sys;
use crate::thread::Thread;
use core::ops::ControlFlow;
use linux_raw_sys::general as nr;
use pagefault_calls::{Access, Area, Kind, Pieces, Rule};

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
        let is_foreign_store =
            self.number == nr::__NR_process_vm_writev && !Thread::is_here(self.args[0] as u32);
        let most = if is_foreign_store { PAGE } else { piece_len() / 2 };
        if !is_foreign_store && all + (here_count + there_count) * PAGE <= most {
            return Outcome::Raw(self.make_with_pins(&self.args));
        }
        let mut done = 0;
        Outcome::Raw(loop {
            let left = most.min(all - done);
            let (asked, raw) = match is_foreign_store {
                true => self.store_in_page(&here, &there, done, left),
                false => self.copy_piece(&here, &there, done, left),
            };
            match Pieces::finished(Rule::Each, done, asked, all, raw) {
                Some(result) => break result,
                // The program changes its vectors meanwhile.
                None if asked == 0 => break done as i64,
                None => done += raw as u64,
            }
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

    /// The same within one page of the other side.
    fn store_in_page(&self, here: &Vectors, there: &Vectors, done: u64, most: u64) -> (u64, i64) {
        let (mut cut_here, mut cut_there) = ([[0_u64; 2]; VECTORS], [[0_u64; 2]; 1]);
        let (count_there, in_one) = Pieces::cut(there.each(), done, most, &mut cut_there);
        let in_page = in_one.min(PAGE - cut_there[0][0] % PAGE);
        let (count_here, asked) = Pieces::cut(here.each(), done, in_page, &mut cut_here);
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
