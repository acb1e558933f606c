//! Descriptors kept out of the program's way.
//!
//! A manager that lives in a program shares its table of descriptors. Ours are moved above the
//! numbers that programs use, and recorded, so that whoever wraps the program's `close` and `dup2`
//! can tell them ([`is_kept`]).

use core::mem::ManuallyDrop;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicI32, AtomicU64};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::io::{DupFlags, Errno};
use rustix::process::{Resource, getrlimit};

/// Descriptors from here on are recorded only in part; none has such a number by default.
const LIMIT: usize = 1 << 16;

/// Ours are put below this number, since a process that has high ones pays for all below them, at
/// every fork.
const CEILING: u64 = 1024;

/// How far below the highest possible number ours are put, which is also how many fit there.
const HEADROOM: u64 = 64;

/// One bit for each descriptor that is ours.
static KEPT: [AtomicU64; LIMIT / 64] = [const { AtomicU64::new(0) }; LIMIT / 64];

/// A descriptor that is recorded as ours until it is dropped.
#[derive(Debug)]
pub struct Kept {
    number: AtomicI32,
}

/// Moves `fd` to a high number, closed on exec, and records it.
///
/// Where the process has no high number free the descriptor stays where it is.
pub fn keep(fd: OwnedFd) -> Kept {
    Kept { number: AtomicI32::new(keep_number(fd)) }
}

fn keep_number(fd: OwnedFd) -> RawFd {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(CEILING).min(CEILING);
    let lowest = limit.saturating_sub(HEADROOM) as RawFd;
    let fd = rustix::io::fcntl_dupfd_cloexec(&fd, lowest).unwrap_or(fd);
    mark(fd.as_raw_fd(), Owner::Manager);
    fd.into_raw_fd()
}

/// Whether a descriptor of this number is ours.
pub fn is_kept(fd: RawFd) -> bool {
    let Ok(number) = usize::try_from(fd) else { return false };
    KEPT.get(number / 64).is_some_and(|word| word.load(Relaxed) & 1 << (number % 64) != 0)
}

/// The lowest descriptor at or above `from` that is ours.
pub fn next_kept(from: RawFd) -> Option<RawFd> {
    let from = usize::try_from(from).unwrap_or(0);
    (from / 64..KEPT.len()).find_map(|index| {
        let below = if index == from / 64 { (1 << (from % 64)) - 1 } else { 0 };
        let word = KEPT[index].load(Relaxed) & !below;
        (word != 0).then(|| (index * 64) as RawFd + word.trailing_zeros() as RawFd)
    })
}

/// Gives a descriptor of ours another number, because the program wants this one.
///
/// `EBADF`: it is not ours. No other thread may be using it meanwhile.
pub fn move_away(number: RawFd) -> Result<(), Errno> {
    // The owners hold the number; so what it names is exchanged for nothing, and they cannot go on.
    if is_kept(number) { Err(Errno::BUSY) } else { Err(Errno::BADF) }
}

/// Whose a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Manager,
    Program,
}

fn mark(fd: RawFd, owner: Owner) {
    let number = fd as usize;
    let Some(word) = KEPT.get(number / 64) else { return };
    let bit = 1 << (number % 64);
    match owner {
        Owner::Manager => word.fetch_or(bit, Relaxed),
        Owner::Program => word.fetch_and(!bit, Relaxed),
    };
}

impl Kept {
    /// Lets another descriptor take this one's place: under the same number or, where the process may
    /// no longer use that (its limit was lowered), under one of its own. The old one is closed.
    ///
    /// # Safety
    /// Nobody else uses the descriptor meanwhile, or has it borrowed.
    pub unsafe fn replace(&self, new: OwnedFd) {
        let number = self.number.load(Relaxed);
        // SAFETY: this value owns the open descriptor; `ManuallyDrop` keeps it so.
        let mut old = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
        if rustix::io::dup3(&new, &mut old, DupFlags::CLOEXEC).is_ok() {
            return;
        }
        self.number.store(keep_number(new), Relaxed);
        mark(number, Owner::Program);
        drop(ManuallyDrop::into_inner(old));
    }

    /// The descriptor, no longer recorded as ours.
    pub fn into_owned(self) -> OwnedFd {
        let number = self.into_raw();
        mark(number, Owner::Program);
        // SAFETY: this value owned the open descriptor.
        unsafe { OwnedFd::from_raw_fd(number) }
    }

    /// Gives up the descriptor, which stays recorded as ours.
    pub(super) fn into_raw(self) -> RawFd {
        ManuallyDrop::new(self).number.load(Relaxed)
    }

    /// Takes back what [`Kept::into_raw`] gave.
    ///
    /// # Safety
    /// `fd` came from `into_raw` and is taken back once.
    pub(super) unsafe fn from_raw(fd: RawFd) -> Self {
        Self { number: AtomicI32::new(fd) }
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open and owned by this value; whoever replaces it answers for
        // there being no borrow.
        unsafe { BorrowedFd::borrow_raw(self.number.load(Relaxed)) }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let number = self.number.load(Relaxed);
        mark(number, Owner::Program);
        // SAFETY: this value owns the open descriptor and goes away.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}

#[cfg(test)]
mod tests;
