//! mmap and mremap: what they check, in Linux's order.

use super::super::{Arguments, Result};
use super::{mm, protection};
use crate::errno::Errno;
use crate::fs::{self, Device, Kind, Open, What};
use crate::layout::TASK_SIZE;
use crate::machine::Pc;
use crate::process;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as nr;
use pagefault::machine::{PAGE_SIZE, VirtAddr};
use pagefault::{
    File, FileAccess, MapOptions, MapRequest, Move, Placement, RemapRequest, Sharing, Source,
};

/// The bits of the flags that say the type.
const MAP_TYPE: u32 = 15;

/// The flags that a validated mapping may have (Linux: `LEGACY_MAP_MASK`).
const KNOWN: u32 = nr::MAP_SHARED
    | nr::MAP_PRIVATE
    | nr::MAP_FIXED
    | nr::MAP_ANONYMOUS
    | nr::MAP_DENYWRITE
    | nr::MAP_EXECUTABLE
    | nr::MAP_GROWSDOWN
    | nr::MAP_LOCKED
    | nr::MAP_NORESERVE
    | nr::MAP_POPULATE
    | nr::MAP_NONBLOCK
    | nr::MAP_STACK
    | nr::MAP_HUGETLB
    | nr::MAP_32BIT
    | MAP_ABOVE4G
    | nr::MAP_UNINITIALIZED
    | nr::MAP_HUGE_2MB
    | nr::MAP_HUGE_1GB;
const MAP_ABOVE4G: u32 = 0x80;

/// Where `MAP_32BIT` puts a mapping.
const LOW: Placement = Placement::Between(VirtAddr(0x4000_0000), VirtAddr(0x8000_0000));

/// What is mapped, from the arguments.
enum Target {
    Anonymous,
    /// The device that holds zeros: memory of its own for each mapping.
    Zeros(Arc<Open>),
    File(File<Pc>, FileAccess),
}

pub(super) fn mmap(arguments: Arguments) -> Result {
    let Arguments { a: address, b: length, c, d: flags, e: number, f: offset } = arguments;
    let flags = flags as u32;
    let has = |flag: u32| flags & flag != 0;
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let open = if has(nr::MAP_ANONYMOUS) {
        None
    } else {
        let open = fs::file(number as u32)?;
        if open.is_only_path() {
            return Err(Errno::EBADF);
        }
        Some(open)
    };
    if has(nr::MAP_HUGETLB) {
        // There are none, and files have none.
        return Err(if open.is_some() { Errno::EINVAL } else { Errno::ENOMEM });
    }
    if length == 0 {
        return Err(Errno::EINVAL);
    }
    let space = process::space();
    // Linux finds the place before it looks at the type.
    check_place(address, length, flags)?;
    let sharing = sharing(flags, &open)?;
    let limits = space.limits();
    if has(nr::MAP_LOCKED) && limits.locked.load(Ordering::Relaxed) == 0 {
        return Err(Errno::EPERM);
    }
    let node = open.as_ref().and_then(|open| match &open.what {
        What::Node(node, _) => Some(node.clone()),
        _ => None,
    });
    // Until the mapping is there: a seal against stores looks for mappings.
    let _kept = node.as_ref().and_then(|node| node.seals.keep());
    let target = target(open, sharing, c)?;
    let source = match &target {
        Target::Anonymous => Source::Anonymous,
        Target::Zeros(open) => {
            check_zeros(open, sharing, c)?;
            Source::Anonymous
        }
        Target::File(file, access) => Source::File { file, offset, access: *access },
    };
    let (placement, options) = (placement(flags, VirtAddr(address)), options(flags));
    let protection = protection(c);
    let request = MapRequest { length, protection, sharing, placement, source, options };
    Ok(space.mmap(&request)?.value())
}

/// Whether a mapping may be of that length and at that fixed address.
fn check_place(address: u64, length: u64, flags: u32) -> core::result::Result<(), Errno> {
    let pages = length.checked_next_multiple_of(PAGE_SIZE).filter(|pages| *pages <= TASK_SIZE);
    let pages = pages.ok_or(Errno::ENOMEM)?;
    let at = VirtAddr(address);
    let keeps = flags & nr::MAP_FIXED_NOREPLACE != 0;
    if flags & nr::MAP_FIXED == 0 && !keeps {
        return Ok(());
    }
    if address > TASK_SIZE - pages {
        return Err(Errno::ENOMEM);
    }
    if !at.is_page_aligned() {
        return Err(Errno::EINVAL);
    }
    let is_free = || mm().first_mapped(at..at + pages).is_none();
    if keeps && !is_free() { Err(Errno::EEXIST) } else { Ok(()) }
}

fn sharing(flags: u32, open: &Option<Arc<Open>>) -> core::result::Result<Sharing, Errno> {
    match (flags & MAP_TYPE, open) {
        (nr::MAP_PRIVATE, _) => Ok(Sharing::Private),
        (nr::MAP_SHARED, _) => Ok(Sharing::Shared),
        (nr::MAP_SHARED_VALIDATE, Some(_)) if flags & !KNOWN != 0 => Err(Errno::EOPNOTSUPP),
        (nr::MAP_SHARED_VALIDATE, Some(_)) => Ok(Sharing::Shared),
        _ => Err(Errno::EINVAL),
    }
}

const fn placement(flags: u32, at: VirtAddr) -> Placement {
    match at {
        at if flags & nr::MAP_FIXED_NOREPLACE != 0 => Placement::FixedNoReplace(at),
        at if flags & nr::MAP_FIXED != 0 => Placement::Fixed(at),
        _ if flags & nr::MAP_32BIT != 0 => LOW,
        VirtAddr(0) => Placement::Anywhere,
        at => Placement::Hint(at),
    }
}

fn options(flags: u32) -> MapOptions {
    let has = |flag: u32| flags & flag != 0;
    let mut options = MapOptions::empty();
    options.set(MapOptions::NORESERVE, has(nr::MAP_NORESERVE));
    options.set(MapOptions::GROWSDOWN, has(nr::MAP_GROWSDOWN));
    options.set(MapOptions::LOCKED, has(nr::MAP_LOCKED));
    options.set(MapOptions::POPULATE, has(nr::MAP_POPULATE) && !has(nr::MAP_NONBLOCK));
    options
}

fn target(
    open: Option<Arc<Open>>,
    sharing: Sharing,
    protection: u64,
) -> core::result::Result<Target, Errno> {
    let Some(open) = open else { return Ok(Target::Anonymous) };
    let What::Node(node, _) = &open.what else { return Err(Errno::ENODEV) };
    if matches!(node.kind, Kind::Device(Device::Zero)) {
        return Ok(Target::Zeros(open));
    }
    let mut access = FileAccess::empty();
    access.set(FileAccess::READ, open.is_readable());
    let stores = sharing == Sharing::Shared && protection as u32 & nr::PROT_WRITE != 0;
    let is_sealed = node.seals.is_write_sealed();
    if is_sealed && stores {
        return Err(Errno::EPERM);
    }
    access.set(FileAccess::WRITE, open.is_writable() && !is_sealed);
    let writes = sharing == Sharing::Shared && open.is_writable();
    let file = if writes { node.content_for_writing() } else { node.content() };
    Ok(Target::File(file.map_err(|_| Errno::ENODEV)?, access))
}

/// What is asked of a file's mode is asked of the device's too.
fn check_zeros(open: &Open, sharing: Sharing, protection: u64) -> core::result::Result<(), Errno> {
    let stores = protection as u32 & nr::PROT_WRITE != 0 && sharing == Sharing::Shared;
    let allowed = open.is_readable() && (!stores || open.is_writable());
    if allowed { Ok(()) } else { Err(Errno::EACCES) }
}

pub(super) fn mremap(arguments: Arguments) -> Result {
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
    Ok(mm().mremap(&request)?.value())
}
