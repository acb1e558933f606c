//! Descriptors: the program does not see those that the runtime keeps.

use super::{Call, Outcome};
use crate::memory::serve::{self, Paused};
use crate::sys::{self, Errno, Result};
use crate::{files, memory, process};
use linux_raw_sys::general as nr;

/// `CLOSE_RANGE_CLOEXEC`: the descriptors are only marked.
const CLOEXEC: u64 = 4;
/// `CLOSE_RANGE_UNSHARE`.
const UNSHARE: u64 = 2;

impl Call<'_> {
    pub(super) fn descriptor(&mut self) -> Outcome {
        let [a, b, c, ..] = self.args;
        match self.number {
            nr::__NR_close_range => {
                let _paused = (c & UNSHARE != 0).then(leave_shared_files);
                close_range(a, b, c).into()
            }
            nr::__NR_unshare => {
                let leaves = a as u32 & (nr::CLONE_FILES | nr::CLONE_NEWPID) == nr::CLONE_FILES;
                let _paused = leaves.then(leave_shared_files);
                self.pass()
            }
            nr::__NR_fcntl => {
                if matches!(b as u32, nr::F_DUPFD | nr::F_DUPFD_CLOEXEC) {
                    make_room_from(c as u32);
                }
                self.pass()
            }
            // The host says so before it looks at the numbers.
            nr::__NR_dup3 if a as u32 == b as u32 || c as u32 & !nr::O_CLOEXEC != 0 => self.pass(),
            nr::__NR_dup2 | nr::__NR_dup3 => self.duplicate(a as u32, b as u32),
            _ => self.pass(),
        }
    }

    fn duplicate(&mut self, from: u32, to: u32) -> Outcome {
        if files::is_kept(from) || u64::from(to) >= files::limit() {
            return Err(Errno::EBADF).into();
        }
        if files::is_kept(to) {
            // The number is free for the program like any other.
            if let Err(errno) = files::move_away(to) {
                return Err(errno).into();
            }
        }
        self.pass()
    }
}

/// Keeps the server of faults, which shares the descriptors, from keeping the old table. It could not
/// be restarted if it would then be the first process of a namespace.
fn leave_shared_files() -> Option<Paused> {
    memory::before_other_descriptors();
    if process::makes_children_elsewhere() { None } else { serve::pause() }
}

/// Makes the lowest number that is free for the program, from one on, free for the host too, where that begins
/// among the runtime's.
fn make_room_from(least: u32) {
    let mut number = least;
    while files::may_be_kept(number) && u64::from(number) < files::limit() {
        if files::is_kept(number) {
            // Where it cannot be moved, the program gets a higher one.
            let _ = files::move_away(number);
            return;
        }
        if !files::is_open(number) {
            return;
        }
        number += 1;
    }
}

/// `close_range(2)`: closes the descriptors between those that are kept.
fn close_range(first: u64, last: u64, flags: u64) -> Result {
    let host = |first: u64, last: u64| {
        // SAFETY: the program asks for it, and no descriptor between is the runtime's.
        unsafe { sys::call(nr::__NR_close_range, [first, last, flags]) }
    };
    let (first, last) = (u64::from(first as u32), u64::from(last as u32));
    if first > last || flags & !(CLOEXEC | UNSHARE) != 0 {
        return host(first, last);
    }
    let mut from = first;
    while let Some(kept) = files::next_kept(from as u32).map(u64::from) {
        if kept > last {
            break;
        }
        if kept > from {
            host(from, kept - 1)?;
        }
        from = kept + 1;
    }
    if from <= last { host(from, last) } else { Ok(0) }
}
