//! Mappings move and change their size.

use super::manager::done;
use super::{GATE, Manager, PAGE, addresses, current, page_up, pages, passive};
use crate::address_limit::{Growth, admit};
use crate::maps;
use crate::process;
use crate::sys::{self, Errno, Result};
use core::ops::Range;
use linux_raw_sys::general as nr;
use once_cell::race::OnceBool;
use pagefault::{Move, Placement, RemapRequest};
use pagefault_machine::VirtAddr;

/// What becomes of a mapping whose pages move away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It goes with them.
    Goes,
    /// It stays, empty (`MREMAP_DONTUNMAP`).
    Stays,
}

impl Origin {
    fn of(flags: u64) -> Self {
        if flags as u32 & nr::MREMAP_DONTUNMAP != 0 { Self::Stays } else { Self::Goes }
    }

    /// The move to an address.
    fn move_to(self, start: u64) -> Move {
        match self {
            Self::Goes => Move::To(VirtAddr(start)),
            Self::Stays => Move::Leaving(Placement::Fixed(VirtAddr(start))),
        }
    }
}

/// `mremap(2)`: the host moves the pages, and the memory manager follows.
pub fn remap(args: [u64; 6]) -> Result {
    let [old, old_len, new_len, flags, target, _] = args;
    let fixed = flags as u32 & nr::MREMAP_FIXED != 0;
    // The host refuses what is no range.
    let is_ours = |start, len| pages(start, len).is_some() && process::overlaps_runtime(start, len);
    if is_ours(old, old_len) || fixed && is_ours(target, new_len) {
        return Err(Errno::EFAULT);
    }
    let host = |old, old_len, new_len, target| {
        // SAFETY: the program asks for it, and the runtime's own mappings are kept from it.
        unsafe { sys::call(nr::__NR_mremap, [old, old_len, new_len, flags, target]) }
    };
    let Some(manager) = current() else { return host(old, old_len, new_len, target) };
    let _gate = GATE.write();
    let source = pages(old, old_len).and_then(|range| manager.managed_from(&range));
    let origin = Origin::of(flags);
    let before = if origin == Origin::Stays { 0 } else { page_up(old_len).unwrap_or(0) };
    let bytes = page_up(new_len).unwrap_or(0).saturating_sub(before);
    admit(Growth { bytes, data: if source.is_some() { bytes } else { 0 }, replaces: None })?;
    let made = host(old, old_len, new_len, target);
    let keeps_len = fixed && page_up(old_len) == page_up(new_len);
    if keeps_len
        && made == Err(Errno::EFAULT)
        && source.is_some()
        && let Some(range) = pages(old, old_len)
        && host_carries_several()
    {
        return manager.move_each(&range, target, origin, |piece, to| {
            let len = piece.end - piece.start;
            host(piece.start, len, len, to)
        });
    }
    let start = made?;
    if fixed {
        manager.replaced(start, new_len);
    }
    if let (Some(source), Some(new_len)) = (source, page_up(new_len)) {
        manager.follow(&source, old, start, new_len, origin);
    }
    Ok(start)
}

/// Whether the host moves several mappings at once (Linux 6.17).
fn host_carries_several() -> bool {
    static CARRIES: OnceBool = OnceBool::new();
    let try_it = || {
        let start = sys::map_private(4 * PAGE as usize, nr::PROT_NONE)? as u64;
        let flags = nr::MREMAP_MAYMOVE | nr::MREMAP_FIXED;
        let call = |number, args: [u64; 5]| {
            // SAFETY: the four pages are new and ours.
            unsafe { sys::call(number, args) }
        };
        let parted = call(nr::__NR_mprotect, [start, PAGE, nr::PROT_READ.into(), 0, 0]);
        let args = [start, 2 * PAGE, 2 * PAGE, flags.into(), start + 2 * PAGE];
        let carried = parted.and_then(|_| call(nr::__NR_mremap, args));
        call(nr::__NR_munmap, [start, 4 * PAGE, 0, 0, 0])?;
        carried
    };
    CARRIES.get_or_init(|| try_it().is_ok())
}

impl Manager {
    /// The part of a range from its first managed page on: other mappings may come first.
    fn managed_from(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let region = self.mm().first_mapped(addresses(range))?;
        Some(region.start.value().max(range.start)..range.end)
    }

    /// Moves the mappings of a range one after the other, gaps kept: the host moves several at once only where none is
    /// registered.
    fn move_each(
        &self,
        range: &Range<u64>,
        target: u64,
        origin: Origin,
        host: impl Fn(&Range<u64>, u64) -> Result,
    ) -> Result {
        let pieces = maps::within(range).ok_or(Errno::EFAULT)?;
        if pieces.first().is_none_or(|first| first.start > range.start) {
            return Err(Errno::EFAULT);
        }
        for piece in &pieces {
            let to = target + (piece.start - range.start);
            let len = piece.end - piece.start;
            host(piece, to)?;
            self.replaced(to, len);
            if let Some(source) = self.managed_from(piece) {
                self.follow(&source, piece.start, to, len, origin);
            }
        }
        Ok(target)
    }

    /// Follows the host, which has moved a range from `old` to `start` and made it `new_len` long; `managed` is its
    /// end.
    fn follow(&self, managed: &Range<u64>, old: u64, start: u64, new_len: u64, origin: Origin) {
        let before = managed.start - old;
        if new_len <= before {
            self.replaced(managed.start, managed.end - managed.start);
            return;
        }
        let moved = self.moved_with_guards(managed, start + before, new_len - before, origin);
        if let Err(errno) = moved {
            process::stop(format_args!("a moved mapping cannot be noted: error {}", errno.0));
        }
    }

    /// Follows the host, whose guard pages move with a mapping and do not part it.
    fn moved_with_guards(
        &self,
        old: &Range<u64>,
        start: u64,
        new_len: u64,
        origin: Origin,
    ) -> Result<()> {
        let guards = self.lift_guards(old);
        self.moved(old, start, new_len, origin)?;
        let moved = old.start..old.end.min(old.start + new_len);
        self.put_guards(guards, &moved, start);
        Ok(())
    }

    /// Follows the host, which has moved `old` to `start` and made it `new_len` long.
    fn moved(&self, old: &Range<u64>, start: u64, new_len: u64, origin: Origin) -> Result<()> {
        let old_len = old.end - old.start;
        if passive::is_passive() {
            return self.moved_passive(old, start, new_len, origin);
        }
        if start == old.start {
            if new_len < old_len {
                self.replaced(old.start + new_len, old_len - new_len);
            } else if new_len > old_len {
                self.request(old, new_len, Move::Never)?;
                self.register(&(old.end..old.start + new_len))?;
            }
            return Ok(());
        }
        let moving = old.start..old.start + old_len.min(new_len);
        if old_len > new_len {
            self.replaced(moving.end, old.end - moving.end);
        }
        // The host forgets on a move what was registered, and what was protected.
        self.register(&(start..start + new_len))?;
        let errno = |errno: rustix::io::Errno| Errno(errno.raw_os_error());
        // SAFETY: the host has moved them, and the gate keeps everybody else out.
        unsafe { self.mm().space().relocate(addresses(&moving), VirtAddr(start)) }
            .map_err(errno)?;
        if origin == Origin::Stays {
            self.register(old)?;
        }
        self.request(&moving, new_len, origin.move_to(start))
    }

    /// The same where the host owns the pages.
    fn moved_passive(
        &self,
        old: &Range<u64>,
        start: u64,
        new_len: u64,
        origin: Origin,
    ) -> Result<()> {
        let old_len = old.end - old.start;
        let new = start..start + new_len;
        if old_len > new_len {
            self.replaced(old.start + new_len, old_len - new_len);
        }
        let old = old.start..old.start + old_len.min(new_len);
        if start != old.start {
            self.request(&old, new_len, origin.move_to(start))?;
            self.cover_moved(&old, &new, origin);
            return Ok(());
        }
        if new_len > old_len {
            self.request(&old, new_len, Move::Never)?;
        }
        self.cover_moved(&old, &new, Origin::Stays);
        Ok(())
    }

    fn register(&self, range: &Range<u64>) -> Result<()> {
        // SAFETY: the host has just mapped the range for the program, and every call that changes
        // its mapping comes through here.
        let registered = unsafe { self.mm().space().register_as_is(addresses(range)) };
        registered.map_err(|errno| Errno(errno.raw_os_error()))
    }

    fn request(&self, old: &Range<u64>, new_len: u64, movement: Move) -> Result<()> {
        let request = RemapRequest {
            address: VirtAddr(old.start),
            old_length: old.end - old.start,
            new_length: new_len,
            movement,
        };
        match done(self.mm().mremap(&request)) {
            // More locked memory than the memory manager may have is memory that may leave.
            Err(Errno::EAGAIN) => {
                done(self.mm().munlock(VirtAddr(old.start), old.end - old.start))?;
                done(self.mm().mremap(&request))
            }
            moved => moved,
        }
    }
}
