//! The mmap family.

mod cross;
mod map;
mod policy;
mod shm;

use super::{Arguments, Result};
use crate::errno::Errno;
use crate::machine::Pc;
use crate::{process, scheduler, signal, user};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as nr;
use pagefault::machine::{PAGE_SIZE, Protection, VirtAddr};
use pagefault::{Advice, LockAll, MapOptions, Mm, SyncMode};

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, .. } = arguments;
    let done = |result: core::result::Result<(), Errno>| result.map(|()| 0);
    Some(match number {
        nr::__NR_mmap => map::mmap(arguments),
        nr::__NR_munmap => munmap(a, b),
        nr::__NR_mprotect => mprotect(a, b, c),
        nr::__NR_brk => brk(a),
        nr::__NR_mremap => map::mremap(arguments),
        nr::__NR_madvise => madvise(a, b, c as u32),
        nr::__NR_process_vm_readv | nr::__NR_process_vm_writev => {
            cross::transfer(number, arguments)
        }
        nr::__NR_set_mempolicy => policy::set(a as u32, b, c),
        nr::__NR_get_mempolicy => policy::get(arguments),
        nr::__NR_mbind => policy::bind(arguments),
        nr::__NR_move_pages => policy::move_pages(arguments),
        nr::__NR_shmget => shm::get(a as u32, b, c as u32),
        nr::__NR_shmat => shm::attach(a as u32, b, c as u32),
        nr::__NR_shmdt => shm::detach(a),
        nr::__NR_shmctl => shm::control(a as u32, b as u32, c),
        nr::__NR_mseal => mseal(a, b, c),
        nr::__NR_mlock => done(mm().mlock(VirtAddr(a), b).map_err(Errno::from)),
        nr::__NR_mlock2 => mlock2(a, b, c as u32),
        nr::__NR_munlock => done(mm().munlock(VirtAddr(a), b).map_err(Errno::from)),
        nr::__NR_mlockall => mlockall(a as u32),
        nr::__NR_munlockall => munlockall(),
        nr::__NR_msync => msync(a, b, c as u32),
        nr::__NR_mincore => mincore(a, b, c),
        nr::__NR_remap_file_pages => remap_file_pages(arguments),
        _ => return None,
    })
}

fn mm() -> &'static Arc<Mm<Pc>> {
    process::space().mm()
}

const fn protection(bits: u64) -> Protection {
    Protection::from_bits_truncate(bits as u8)
}

fn brk(wanted: u64) -> Result {
    let (space, process) = (process::space(), process::current());
    let heap = space.heap();
    if wanted.saturating_sub(heap.start.value()) > process.limit(nr::RLIMIT_DATA) {
        return Ok(heap.end.value());
    }
    Ok(space.brk(VirtAddr(wanted), MapOptions::empty()).value())
}

fn mlock2(address: u64, length: u64, flags: u32) -> Result {
    let space = process::space();
    match flags {
        0 => space.mlock(VirtAddr(address), length)?,
        nr::MLOCK_ONFAULT => space.mlock_on_fault(VirtAddr(address), length)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn mlockall(flags: u32) -> Result {
    let what = LockAll::from_bits(flags).ok_or(Errno::EINVAL)?;
    mm().mlockall(what)?;
    Ok(0)
}

fn munlockall() -> Result {
    mm().munlockall();
    Ok(0)
}

const fn advice(number: u32) -> Option<Advice> {
    Some(match number {
        nr::MADV_NORMAL => Advice::Normal,
        nr::MADV_RANDOM => Advice::Random,
        nr::MADV_SEQUENTIAL => Advice::Sequential,
        nr::MADV_WILLNEED => Advice::WillNeed,
        nr::MADV_DONTNEED => Advice::DontNeed,
        nr::MADV_DONTNEED_LOCKED => Advice::DontNeedLocked,
        nr::MADV_FREE => Advice::Free,
        nr::MADV_REMOVE => Advice::Remove,
        nr::MADV_DONTFORK => Advice::DontFork,
        nr::MADV_DOFORK => Advice::DoFork,
        nr::MADV_COLD => Advice::Cold,
        nr::MADV_PAGEOUT => Advice::PageOut,
        nr::MADV_POPULATE_READ => Advice::PopulateRead,
        nr::MADV_POPULATE_WRITE => Advice::PopulateWrite,
        nr::MADV_WIPEONFORK => Advice::WipeOnFork,
        nr::MADV_KEEPONFORK => Advice::KeepOnFork,
        nr::MADV_DONTDUMP => Advice::DontDump,
        nr::MADV_DODUMP => Advice::DoDump,
        nr::MADV_MERGEABLE => Advice::Mergeable,
        nr::MADV_UNMERGEABLE => Advice::Unmergeable,
        nr::MADV_HUGEPAGE => Advice::HugePage,
        nr::MADV_NOHUGEPAGE => Advice::NoHugePage,
        nr::MADV_GUARD_INSTALL => Advice::GuardInstall,
        nr::MADV_GUARD_REMOVE => Advice::GuardRemove,
        _ => return None,
    })
}

fn madvise(address: u64, length: u64, number: u32) -> Result {
    // There are no huge pages to make of small ones.
    if number == nr::MADV_COLLAPSE && length == 0 && address.is_multiple_of(PAGE_SIZE) {
        return Ok(0);
    }
    let advice = advice(number).ok_or(Errno::EINVAL)?;
    mm().madvise(VirtAddr(address), length, advice)?;
    Ok(0)
}

fn mprotect(address: u64, length: u64, bits: u64) -> Result {
    const KNOWN: u32 = nr::PROT_READ | nr::PROT_WRITE | nr::PROT_EXEC | nr::PROT_SEM;
    let (down, up) = (nr::PROT_GROWSDOWN, nr::PROT_GROWSUP);
    let grows = bits as u32 & (down | up);
    let bits = bits as u32 & !grows;
    if grows == down | up || !address.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    if length == 0 {
        return Ok(0);
    }
    let end = length.checked_next_multiple_of(PAGE_SIZE).and_then(|len| address.checked_add(len));
    let end = end.ok_or(Errno::ENOMEM)?;
    if bits & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let (at, protection) = (VirtAddr(address), protection(bits.into()));
    match grows {
        0 => mm().mprotect(at, length, protection)?,
        _ if grows == down => mm().mprotect_stack(at, length, protection)?,
        // There are none here that grow up.
        _ => {
            let first = mm().maps(at..VirtAddr(end)).into_iter().next();
            let is_mapped = first.is_some_and(|region| region.range.start <= at);
            return Err(if is_mapped { Errno::EINVAL } else { Errno::ENOMEM });
        }
    }
    Ok(0)
}

fn munmap(address: u64, length: u64) -> Result {
    mm().munmap(VirtAddr(address), length)?;
    Ok(0)
}

fn mseal(address: u64, length: u64, flags: u64) -> Result {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    mm().seal(VirtAddr(address), length)?;
    Ok(0)
}

fn msync(address: u64, length: u64, flags: u32) -> Result {
    if flags & !(nr::MS_ASYNC | nr::MS_INVALIDATE | nr::MS_SYNC) != 0
        || flags & (nr::MS_ASYNC | nr::MS_SYNC) == nr::MS_ASYNC | nr::MS_SYNC
    {
        return Err(Errno::EINVAL);
    }
    let (address, space) = (VirtAddr(address), process::space());
    if flags & nr::MS_INVALIDATE != 0 {
        space.msync(address, length, SyncMode::Invalidate)?;
    }
    let writes = flags & nr::MS_SYNC != 0;
    space.msync(address, length, if writes { SyncMode::Sync } else { SyncMode::Async })?;
    Ok(0)
}

fn remap_file_pages(arguments: Arguments) -> Result {
    let Arguments { a, b, c: protection, d: index, .. } = arguments;
    if protection != 0 {
        return Err(Errno::EINVAL);
    }
    mm().remap_file_pages(VirtAddr(a), b, index)?;
    Ok(0)
}

fn mincore(address: u64, length: u64, to: u64) -> Result {
    const PIECE: u64 = 4096 * PAGE_SIZE;
    if !address.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    if !user::access_ok(address, usize::try_from(length).map_err(|_| Errno::ENOMEM)?) {
        return Err(Errno::ENOMEM);
    }
    if !user::access_ok(to, length.div_ceil(PAGE_SIZE) as usize) {
        return Err(Errno::EFAULT);
    }
    let space = process::space();
    let mut resident = Vec::new();
    let mut done = 0;
    // At least once: the address is checked for no pages too.
    loop {
        resident.clear();
        let piece = (length - done).min(PIECE);
        let told = space.mincore(VirtAddr(address + done), piece, |_, is_resident| {
            resident.push(u8::from(is_resident))
        });
        // What lies before a gap is told all the same.
        user::write(to.wrapping_add(done / PAGE_SIZE), &resident)?;
        told?;
        done += piece;
        if done == length {
            return Ok(0);
        }
        if signal::is_pending() {
            return Err(Errno::EINTR);
        }
        scheduler::yield_if_expired();
    }
}
