//! Descriptors kept out of the program's way.
//!
//! A manager that lives in a program shares its table of descriptors. Ours are moved above the
//! numbers that programs use, and recorded, so that whoever wraps the program's `close` and `dup2`
//! can tell them ([`is_kept`]).

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
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
    fd: Option<OwnedFd>,
}

/// Moves `fd` to a high number, closed on exec, and records it.
///
/// Where the process has no high number free the descriptor stays where it is.
pub fn keep(fd: OwnedFd) -> Kept {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(CEILING).min(CEILING);
    let lowest = limit.saturating_sub(HEADROOM) as RawFd;
    let fd = rustix::io::fcntl_dupfd_cloexec(&fd, lowest).unwrap_or(fd);
    mark(fd.as_raw_fd(), Owner::Manager);
    Kept { fd: Some(fd) }
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
    /// Gives up the descriptor, which stays recorded as ours.
    pub(super) fn into_raw(mut self) -> RawFd {
        match self.fd.take() {
            Some(fd) => fd.into_raw_fd(),
            None => unreachable!("only drop takes the descriptor"),
        }
    }

    /// Takes back what [`Kept::into_raw`] gave.
    ///
    /// # Safety
    /// `fd` came from `into_raw` and is taken back once.
    pub(super) unsafe fn from_raw(fd: RawFd) -> Self {
        // SAFETY: the caller vouches that the descriptor is open and owned by nobody else.
        Self { fd: Some(unsafe { OwnedFd::from_raw_fd(fd) }) }
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Some(fd) => fd.as_fd(),
            None => unreachable!("only drop takes the descriptor"),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            mark(fd.as_raw_fd(), Owner::Program);
        }
    }
}
