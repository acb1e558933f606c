//! Keeps our descriptors out of the program's way.
//!
//! A manager inside a program shares its table of descriptors. Ours are moved above the numbers
//! that programs use, and recorded, so that a wrapper of the program's `close` and `dup2`
//! recognises them ([`is_kept`]). Their owners look up the numbers in this record, so a program can
//! have any number it asks for ([`move_away`]).

use super::Mutex;
use alloc::boxed::Box;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicI32};
use lock_api::RawMutex;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// By default ours lie below this number, since every fork copies the table up to the highest
/// descriptor.
const CEILING: u64 = 1024;

/// How far below the highest possible number ours then lie.
const HEADROOM: u64 = 64;

/// How many of ours can be recorded.
const PLACES: usize = 512;

/// The number of no descriptor.
const NONE: RawFd = -1;

/// The numbers of ours.
static KEPT: [AtomicI32; PLACES] = [const { AtomicI32::new(NONE) }; PLACES];

/// The lowest number for ours, if it was set.
static FLOOR: AtomicI32 = AtomicI32::new(NONE);

/// All our numbers are at or above this one.
static LOWEST: AtomicI32 = AtomicI32::new(RawFd::MAX);

/// Held while the limit of descriptors is not what the program set.
static LIMIT: Mutex<()> = Mutex::new(());

/// A descriptor that is recorded as ours until it is dropped.
#[derive(Debug)]
pub struct Kept {
    /// The index of its record.
    place: &'static AtomicI32,
}

/// The lowest number that one of ours has had: a quick test for most of the program's numbers.
pub fn lowest() -> RawFd {
    LOWEST.load(Relaxed)
}

/// Records that the descriptor with this number is ours, or about to be.
pub fn note(number: RawFd) {
    LOWEST.fetch_min(number, Relaxed);
}

/// Puts future descriptors of ours at `lowest` and above, whatever the soft limit: the hard limit
/// permits it.
pub fn set_floor(lowest: RawFd) {
    FLOOR.store(lowest, Relaxed);
}

/// Moves `fd` to a high number, closed on exec, and records it.
///
/// If the process has no high number free, the descriptor keeps its number.
pub fn keep(fd: OwnedFd) -> Kept {
    let fd = with_room(|| {
        let lowest = match FLOOR.load(Relaxed) {
            NONE => default_floor(),
            floor => floor,
        };
        let duplicate = |lowest| rustix::io::fcntl_dupfd_cloexec(&fd, lowest);
        duplicate(lowest).or_else(|_| duplicate(default_floor())).ok()
    })
    .unwrap_or(fd);
    Kept { place: record(fd.into_raw_fd()) }
}

fn default_floor() -> RawFd {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(CEILING).min(CEILING);
    limit.saturating_sub(HEADROOM) as RawFd
}

fn record(number: RawFd) -> &'static AtomicI32 {
    note(number);
    let take = |place: &&AtomicI32| place.compare_exchange(NONE, number, AcqRel, Relaxed).is_ok();
    // Without a record, the descriptor still works, but it cannot be recognised as ours or moved.
    KEPT.iter().find(take).unwrap_or_else(|| Box::leak(Box::new(AtomicI32::new(number))))
}

/// Whether the only thread has raised the limit for several operations.
static RAISED: AtomicBool = AtomicBool::new(false);

/// Runs several operations that each need [`with_room`], and raises the limit once for all of them.
///
/// The calling thread must be the only one that uses this module meanwhile.
pub fn with_room_for_all<R>(work: impl FnOnce() -> R) -> R {
    with_room(|| {
        RAISED.store(true, Relaxed);
        let result = work();
        RAISED.store(false, Relaxed);
        result
    })
}

/// Runs an operation for which the program's own limit of descriptors may be too low.
pub fn with_room<R>(work: impl FnOnce() -> R) -> R {
    if FLOOR.load(Relaxed) == NONE || RAISED.load(Relaxed) {
        return work();
    }
    with_limit(|own| {
        let raised = Rlimit { current: own.maximum, ..own };
        let is_raised = own.current != own.maximum && setrlimit(Resource::Nofile, raised).is_ok();
        let result = work();
        if is_raised {
            // It cannot fail: the limit was the same a moment ago.
            let _ = setrlimit(Resource::Nofile, own);
        }
        result
    })
}

/// Runs an operation on the limit of descriptors, which no other thread changes meanwhile.
pub fn with_limit<R>(work: impl FnOnce(Rlimit) -> R) -> R {
    let _limit = LIMIT.lock();
    work(getrlimit(Resource::Nofile))
}

/// Takes the lock of the limit for a fork: the child opens descriptors of its own, and must have the program's
/// limit.
pub fn hold_limit() {
    // SAFETY: unlocked by `let_limit_go`, on either side of the fork.
    unsafe { LIMIT.raw() }.lock();
}

/// Ends [`hold_limit`].
///
/// # Safety
/// This thread, or the one that it is a copy of, has called [`hold_limit`] and not this function since.
pub unsafe fn let_limit_go() {
    // SAFETY: locked by `hold_limit`, as the caller says.
    unsafe { LIMIT.raw().unlock() };
}

/// Whether a descriptor of this number is ours.
pub fn is_kept(fd: RawFd) -> bool {
    fd >= 0 && KEPT.iter().any(|place| place.load(Relaxed) == fd)
}

/// The lowest descriptor at or above `from` that is ours.
pub fn next_kept(from: RawFd) -> Option<RawFd> {
    let numbers = KEPT.iter().map(|place| place.load(Relaxed));
    numbers.filter(|number| *number >= from.max(0)).min()
}

/// Gives a descriptor of ours another number, because the program needs this one. The old number
/// stays open, for the program to replace.
///
/// `EBADF`: it is not ours. No other thread may use it meanwhile.
pub fn move_away(number: RawFd) -> Result<(), Errno> {
    let is_it = |place: &&AtomicI32| place.load(Acquire) == number;
    let place = KEPT.iter().filter(|_| number >= 0).find(is_it).ok_or(Errno::BADF)?;
    // SAFETY: what is recorded is open.
    let old = unsafe { BorrowedFd::borrow_raw(number) };
    let duplicate = |lowest| rustix::io::fcntl_dupfd_cloexec(old, lowest);
    let new = with_room(|| duplicate(number.saturating_add(1)).or_else(|_| duplicate(0)))?;
    note(new.as_raw_fd());
    place.store(new.into_raw_fd(), Release);
    Ok(())
}

impl Kept {
    /// Makes it refer to the file of `new`: under the same number, or under another if another
    /// address space uses the number too. After an error it still refers to the old file.
    pub fn replace(&self, new: &impl AsFd) -> Result<(), Errno> {
        let flags = rustix::io::DupFlags::CLOEXEC;
        let same = || rustix::io::dup3(new, &mut self.borrow_mut(), flags);
        if !is_shared() && with_room(same).is_ok() {
            return Ok(());
        }
        // Another address space uses the number too, or the limit was lowered below it.
        with_room(|| {
            let new = rustix::io::fcntl_dupfd_cloexec(new, default_floor())?;
            note(new.as_raw_fd());
            let old = self.place.swap(new.into_raw_fd(), AcqRel);
            if !is_shared() {
                // SAFETY: this value owned it, and names another now.
                drop(unsafe { OwnedFd::from_raw_fd(old) });
            }
            Ok(())
        })
    }

    fn borrow_mut(&self) -> core::mem::ManuallyDrop<OwnedFd> {
        // SAFETY: the number is open; `ManuallyDrop` keeps this second owner from closing it.
        core::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.as_fd().as_raw_fd()) })
    }
}

/// Whether another address space uses this table of descriptors.
static SHARED: AtomicBool = AtomicBool::new(false);

fn is_shared() -> bool {
    SHARED.load(Relaxed)
}

/// Notes that another address space uses this table of descriptors (`CLONE_FILES`): it may use ours
/// too, so they stay open.
pub fn share() {
    SHARED.store(true, Relaxed);
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: what is recorded is open until its owner is dropped.
        unsafe { BorrowedFd::borrow_raw(self.place.load(Acquire)) }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let number = self.place.swap(NONE, AcqRel);
        if is_shared() {
            return;
        }
        // SAFETY: the owner of an open descriptor gives it up.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}

#[cfg(test)]
mod tests;
