//! Stores to the memory of another process (`process_vm_writev`).
//!
//! The host pins up to a thousand pages of the target before it copies the first byte. If the target has less
//! memory than that, its first pages are evicted while the last ones are brought back; the copy then goes to frames
//! that no longer belong to it. So a store goes page by page: a page is copied as soon as it is there.

use super::passed::Vectors;
use super::{Call, Outcome};
use crate::entry::{NOT_STARTED, RESTART};
use crate::{memory, sys};
use pagefault_calls::USER_END;

const PAGE: u64 = memory::PAGE;
/// The most that the kernel copies in one call.
const MOST: u64 = 0x7fff_f000;

impl Call<'_> {
    /// `process_vm_writev`.
    pub(super) fn store_to_process(&mut self) -> Outcome {
        let [process, local, locals, remote, remotes, flags] = self.args;
        let is_own = process as u32 == sys::process_id();
        let (Some(here), Some(there)) =
            (Vectors::read(local, locals), Vectors::read(remote, remotes))
        else {
            return self.pass();
        };
        // What the kernel refuses, it refuses at once.
        let is_refused = flags != 0 || !here.each().all(is_user) || here.total > MOST;
        if is_own || is_refused {
            return self.pass();
        }
        let mut done = 0;
        let mut sources = here.each().filter(|[_, len]| *len > 0);
        let mut source = [0, 0];
        for target in there.each() {
            let mut left = target;
            while left[1] > 0 {
                if source[1] == 0 {
                    let Some(next) = sources.next() else { return Outcome::Raw(done) };
                    source = next;
                }
                let len = left[1].min(source[1]).min(PAGE - left[0] % PAGE);
                let raw = self.store_piece([source[0], len], [left[0], len]);
                match raw {
                    RESTART | NOT_STARTED if done > 0 => return Outcome::Raw(done),
                    ..0 if done > 0 => return Outcome::Raw(done),
                    ..0 => return Outcome::Raw(raw),
                    _ => done += raw,
                }
                if raw < len as i64 {
                    return Outcome::Raw(done);
                }
                source = after(source, len);
                left = after(left, len);
            }
        }
        Outcome::Raw(done)
    }

    /// Stores within one page.
    fn store_piece(&mut self, here: [u64; 2], there: [u64; 2]) -> i64 {
        let process = self.args[0];
        self.make_pinned([process, (&raw const here) as u64, 1, (&raw const there) as u64, 1, 0])
    }
}

/// Whether the memory is in the user's half.
fn is_user([start, len]: [u64; 2]) -> bool {
    start.checked_add(len).is_some_and(|end| end <= USER_END)
}

/// What follows the first bytes of some memory.
fn after([start, len]: [u64; 2], done: u64) -> [u64; 2] {
    [start.wrapping_add(done), len - done]
}
