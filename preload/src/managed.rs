//! Which addresses are managed, and every change to them.
//!
//! The host has each mapping too, so that every change is made twice. A range is the memory
//! manager's before the program can use it, and is given up before the host can give its addresses
//! to another, so that concurrent callers never see each other's.
//!
//! All functions enter the manager for the time of their call and hold its gate shared, which a
//! fork takes exclusively.

use crate::heap::window::Lock;
use crate::manager::{self, Manager, Shape};
use crate::ranges::Ranges;
use crate::sys::{self, Errno, Mmap};
use crate::{guard, stack};
use core::ffi::c_int;
use core::ops::Range;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Release};
use lock_api::{RawRwLock, RwLock};
use pagefault_linux::lock::FutexRwLock;

static RANGES: Lock<Ranges> = Lock::new(Ranges::new());

/// Ranges that a forked child does not have (`MADV_DONTFORK`).
static WITHHELD: Lock<Ranges> = Lock::new(Ranges::new());

static GATE: RwLock<FutexRwLock, ()> = RwLock::new(());

/// Whether the manager has started.
static OPEN: AtomicBool = AtomicBool::new(false);

/// Says that the manager has started.
pub fn open() {
    OPEN.store(true, Release);
}

/// Whether mappings of the calling thread are to be managed.
pub fn is_open() -> bool {
    OPEN.load(Acquire) && !guard::is_inside()
}

/// Whether all of a range is managed.
pub fn covers(range: Range<usize>) -> bool {
    let _inside = guard::enter();
    RANGES.lock().covers(range)
}

/// The managed parts of a range, from the highest down.
pub fn parts(range: Range<usize>) -> Vec<Range<usize>> {
    let _inside = guard::enter();
    within(range)
}

/// Runs `f` inside of the manager, on a stack that is not managed.
pub fn inside<R>(f: impl FnOnce() -> R) -> R {
    let _inside = guard::enter();
    if own_stack().is_some() { stack::on_own(f) } else { f() }
}

/// What the calling thread uses of its stack at present, if that is managed.
pub fn own_stack() -> Option<Range<usize>> {
    let used = stack::in_use();
    RANGES.lock().within(used.clone()).find(|part| part.contains(&(used.end - 1)))
}

/// Runs `f` as [`inside`] does, with the gate held.
fn change<R>(f: impl FnOnce() -> R) -> R {
    inside(|| {
        let _gate = GATE.read();
        f()
    })
}

fn within(range: Range<usize>) -> Vec<Range<usize>> {
    RANGES.lock().within(range).collect()
}

/// Makes a managed mapping.
///
/// # Safety
/// As for [`sys::mmap`].
pub unsafe fn map(request: &Mmap) -> Result<usize, Errno> {
    change(|| {
        // SAFETY: passed on to the caller.
        let start = unsafe { sys::mmap(request)? };
        let range = start..start + page_up(request.len);
        let shape = Shape { prot: request.prot, populate: request.flags & libc::MAP_POPULATE != 0 };
        if let Err(errno) = take_over(&range, shape) {
            // SAFETY: the mapping was made above and nobody knows of it.
            let _ = unsafe { sys::munmap(range.start, range.len()) };
            return Err(errno);
        }
        Ok(start)
    })
}

fn take_over(range: &Range<usize>, shape: Shape) -> Result<(), Errno> {
    if let Some(manager) = manager::current() {
        manager.adopt(range, shape)?;
    }
    RANGES.lock().insert(range.clone());
    Ok(())
}

/// Ends all mappings in a range, managed or not.
///
/// # Safety
/// As for [`sys::munmap`].
pub unsafe fn unmap(start: usize, len: usize) -> Result<(), Errno> {
    change(|| {
        give_up(start..start + page_up(len));
        // SAFETY: passed on to the caller.
        unsafe { sys::munmap(start, len) }
    })
}

/// Stops managing a range that is about to be replaced.
pub fn forget(range: Range<usize>) {
    change(|| give_up(range));
}

fn give_up(range: Range<usize>) {
    for part in within(range) {
        if let Some(manager) = manager::current() {
            manager.release(&part);
        }
        WITHHELD.lock().remove(part.clone());
        RANGES.lock().remove(part);
    }
}

/// Changes the protection of a range, managed or not.
///
/// # Safety
/// As for [`sys::mprotect`].
pub unsafe fn protect(start: usize, len: usize, prot: c_int) -> Result<(), Errno> {
    change(|| {
        let parts = within(start..start + page_up(len));
        // Losing the right to store begins with the host, so that no fault finds the host willing
        // and the manager not. Everything else begins with the manager, which reads pages that it
        // evicts where they stand, and so must have them out before the host forbids that.
        let only_narrows = prot & libc::PROT_READ != 0 && prot & libc::PROT_WRITE == 0;
        if !only_narrows {
            protect_parts(&parts, prot)?;
        }
        // The host could make what may only be executed unreadable.
        let readable =
            if !parts.is_empty() && prot != libc::PROT_NONE { libc::PROT_READ } else { 0 };
        // SAFETY: passed on to the caller.
        unsafe { sys::mprotect(start, len, prot | readable)? };
        if only_narrows { protect_parts(&parts, prot) } else { Ok(()) }
    })
}

fn protect_parts(parts: &[Range<usize>], prot: c_int) -> Result<(), Errno> {
    let Some(manager) = manager::current() else { return Ok(()) };
    parts.iter().try_for_each(|part| manager.protect(part, prot))
}

/// Gives advice about a managed range.
///
/// # Safety
/// As for [`sys::madvise`].
pub unsafe fn advise(start: usize, len: usize, advice: c_int) -> Result<(), Errno> {
    let range = start..start + len;
    change(|| match (manager::current(), advice) {
        (_, libc::MADV_DONTFORK) => {
            WITHHELD.lock().insert(range);
            // SAFETY: changes what a child has, and nothing here.
            unsafe { sys::madvise(start, len, advice) }
        }
        (_, libc::MADV_DOFORK) => {
            WITHHELD.lock().remove(range);
            // SAFETY: as above.
            unsafe { sys::madvise(start, len, advice) }
        }
        (Some(manager), _) => manager.advise(&range, advice),
        // SAFETY: passed on to the caller.
        (None, _) => unsafe { sys::madvise(start, len, advice) },
    })
}

/// Keeps the pages of a managed range resident, or lets them be evicted again.
pub fn set_locked(range: &Range<usize>, residence: Residence) -> Result<(), Errno> {
    change(|| match (manager::current(), residence) {
        (Some(manager), Residence::Locked) => manager.lock(range),
        (Some(manager), Residence::Evictable) => manager.unlock(range),
        (None, _) => Ok(()),
    })
}

/// Whether pages must stay resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// They must.
    Locked,
    /// They need not.
    Evictable,
}

/// Changes the size or the place of a managed mapping; both lengths are whole pages.
///
/// # Safety
/// As for [`sys::mremap`].
pub unsafe fn remap(
    old: Range<usize>,
    new_len: usize,
    flags: c_int,
    target: usize,
) -> Result<usize, Errno> {
    // SAFETY: passed on to the caller.
    change(|| unsafe {
        match manager::current() {
            Some(manager) => remap_managed(manager, old, new_len, flags, target),
            None => remap_host(old, new_len, flags, target),
        }
    })
}

/// Lets the host move a mapping that nobody manages: the manager is not there.
unsafe fn remap_host(
    old: Range<usize>,
    new_len: usize,
    flags: c_int,
    target: usize,
) -> Result<usize, Errno> {
    RANGES.lock().remove(old.clone());
    // SAFETY: passed on to the caller.
    let moved = unsafe { sys::mremap(old.start, old.len(), new_len, flags, target) };
    let mut ranges = RANGES.lock();
    match moved {
        Ok(start) => ranges.insert(start..start + new_len),
        Err(_) => ranges.insert(old),
    }
    moved
}

unsafe fn remap_managed(
    manager: &Manager,
    old: Range<usize>,
    new_len: usize,
    flags: c_int,
    target: usize,
) -> Result<usize, Errno> {
    let known = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    let fixed = flags & libc::MREMAP_FIXED != 0;
    let may_move = flags & libc::MREMAP_MAYMOVE != 0;
    let leaves = flags & libc::MREMAP_DONTUNMAP != 0;
    if flags & !known != 0 || (fixed || leaves) && !may_move || leaves && old.len() != new_len {
        return Err(Errno::EINVAL);
    }
    if leaves {
        let prot = manager.prot(&old).ok_or(Errno::EFAULT)?;
        let place = if fixed { Place::Replaced(target) } else { Place::Wished(target) };
        // SAFETY: passed on to the caller.
        return unsafe { relocate(manager, old, new_len, prot, place, OldPlace::Kept) };
    }
    if !fixed && new_len <= old.len() {
        let tail = old.start + new_len..old.end;
        give_up(tail.clone());
        if !tail.is_empty() {
            // SAFETY: passed on to the caller.
            unsafe { sys::munmap(tail.start, tail.len())? };
        }
        return Ok(old.start);
    }
    let prot = manager.prot(&old).ok_or(Errno::EFAULT)?;
    if !fixed && extend(manager, &old, new_len, prot).is_ok() {
        return Ok(old.start);
    }
    if !may_move {
        return Err(Errno::ENOMEM);
    }
    let place = if fixed { Place::Replaced(target) } else { Place::Wished(0) };
    // SAFETY: passed on to the caller.
    unsafe { relocate(manager, old, new_len, prot, place, OldPlace::Unmapped) }
}

/// Maps more addresses behind a mapping, if they are free.
fn extend(manager: &Manager, old: &Range<usize>, new_len: usize, prot: c_int) -> Result<(), Errno> {
    let end = old.start.checked_add(new_len).ok_or(Errno::ENOMEM)?;
    let request = private(old.end, end - old.end, prot, libc::MAP_FIXED_NOREPLACE);
    // SAFETY: nothing is replaced.
    unsafe { sys::mmap(&request)? };
    if let Err(errno) = manager.extend(old, end) {
        // SAFETY: the mapping was made above and nobody knows of it.
        let _ = unsafe { sys::munmap(old.end, end - old.end) };
        return Err(errno);
    }
    RANGES.lock().insert(old.end..end);
    Ok(())
}

/// Where a mapping moves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To this address; what is there is unmapped.
    Replaced(usize),
    /// To this address if it is free, else to any; 0 is no wish.
    Wished(usize),
}

/// What becomes of the place that a mapping moves away from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OldPlace {
    /// Nothing is mapped there any more.
    Unmapped,
    /// The mapping is still there, without its pages (`MREMAP_DONTUNMAP`).
    Kept,
}

/// Maps other addresses and moves what is there to them.
unsafe fn relocate(
    manager: &Manager,
    old: Range<usize>,
    new_len: usize,
    prot: c_int,
    place: Place,
    old_place: OldPlace,
) -> Result<usize, Errno> {
    let (Place::Replaced(target) | Place::Wished(target)) = place;
    let end = target.checked_add(new_len).ok_or(Errno::EINVAL)?;
    if target % 4096 != 0 || (target != 0 && target < old.end && old.start < end) {
        return Err(Errno::EINVAL);
    }
    if let Place::Replaced(_) = place {
        give_up(target..end);
    }
    // A longer source is cut first, so that what is moved is as long as its place.
    let source = old.start..old.start + old.len().min(new_len);
    let fixed = if matches!(place, Place::Replaced(_)) { libc::MAP_FIXED } else { 0 };
    // SAFETY: the caller vouches for a fixed target.
    let start = unsafe { sys::mmap(&private(target, new_len, prot, fixed))? };
    let new = start..start + new_len;
    let moved = match old_place {
        OldPlace::Unmapped => manager.relocate(&source, &new),
        OldPlace::Kept => manager.relocate_pages(&source, &new),
    };
    if let Err(errno) = moved {
        // SAFETY: the mapping was made above and nobody knows of it.
        let _ = unsafe { sys::munmap(new.start, new.len()) };
        return Err(errno);
    }
    RANGES.lock().insert(new);
    if old_place == OldPlace::Unmapped {
        give_up(old.clone());
        // SAFETY: passed on to the caller.
        let _ = unsafe { sys::munmap(old.start, old.len()) };
    }
    Ok(start)
}

/// Private memory at an address, or near it.
const fn private(address: usize, len: usize, prot: c_int, more: c_int) -> Mmap {
    Mmap { address, prot, ..Mmap::private(len).with(more) }
}

/// A length rounded up to whole pages.
pub const fn page_up(len: usize) -> usize {
    len.saturating_add(4095) & !4095
}

/// Takes every lock, for a fork; nobody is inside of the memory manager then.
pub fn hold() {
    // SAFETY: unlocked by `let_go`.
    unsafe { GATE.raw() }.lock_exclusive();
    RANGES.hold();
    WITHHELD.hold();
    stack::lock().hold();
}

/// Ends [`hold`].
///
/// # Safety
/// The calling thread, or the one that it is a copy of, called [`hold`].
pub unsafe fn let_go() {
    // SAFETY: passed on to the caller.
    unsafe {
        stack::lock().let_go();
        WITHHELD.let_go();
        RANGES.let_go();
        GATE.raw().unlock_exclusive();
    }
}

/// In a forked child: gives up what it does not have, and returns what it has.
pub fn inherited() -> Vec<Range<usize>> {
    let withheld: Vec<_> = WITHHELD.lock().within(0..usize::MAX).collect();
    withheld.into_iter().for_each(give_up);
    within(0..usize::MAX)
}
