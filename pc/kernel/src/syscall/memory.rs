//! The mmap family.

use super::{Arguments, Result};
use crate::errno::Errno;
use crate::fs::{self, What};
use crate::layout::TASK_SIZE;
use crate::machine::Pc;
use crate::{process, scheduler, signal, user};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as nr;
use pagefault::machine::{PAGE_SIZE, Protection, VirtAddr};
use pagefault::{
    Advice, FileAccess, MapOptions, MapRequest, Mm, Move, Placement, RemapRequest, Sharing, Source,
    SyncMode,
};

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, .. } = arguments;
    let done = |result: core::result::Result<(), Errno>| result.map(|()| 0);
    Some(match number {
        nr::__NR_mmap => mmap(arguments),
        nr::__NR_munmap => done(mm().munmap(VirtAddr(a), b).map_err(Errno::from)),
        nr::__NR_mprotect => {
            done(mm().mprotect(VirtAddr(a), b, protection(c)).map_err(Errno::from))
        }
        nr::__NR_brk => brk(a),
        nr::__NR_mremap => mremap(arguments),
        nr::__NR_madvise => match advice(c as u32) {
            Some(advice) => done(mm().madvise(VirtAddr(a), b, advice).map_err(Errno::from)),
            None => ignored_advice(c as u32),
        },
        nr::__NR_mlock => done(mm().mlock(VirtAddr(a), b).map_err(Errno::from)),
        nr::__NR_mlock2 => mlock2(a, b, c as u32),
        nr::__NR_munlock => done(mm().munlock(VirtAddr(a), b).map_err(Errno::from)),
        nr::__NR_mlockall => mlockall(a as u32),
        nr::__NR_munlockall => munlockall(),
        nr::__NR_msync => msync(a, b, c as u32),
        nr::__NR_mincore => mincore(a, b, c),
        nr::__NR_remap_file_pages => {
            let result = mm().remap_file_pages(VirtAddr(a), b, arguments.d);
            done(result.map_err(Errno::from))
        }
        _ => return None,
    })
}

fn mm() -> &'static Arc<Mm<Pc>> {
    process::space().mm()
}

const fn protection(bits: u64) -> Protection {
    Protection::from_bits_truncate(bits as u8)
}

fn mmap(arguments: Arguments) -> Result {
    let Arguments { a: address, b: length, c, d: flags, e: number, f: offset } = arguments;
    let flags = flags as u32;
    let has = |flag: u32| flags & flag != 0;
    let placement = match VirtAddr(address) {
        at if has(nr::MAP_FIXED_NOREPLACE) => Placement::FixedNoReplace(at),
        at if has(nr::MAP_FIXED) => Placement::Fixed(at),
        VirtAddr(0) => Placement::Anywhere,
        at => Placement::Hint(at),
    };
    let sharing = match flags & 3 {
        nr::MAP_PRIVATE => Sharing::Private,
        nr::MAP_SHARED | nr::MAP_SHARED_VALIDATE => Sharing::Shared,
        _ => return Err(Errno::EINVAL),
    };
    let mut options = MapOptions::empty();
    options.set(MapOptions::NORESERVE, has(nr::MAP_NORESERVE));
    options.set(MapOptions::GROWSDOWN, has(nr::MAP_GROWSDOWN));
    let locks = process::current().locks_new.load(Ordering::Relaxed);
    options.set(MapOptions::LOCKED, has(nr::MAP_LOCKED) || locks);
    options.set(MapOptions::POPULATE, has(nr::MAP_POPULATE) && !has(nr::MAP_NONBLOCK));
    let file;
    let source = if has(nr::MAP_ANONYMOUS) {
        Source::Anonymous
    } else {
        let open = fs::file(number as u32)?;
        let What::Node(node, _) = &open.what else { return Err(Errno::ENODEV) };
        let writes = sharing == Sharing::Shared && open.is_writable();
        file = if writes { node.content_for_writing() } else { node.content() }
            .map_err(|_| Errno::ENODEV)?;
        let mut access = FileAccess::empty();
        access.set(FileAccess::READ, open.is_readable());
        access.set(FileAccess::WRITE, open.is_writable());
        Source::File { file: &file, offset, access }
    };
    let protection = protection(c);
    let request = MapRequest { length, protection, sharing, placement, source, options };
    Ok(process::space().mmap(&request)?.value())
}

fn brk(wanted: u64) -> Result {
    let space = process::space();
    // Held while memory is mapped or unmapped: another thread may move it too.
    let mut now = process::current().program_break.lock();
    if !(now.start..TASK_SIZE).contains(&wanted) {
        return Ok(now.now);
    }
    let page = |address: u64| address.next_multiple_of(PAGE_SIZE);
    let (old, new) = (page(now.now), page(wanted));
    let moved = if new > old {
        let mut request = MapRequest::anonymous(new - old);
        request.placement = Placement::FixedNoReplace(VirtAddr(old));
        let locks = process::current().locks_new.load(Ordering::Relaxed);
        request.options.set(MapOptions::LOCKED, locks);
        space.mmap(&request).is_ok()
    } else {
        new == old || space.munmap(VirtAddr(new), old - new).is_ok()
    };
    if !moved {
        return Ok(now.now);
    }
    now.now = wanted;
    Ok(wanted)
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

/// Locks what is mapped, what will be mapped, or both. A new mapping is locked where it is made; a
/// stack that grows is not.
fn mlockall(flags: u32) -> Result {
    let all = nr::MCL_CURRENT | nr::MCL_FUTURE | nr::MCL_ONFAULT;
    if flags & !all != 0 || flags & (nr::MCL_CURRENT | nr::MCL_FUTURE) == 0 {
        return Err(Errno::EINVAL);
    }
    process::current().locks_new.store(flags & nr::MCL_FUTURE != 0, Ordering::Relaxed);
    if flags & nr::MCL_CURRENT == 0 {
        return Ok(0);
    }
    let space = process::space();
    let mapped = space.usage().total * PAGE_SIZE;
    if mapped > space.limits().locked.load(Ordering::Relaxed) {
        return Err(Errno::ENOMEM);
    }
    for region in space.maps(VirtAddr(0)..VirtAddr(TASK_SIZE)) {
        let (start, length) = (region.range.start, region.range.end - region.range.start);
        // What may not be touched cannot be brought in, and is locked nevertheless.
        let _ = match flags & nr::MCL_ONFAULT {
            0 => space.mlock(start, length),
            _ => space.mlock_on_fault(start, length),
        };
    }
    Ok(0)
}

fn munlockall() -> Result {
    process::current().locks_new.store(false, Ordering::Relaxed);
    let space = process::space();
    for region in space.maps(VirtAddr(0)..VirtAddr(TASK_SIZE)) {
        let (start, length) = (region.range.start, region.range.end - region.range.start);
        if region.locked {
            space.munlock(start, length)?;
        }
    }
    Ok(0)
}

fn mremap(arguments: Arguments) -> Result {
    let Arguments { a, b, c, d, e, .. } = arguments;
    let flags = d as u32;
    if flags & !(nr::MREMAP_MAYMOVE | nr::MREMAP_FIXED | nr::MREMAP_DONTUNMAP) != 0 {
        return Err(Errno::EINVAL);
    }
    let has = |flag| flags & flag != 0;
    let target = VirtAddr(e);
    let leaving = has(nr::MREMAP_DONTUNMAP);
    let movement = match (has(nr::MREMAP_MAYMOVE), has(nr::MREMAP_FIXED)) {
        (true, true) if leaving => Move::Leaving(Placement::Fixed(target)),
        (true, false) if leaving && e == 0 => Move::Leaving(Placement::Anywhere),
        (true, false) if leaving => Move::Leaving(Placement::Hint(target)),
        (true, true) => Move::To(target),
        (true, false) => Move::Anywhere,
        (false, false) if !leaving => Move::Never,
        (false, _) => return Err(Errno::EINVAL),
    };
    let request = RemapRequest { address: VirtAddr(a), old_length: b, new_length: c, movement };
    Ok(process::space().mremap(&request)?.value())
}

const fn advice(number: u32) -> Option<Advice> {
    Some(match number {
        nr::MADV_NORMAL => Advice::Normal,
        nr::MADV_RANDOM => Advice::Random,
        nr::MADV_SEQUENTIAL => Advice::Sequential,
        nr::MADV_WILLNEED => Advice::WillNeed,
        nr::MADV_DONTNEED => Advice::DontNeed,
        nr::MADV_FREE => Advice::Free,
        nr::MADV_REMOVE => Advice::Remove,
        nr::MADV_DONTFORK => Advice::DontFork,
        nr::MADV_DOFORK => Advice::DoFork,
        nr::MADV_COLD => Advice::Cold,
        nr::MADV_PAGEOUT => Advice::PageOut,
        nr::MADV_POPULATE_READ => Advice::PopulateRead,
        nr::MADV_POPULATE_WRITE => Advice::PopulateWrite,
        _ => return None,
    })
}

/// Advice about things that there are none of here: merged and huge pages, core dumps.
const fn ignored_advice(number: u32) -> Result {
    match number {
        nr::MADV_MERGEABLE
        | nr::MADV_UNMERGEABLE
        | nr::MADV_HUGEPAGE
        | nr::MADV_NOHUGEPAGE
        | nr::MADV_DONTDUMP
        | nr::MADV_DODUMP => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

fn msync(address: u64, length: u64, flags: u32) -> Result {
    let mode = match flags {
        0 | nr::MS_ASYNC => SyncMode::Async,
        nr::MS_INVALIDATE => SyncMode::Invalidate,
        flags if flags & !(nr::MS_SYNC | nr::MS_INVALIDATE) == 0 => SyncMode::Sync,
        _ => return Err(Errno::EINVAL),
    };
    process::space().msync(VirtAddr(address), length, mode)?;
    Ok(0)
}

fn mincore(address: u64, length: u64, to: u64) -> Result {
    const PIECE: u64 = 4096 * PAGE_SIZE;
    let space = process::space();
    let mut resident = Vec::new();
    let mut done = 0;
    // At least once: the address is checked for no pages too.
    loop {
        resident.clear();
        let piece = (length - done).min(PIECE);
        space.mincore(VirtAddr(address.wrapping_add(done)), piece, |_, is_resident| {
            resident.push(u8::from(is_resident))
        })?;
        user::write(to.wrapping_add(done / PAGE_SIZE), &resident)?;
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
