//! What the program maps, told to the memory manager.
//!
//! The host has the same mappings: it enforces what a whole region allows, and the memory manager
//! what its pages hold. Ranges are page-aligned.

use super::Manager;
use crate::sys::Errno;
use core::ffi::c_int;
use pagefault::machine::{Protection, VirtAddr};
use pagefault::{Advice, MapOptions, MapRequest, Move, Placement, RemapRequest, Sharing, Source};
use std::ops::Range;

/// What kind of mapping a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `PROT_` bits.
    pub prot: c_int,
    /// `MAP_POPULATE` was asked for.
    pub populate: bool,
}

/// What the memory manager does not do, with the error number for the program.
pub type Refused = Errno;

fn refused(error: impl Into<pagefault::error::Errno>) -> Refused {
    Errno::new(error.into().number())
}

/// What `PROT_` bits mean. On x86-64 what may be written or executed may be read.
fn protection(prot: c_int) -> Protection {
    let mut protection = Protection::empty();
    let any = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    protection.set(Protection::READ, prot & any != 0);
    protection.set(Protection::WRITE, prot & libc::PROT_WRITE != 0);
    protection.set(Protection::EXECUTE, prot & libc::PROT_EXEC != 0);
    protection
}

fn prot_bits(protection: Protection) -> c_int {
    let bits = [
        (Protection::READ, libc::PROT_READ),
        (Protection::WRITE, libc::PROT_WRITE),
        (Protection::EXECUTE, libc::PROT_EXEC),
    ];
    bits.iter().filter(|(flag, _)| protection.contains(*flag)).map(|(_, bit)| bit).sum()
}

fn addresses(range: &Range<usize>) -> Range<VirtAddr> {
    VirtAddr(range.start as u64)..VirtAddr(range.end as u64)
}

impl Manager {
    /// Takes a range, which the host has just mapped, under management.
    pub fn adopt(&self, range: &Range<usize>, shape: Shape) -> Result<(), Refused> {
        let mut options = MapOptions::NORESERVE;
        let request = MapRequest {
            length: range.len() as u64,
            protection: protection(shape.prot),
            sharing: Sharing::Private,
            placement: Placement::Fixed(VirtAddr(range.start as u64)),
            source: Source::Anonymous,
            options,
        };
        self.mm().mmap(&request).map_err(refused)?;
        if let Err(errno) = self.register(range) {
            self.release(range);
            return Err(errno);
        }
        options.set(MapOptions::POPULATE, shape.populate);
        if options.contains(MapOptions::POPULATE) {
            // Failing to bring pages in is no failure of mmap.
            let _ = self.advise(range, libc::MADV_POPULATE_WRITE);
        }
        Ok(())
    }

    fn register(&self, range: &Range<usize>) -> Result<(), Refused> {
        // SAFETY: the program has only now been given the range, or gets it when this returns.
        let registered = unsafe { self.mm().space().register(addresses(range)) };
        registered.map_err(|errno| Errno::new(errno.raw_os_error()))
    }

    /// Gives up all regions in a range and what is in them.
    pub fn release(&self, range: &Range<usize>) {
        // Fails only for want of room for one region more, when one is cut in two. The addresses go
        // back to the host all the same, which is told whose they are when they come again.
        let _ = self.mm().munmap(VirtAddr(range.start as u64), range.len() as u64);
        // SAFETY: the range was managed, and its entries have just been taken away.
        unsafe { self.mm().space().vacate(addresses(range)) };
    }

    /// Changes what the regions in a range allow.
    pub fn protect(&self, range: &Range<usize>, prot: c_int) -> Result<(), Refused> {
        let (start, len) = (VirtAddr(range.start as u64), range.len() as u64);
        let result = self.mm().mprotect(start, len, protection(prot));
        if protection(prot).is_empty() {
            // SAFETY: the range is managed, and its entries allow nothing any more.
            unsafe { self.mm().space().vacate(addresses(range)) };
        }
        result.map_err(refused)
    }

    /// What the one region that contains a range allows; `None` where there is not one.
    pub fn prot(&self, range: &Range<usize>) -> Option<c_int> {
        let wanted = addresses(range);
        let report = self.mm().maps(wanted.clone());
        let [region] = &report[..] else { return None };
        let inside = region.range.start <= wanted.start && wanted.end <= region.range.end;
        inside.then(|| prot_bits(region.protection))
    }

    /// Gives advice about a range.
    pub fn advise(&self, range: &Range<usize>, advice: c_int) -> Result<(), Refused> {
        let Some(advice) = known(advice)? else { return Ok(()) };
        let (start, len) = (VirtAddr(range.start as u64), range.len() as u64);
        self.mm().madvise(start, len, advice).map_err(refused)
    }

    /// Keeps the pages of a range resident.
    pub fn lock(&self, range: &Range<usize>) -> Result<(), Refused> {
        let (start, len) = (VirtAddr(range.start as u64), range.len() as u64);
        self.mm().mlock(start, len).map_err(refused)
    }

    /// Lets the pages of a range be evicted again.
    pub fn unlock(&self, range: &Range<usize>) -> Result<(), Refused> {
        let (start, len) = (VirtAddr(range.start as u64), range.len() as u64);
        self.mm().munlock(start, len).map_err(refused)
    }

    /// Lengthens the region that ends where `old` does, over addresses that the host has just
    /// mapped.
    pub fn extend(&self, old: &Range<usize>, end: usize) -> Result<(), Refused> {
        self.remap(old, end - old.start, Move::Never)?;
        let grown = old.end..end;
        self.register(&grown).inspect_err(|_| self.release(&grown))
    }

    /// Moves a region to addresses that the host has just mapped, of which there may be more.
    pub fn relocate(&self, old: &Range<usize>, new: &Range<usize>) -> Result<(), Refused> {
        // Before anything is there that the registration would take for remains.
        self.register(new)?;
        self.remap(old, new.len(), Move::To(VirtAddr(new.start as u64)))
    }

    /// Moves the pages of a region to addresses that the host has just mapped, and leaves the region.
    pub fn relocate_pages(&self, old: &Range<usize>, new: &Range<usize>) -> Result<(), Refused> {
        self.register(new)?;
        let target = Placement::Fixed(VirtAddr(new.start as u64));
        self.remap(old, new.len(), Move::Leaving(target))
    }

    fn remap(&self, old: &Range<usize>, new_len: usize, movement: Move) -> Result<(), Refused> {
        let request = RemapRequest {
            address: VirtAddr(old.start as u64),
            old_length: old.len() as u64,
            new_length: new_len as u64,
            movement,
        };
        self.mm().mremap(&request).map(drop).map_err(refused)
    }
}

/// What advice means to the memory manager: something, nothing, or an error.
fn known(advice: c_int) -> Result<Option<Advice>, Refused> {
    Ok(Some(match advice {
        libc::MADV_NORMAL => Advice::Normal,
        libc::MADV_RANDOM => Advice::Random,
        libc::MADV_SEQUENTIAL => Advice::Sequential,
        libc::MADV_WILLNEED => Advice::WillNeed,
        libc::MADV_DONTNEED => Advice::DontNeed,
        libc::MADV_FREE => Advice::Free,
        libc::MADV_REMOVE => Advice::Remove,
        libc::MADV_COLD => Advice::Cold,
        libc::MADV_PAGEOUT => Advice::PageOut,
        libc::MADV_POPULATE_READ => Advice::PopulateRead,
        libc::MADV_POPULATE_WRITE => Advice::PopulateWrite,
        // Pages are 4 KiB here, which is what a program that asks for others must expect.
        libc::MADV_HUGEPAGE | libc::MADV_NOHUGEPAGE => return Ok(None),
        libc::MADV_UNMERGEABLE | libc::MADV_DODUMP | libc::MADV_DONTDUMP => return Ok(None),
        // The host's answer where it was built without the feature.
        _ => return Err(Errno::EINVAL),
    }))
}
