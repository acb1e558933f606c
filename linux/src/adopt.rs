//! Adopts host pages that existed before the manager: their content becomes that of frames.
//!
//! A range of an identity space may have pages when it is registered: the kernel wrote them when it
//! started the program, or another thread stored to them between `mmap` and the registration. After
//! the registration the kernel fills no page by itself, so one search finds them all.

use crate::batch::Batch;
use crate::frame::{Held, Location};
use crate::host::{self, PAGE};
use crate::machine::{LinuxMachine, Shared};
use crate::place::Refilled;
use crate::space::SpaceCore;
use crate::stats::Counter;
use crate::sys;
use crate::uffd::Mapped;
use alloc::sync::Arc;
use core::ops::Range;
use pagefault::error::AdoptError;
use pagefault::{Adopted, Mm};
use pagefault_machine::machine::Page;
use pagefault_machine::{Entry, Fate, Frame, PAGE_SIZE, Protection, Stale, VirtAddr};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::MprotectFlags;

/// Why the pages of a range could not be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptPresentError {
    /// The memory manager does not take a page.
    #[error("a page that was there already cannot be managed: {0:?}")]
    Refused(AdoptError),
    /// The host does not tell which pages exist.
    #[error("the host does not say which pages are there: {0}")]
    Host(Errno),
}

/// Turns every host page in `range` that the memory manager does not know into an ordinary
/// anonymous page of its region: counted, dirty, and evicted like any other. Returns how many there
/// were.
///
/// The range consists of the memory manager's readable private anonymous regions. If there are more
/// pages than frames, the first ones are evicted for the last ones.
///
/// # Safety
/// The range is [registered](crate::LinuxSpace::register_as_is).
pub unsafe fn adopt_present(
    mm: &Arc<Mm<LinuxMachine>>,
    range: Range<VirtAddr>,
) -> Result<u64, AdoptPresentError> {
    // SAFETY: passed on to the caller.
    unsafe { Standing::new().adopt(mm, range) }
}

/// Finds the host's pages.
pub struct Standing {
    look: Look,
}

impl Default for Standing {
    fn default() -> Self {
        Self::new()
    }
}

impl Standing {
    /// Opens the host's page map, if it is available.
    pub fn new() -> Self {
        Self { look: Look::new() }
    }

    /// Asks the host without a descriptor, whose number another thread could need. This misses
    /// pages that the host itself has swapped out; they come back without a fault of ours.
    pub const fn resident() -> Self {
        Self { look: Look::Residency }
    }

    /// The same as [`adopt_present`].
    ///
    /// # Safety
    /// The same.
    pub unsafe fn adopt(
        &mut self,
        mm: &Arc<Mm<LinuxMachine>>,
        range: Range<VirtAddr>,
    ) -> Result<u64, AdoptPresentError> {
        let space = &*mm.space().core;
        let mut adopted = 0;
        self.runs(range.start.value()..range.end.value(), |run| {
            for address in run.clone().step_by(PAGE).map(VirtAddr) {
                let claim = |frame| space.shared.claim(space, address, frame);
                if mm.adopt(address, claim).map_err(AdoptPresentError::Refused)? == Adopted::Taken {
                    adopted += 1;
                }
            }
            space.shared.forbid_stores(space, run);
            Ok(())
        })?;
        Ok(adopted)
    }

    /// The same for pages of a region without access rights: moves their content into buffers, and
    /// leaves the host pages empty.
    ///
    /// # Safety
    /// The same; and no other thread changes the mappings in the range meanwhile.
    pub unsafe fn adopt_unreadable(
        &mut self,
        mm: &Arc<Mm<LinuxMachine>>,
        range: Range<VirtAddr>,
    ) -> Result<u64, AdoptPresentError> {
        let shared = &*mm.space().core.shared;
        let mut adopted = 0;
        self.runs(range.start.value()..range.end.value(), |run| {
            for address in run.step_by(PAGE) {
                // SAFETY: the page is of a private anonymous mapping, whose content moves.
                let taken = unsafe { Taken::from(address) }.map_err(AdoptPresentError::Host)?;
                let claim = |frame| shared.claim_copy(&taken, frame);
                let took = mm.adopt(VirtAddr(address), claim);
                if took.map_err(AdoptPresentError::Refused)? == Adopted::Taken {
                    adopted += 1;
                }
            }
            Ok(())
        })?;
        Ok(adopted)
    }

    /// Calls `f` with each run of host pages in `range`, from the lowest up.
    pub fn runs(
        &mut self,
        range: Range<u64>,
        mut f: impl FnMut(Range<u64>) -> Result<(), AdoptPresentError>,
    ) -> Result<(), AdoptPresentError> {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + (LOOKED_AT * PAGE) as u64);
            let present = self.look.at(start..end).map_err(AdoptPresentError::Host)?;
            for run in present.runs() {
                f(start + run.start * PAGE_SIZE..start + run.end * PAGE_SIZE)?;
            }
            start = end;
        }
        Ok(())
    }
}

/// A page that was taken from a place without access rights, readable here.
struct Taken(*const Page);

impl Taken {
    /// Moves the page away from an address, and leaves an empty one.
    ///
    /// # Safety
    /// The page is in a private anonymous mapping of the program whose content may go.
    unsafe fn from(address: u64) -> Result<Self, Errno> {
        // SAFETY: the caller gives the content, and the page is ours where it goes.
        unsafe {
            let place = sys::move_content(&(address..address + PAGE_SIZE))?;
            let taken = Self(place as *const Page);
            host::protect(place..place + PAGE_SIZE, MprotectFlags::READ)?;
            Ok(taken)
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: mapped by `from`, and used by nobody else.
        let _ = unsafe { rustix::mm::munmap(self.0.cast_mut().cast(), PAGE) };
    }
}

impl Shared {
    /// Makes the content of the host page at `address` that of a new frame; false if another thread
    /// holds the frame. Called with the leaf locked, and the entry none.
    fn claim(&self, space: &SpaceCore, address: VirtAddr, frame: Frame) -> bool {
        let Some(page) = space.page_of(address) else { return false };
        let Some(held) = self.frames.try_hold(frame) else { return false };
        debug_assert_eq!(held.location(), Location::Zero);
        // An unknown page was never write-protected.
        self.note_standing(space, page, &held, Mapped::Writable);
        true
    }

    /// Write-protects the pages of a run whose entries forbid stores: a location that says otherwise would
    /// let an eviction store to a page of a mapping that the host has read-only.
    fn forbid_stores(&self, space: &SpaceCore, run: Range<u64>) {
        let mut batch = Batch::new(self, space);
        for address in run.step_by(PAGE).map(VirtAddr) {
            let entry = space.page_of(address).map(|page| space.table.entry(page));
            if let Some(Entry::Present { frame, protection, .. }) = entry
                && !protection.contains(Protection::WRITE)
            {
                batch.add(&Stale { address, frame, fate: Fate::Kept });
            }
        }
        batch.settle();
    }

    /// Copies a page that was taken from a place without access rights into a new frame; false if
    /// another thread holds the frame.
    fn claim_copy(&self, taken: &Taken, frame: Frame) -> bool {
        let Some(held) = self.frames.try_hold(frame) else { return false };
        debug_assert_eq!(held.location(), Location::Zero);
        let slot = self.buffers.take();
        // SAFETY: both are whole pages, and the buffer just taken is nobody else's.
        unsafe { self.buffers.page(slot).copy_from_nonoverlapping(taken.0, 1) };
        held.set_location(Location::Buffer(slot));
        true
    }

    /// Handles a host page of an entry that we did not put there: takes it as the frame's content
    /// if that loses nothing.
    ///
    /// The page there is newer than the zeros of a frame that was never anywhere else. Any other
    /// frame must have the same content; a difference is an error, reported as `EEXIST`.
    pub fn adopt_standing(
        &self,
        space: &SpaceCore,
        page: usize,
        held: &Held<'_>,
        mapped: Mapped,
    ) -> Result<Refilled, Errno> {
        let (location, host) = (held.location(), space.host_of(page));
        self.descriptor.write_protect(host..host + PAGE as u64, Mapped::WriteProtected)?;
        let stored_to = matches!(space.table.entry(page), Entry::Present { dirty: true, .. });
        let fresh = matches!(location, Location::Zero | Location::Blank);
        // SAFETY: both are whole pages: one stands where the memory manager has a region that may
        // be read and is write-protected, the other stays while the frame is held.
        let same = || unsafe { *(host as *const Page) == *self.parked_page(location) };
        let loses_nothing = fresh && stored_to || same();
        if !loses_nothing {
            return Err(Errno::EXIST);
        }
        self.note_standing(space, page, held, Mapped::WriteProtected);
        if let Location::Buffer(slot) = location {
            self.buffers.give(slot, &self.sweep);
        }
        match mapped {
            Mapped::Writable => self.remap(held, host, Mapped::Writable),
            Mapped::WriteProtected => Ok(Refilled::Changed),
        }
    }

    fn note_standing(&self, space: &SpaceCore, page: usize, held: &Held<'_>, mapped: Mapped) {
        space.table.set_shown(page, held.frame());
        held.set_location(Location::At(space.host_of(page), mapped));
        self.counters.add(Counter::Installed, 1);
    }
}

/// How many pages one call covers.
const LOOKED_AT: usize = 512;

/// Which of some pages exist: a bit for each.
struct Present([u64; LOOKED_AT / 64]);

impl Present {
    /// The runs of existing pages.
    fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let has = |index: usize| self.0[index / 64] >> (index % 64) & 1 != 0;
        let mut from = 0;
        core::iter::from_fn(move || {
            let start = (from..LOOKED_AT).find(|index| has(*index))?;
            from = (start..LOOKED_AT).find(|index| !has(*index)).unwrap_or(LOOKED_AT);
            Some(start as u64..from as u64)
        })
    }

    fn of(there: impl Iterator<Item = bool>) -> Self {
        let mut bits = [0; LOOKED_AT / 64];
        for (index, there) in there.enumerate().take(LOOKED_AT) {
            bits[index / 64] |= u64::from(there) << (index % 64);
        }
        Self(bits)
    }
}

/// The host's source of which pages exist.
enum Look {
    /// Its page map, which also knows pages that the host itself has swapped out.
    PageMap(OwnedFd),
    /// Without `/proc`: `mincore`, which sees only resident pages.
    Residency,
}

/// A page map's word: the page is in memory.
const PRESENT: u64 = 1 << 63;
/// It is in the host's swap, or marked.
const SWAPPED: u64 = 1 << 62;
/// It is marked as a guard page, and has no content.
const GUARD: u64 = 1 << 58;

impl Look {
    fn new() -> Self {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::open(c"/proc/self/pagemap", flags, Mode::empty()) {
            Ok(file) => Self::PageMap(file),
            Err(_) => Self::Residency,
        }
    }

    /// Checks the pages of a range of at most [`LOOKED_AT`].
    fn at(&mut self, range: Range<u64>) -> Result<Present, Errno> {
        let pages = ((range.end - range.start) as usize).div_ceil(PAGE);
        match self {
            Self::PageMap(file) => {
                let mut words = [0_u8; LOOKED_AT * 8];
                let offset = range.start / PAGE_SIZE * 8;
                let read = rustix::io::pread(file.as_fd(), &mut words[..pages * 8], offset)?;
                let words =
                    words[..read].as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
                Ok(Present::of(
                    words.map(|word| word & (PRESENT | SWAPPED) != 0 && word & GUARD == 0),
                ))
            }
            Self::Residency => {
                let mut bytes = [0_u8; LOOKED_AT];
                sys::resident(&range, &mut bytes)?;
                Ok(Present::of(bytes[..pages].iter().map(|byte| byte & 1 != 0)))
            }
        }
    }
}
