//! Memory that must stay resident: `mlock(2)` and its kin.
//!
//! The host locks touched pages, so that its limits and reports hold. The memory manager brings the
//! pages in and keeps them.

use super::manager::done;
use super::{GATE, Manager, MapCall, PAGE, addresses, current, pages, passive};
use crate::sys::{self, Errno, Result};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32};
use linux_raw_sys::general as nr;
use pagefault::VmaFlags;
use pagefault_machine::{Access, Protection, VirtAddr};

/// `MLOCK_ONFAULT`.
const ON_FAULT: u32 = 1;
/// `mlockall`'s flags.
const MCL_CURRENT: u32 = 1;
const MCL_FUTURE: u32 = 2;
const MCL_ONFAULT: u32 = 4;

/// `mlockall`'s setting for future mappings.
static FUTURE: AtomicU32 = AtomicU32::new(0);

/// Whether the program has ever locked memory; most never do.
static EVER: AtomicBool = AtomicBool::new(false);

/// `mlock(2)` and `mlock2(2)`.
pub fn lock(start: u64, len: u64, flags: u32) -> Result {
    let host = |flags: u32| lock_on_host(start, len, flags);
    let first = start & !(PAGE - 1);
    let range = pages(first, len.saturating_add(start - first));
    let (Some(manager), Some(range)) = (current(), range) else { return host(flags) };
    if !manager.manages_any(&range) || flags & !ON_FAULT != 0 {
        return host(flags);
    }
    passive::leave(manager);
    EVER.store(true, Relaxed);
    host(flags | ON_FAULT)?;
    let bring = if flags & ON_FAULT == 0 { Bring::All } else { Bring::OnFault };
    manager.parts_now(&range).iter().try_for_each(|(part, _)| manager.lock(part, bring))?;
    Ok(0)
}

fn lock_on_host(start: u64, len: u64, flags: u32) -> Result {
    // SAFETY: what is locked keeps its content.
    unsafe { sys::call(nr::__NR_mlock2, [start, len, flags.into()]) }
}

/// Whether the pages of a locked range come at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bring {
    All,
    OnFault,
}

/// `munlock(2)`.
pub fn unlock(start: u64, len: u64) -> Result {
    // SAFETY: what is unlocked keeps its content.
    let result = unsafe { sys::call(nr::__NR_munlock, [start, len]) }?;
    let first = start & !(PAGE - 1);
    let range = pages(first, len.saturating_add(start - first));
    if let (Some(manager), Some(range)) = (current(), range) {
        manager.parts_now(&range).iter().try_for_each(|(part, _)| manager.unlock(part))?;
    }
    Ok(result)
}

/// `mlockall(2)`.
pub fn lock_all(flags: u32) -> Result {
    let Some(manager) = current() else {
        // SAFETY: as above.
        return unsafe { sys::call(nr::__NR_mlockall, [flags.into()]) };
    };
    passive::leave(manager);
    EVER.store(true, Relaxed);
    let host = flags | if flags & (MCL_CURRENT | MCL_FUTURE) != 0 { MCL_ONFAULT } else { 0 };
    // SAFETY: as above.
    let result = unsafe { sys::call(nr::__NR_mlockall, [host.into()]) }?;
    FUTURE.store(flags & (MCL_FUTURE | MCL_ONFAULT), Release);
    if flags & MCL_CURRENT != 0 {
        let bring = if flags & MCL_ONFAULT == 0 { Bring::All } else { Bring::OnFault };
        let everything = 0..crate::user::END;
        for (part, protection) in manager.parts_now(&everything) {
            if !protection.is_empty() {
                manager.lock(&part, bring)?;
            }
        }
    }
    Ok(result)
}

/// `munlockall(2)`.
pub fn unlock_all() -> Result {
    // SAFETY: as above.
    let result = unsafe { sys::call::<0>(nr::__NR_munlockall, []) }?;
    FUTURE.store(0, Release);
    if let Some(manager) = current() {
        let everything = 0..crate::user::END;
        manager.parts_now(&everything).iter().try_for_each(|(part, _)| manager.unlock(part))?;
    }
    Ok(result)
}

/// Has the host say whether it would lock a new mapping of this length: after `mmap` it would be too late, as the
/// mapping may have replaced another.
///
/// `EPERM`: the program lacks the right. `EAGAIN`: the limit forbids it.
pub fn admit_lock(len: u64) -> Result<()> {
    // The program can map nothing at this address meanwhile.
    let _gate = GATE.write();
    let flags = nr::MAP_PRIVATE | nr::MAP_ANONYMOUS | nr::MAP_NORESERVE | nr::MAP_LOCKED;
    let args = [0, len, nr::PROT_NONE.into(), flags.into(), u64::MAX, 0];
    // SAFETY: a mapping at an address of the host's choice, of which nobody knows.
    match unsafe { sys::call(nr::__NR_mmap, args) } {
        Ok(start) => {
            // SAFETY: it was made above.
            let _ = unsafe { sys::unmap(start as usize, len as usize) };
            Ok(())
        }
        Err(errno @ (Errno::EPERM | Errno::EAGAIN)) => Err(errno),
        // The call itself reports anything else.
        Err(_) => Ok(()),
    }
}

/// Locks a mapping that was just made, if the program asked for it now or before.
///
/// A mapping stands although its pages cannot come: it has no rights yet, as a thread's stack at first, or is longer
/// than its file. Memory without rights has no pages to keep, and does not count against the manager's limit.
pub fn lock_new(call: &MapCall, start: u64) -> Result<()> {
    let asked = call.flags & nr::MAP_LOCKED != 0;
    let future = FUTURE.load(Relaxed);
    if !asked && future & MCL_FUTURE == 0 {
        return Ok(());
    }
    let flags = if !asked && future & MCL_ONFAULT != 0 { ON_FAULT } else { 0 };
    let locked = if !call.is_manageable() {
        // `mmap` itself has locked it; only pages are missing.
        let _ = lock(start, call.len, flags);
        return Ok(());
    } else if call.prot == nr::PROT_NONE {
        lock_on_host(start, call.len, ON_FAULT)
    } else {
        lock(start, call.len, flags)
    };
    // `mmap`'s error if `mlock` lacks the right or the room.
    locked.map(drop).map_err(|_| Errno::EAGAIN)
}

/// `brk(2)`: new memory is locked if `mlockall` asked for that.
pub fn grow_break(wanted: u64) -> Result {
    let (end, grown) = super::map::grow_break(wanted)?;
    if FUTURE.load(Relaxed) & MCL_FUTURE != 0 && !grown.is_empty() {
        let _ = lock(grown.start, grown.end - grown.start, future_flags());
    }
    Ok(end)
}

/// `mremap(2)`: what locked memory grows by comes in.
pub fn remap(args: [u64; 6]) -> Result {
    let start = super::remap::remap(args)?;
    let [_, old_len, new_len, ..] = args;
    let grown = super::page_up(old_len).zip(super::page_up(new_len));
    if let Some((old_len, new_len)) = grown
        && old_len < new_len
        && let Some(manager) = has_locked()
    {
        manager.bring_locked(&(start + old_len..start + new_len));
    }
    Ok(start)
}

/// `mprotect(2)`: locked memory comes in when it has rights for it.
pub fn protect(number: u32, args: [u64; 6]) -> Result {
    let [start, len, prot, ..] = args;
    let manager = has_locked().zip(pages(start, len));
    let before = manager.map_or_else(Vec::new, |(manager, range)| manager.parts_now(&range));
    let result = super::map::protect(number, args)?;
    let can_store = prot as u32 & nr::PROT_WRITE != 0;
    for (part, was) in before.iter().filter(|(_, was)| !was.contains(Protection::WRITE)) {
        if prot != 0 && was.is_empty() && is_locked_on_host(part) {
            let _ = lock(part.start, part.end - part.start, future_flags());
        } else if can_store && let Some(manager) = current() {
            manager.bring_locked(part);
        }
    }
    Ok(result)
}

/// Takes the locks off in a forked child, which does not inherit them.
pub(super) fn leave_in_child(manager: &Manager) {
    if EVER.load(Relaxed) {
        FUTURE.store(0, Release);
        manager.mm().munlockall();
    }
}

/// How `mlockall` asked for new memory to be locked, as flags of `mlock2(2)`.
fn future_flags() -> u32 {
    if FUTURE.load(Relaxed) & MCL_ONFAULT != 0 { ON_FAULT } else { 0 }
}

/// The memory manager, if the program has ever locked memory.
fn has_locked() -> Option<&'static Manager> {
    current().filter(|_| EVER.load(Relaxed))
}

/// Whether the host has memory locked that has no page: it refuses to say of locked memory that it is not needed soon.
fn is_locked_on_host(range: &Range<u64>) -> bool {
    let args = [range.start, range.end - range.start, nr::MADV_COLD.into()];
    // SAFETY: the content stays as it is.
    let noted = unsafe { sys::call(nr::__NR_madvise, args) };
    noted == Err(Errno::EINVAL)
}

impl Manager {
    /// Brings the pages of a range in that are locked, and come in before they are touched.
    fn bring_locked(&self, range: &Range<u64>) {
        let locked = {
            let _gate = GATE.read();
            self.mm().maps(addresses(range))
        };
        let is_locked = |flags: VmaFlags| flags & VmaFlags::LOCKS == VmaFlags::LOCKED;
        for region in locked.iter().filter(|region| is_locked(region.flags)) {
            let start = region.range.start.value().max(range.start);
            // As on Linux, what does not come in comes later.
            let _ = self.lock(&(start..region.range.end.value().min(range.end)), Bring::All);
        }
    }

    fn lock(&self, range: &Range<u64>, bring: Bring) -> Result<()> {
        let _gate = GATE.read();
        let (start, len) = (VirtAddr(range.start), range.end - range.start);
        if bring == Bring::OnFault {
            return done(self.mm().mlock_on_fault(start, len));
        }
        done(self.mm().mlock(start, len))?;
        // The host's own accesses must find them, with their current rights.
        for access in [Access::Read, Access::Write] {
            let filled = self.mm().space().prefill(addresses(range), access);
            filled.map_err(|errno| Errno(errno.raw_os_error()))?;
        }
        Ok(())
    }

    fn unlock(&self, range: &Range<u64>) -> Result<()> {
        let _gate = GATE.read();
        done(self.mm().munlock(VirtAddr(range.start), range.end - range.start))
    }
}
