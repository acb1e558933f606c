//! Brings the host's page table in line with ours.
//!
//! The host's page table is our translation look-aside buffer. *Refilling* puts the frame that an
//! entry names into the host page at its address: one ioctl that allocates, copies and maps, and
//! flushes nothing. *Flushing* takes stale pages away, many with one call.
//!
//! A frame is in one place at a time. If two addresses share it, an access through the second moves
//! it there.

use crate::batch::Batch;
use crate::frame::{Held, Location};
use crate::host::{self, PAGE};
use crate::machine::Shared;
use crate::space::SpaceCore;
use crate::stats::Counter;
use crate::uffd::Mapped;
use pagefault_machine::{Access, Entry, Frame, Protection, Stale};
use rustix::io::Errno;
use rustix::mm::MprotectFlags;

/// The outcome of refilling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refilled {
    /// The host page changed, which woke the threads that wait for it.
    Changed,
    /// There was nothing to do; waiting threads still wait.
    Unchanged,
}

/// Whether an entry allows an access. As on x86, any right implies loads.
pub(crate) fn permits(entry: Entry, access: Access) -> bool {
    let Entry::Present { protection, .. } = entry else { return false };
    match access {
        Access::Read => !protection.is_empty(),
        Access::Write => protection.contains(Protection::WRITE),
        Access::Execute => protection.contains(Protection::EXECUTE),
    }
}

impl Shared {
    /// Makes the host page match the entry of `page`, if the entry is present.
    ///
    /// `access` is the reason: only a fetch makes the host page executable.
    pub fn refill(
        &self,
        space: &SpaceCore,
        page: usize,
        access: Access,
    ) -> Result<Refilled, Errno> {
        loop {
            match self.try_refill(space, page, access) {
                Ok(result) => return result,
                Err(busy) => self.frames.wait_until_idle(busy),
            }
        }
    }

    /// Fills the host page if the frame that its entry named a moment ago is not on the host. Does
    /// nothing if another thread is at work there, or if the frame was there once and left in another
    /// way than by a flush.
    pub fn refill_unplaced(&self, space: &SpaceCore, page: usize, frame: Frame) {
        // The note is in the same cache line as its neighbours, the frame's location is not.
        if space.table.notes(page, frame) {
            return;
        }
        if matches!(self.frames.peek(frame), Location::Buffer(_) | Location::Zero) {
            // If this fails, the thread that touches the page fills it.
            let _ = self.try_refill(space, page, Access::Read);
        }
    }

    /// One attempt. If another thread holds a frame, fails with that frame, all locks released.
    fn try_refill(
        &self,
        space: &SpaceCore,
        page: usize,
        access: Access,
    ) -> Result<Result<Refilled, Errno>, Frame> {
        let Some(leaf) = space.table.lock_existing(page) else {
            return Ok(Ok(Refilled::Unchanged));
        };
        let Entry::Present { frame, protection, .. } = leaf.entry(page) else {
            return Ok(Ok(Refilled::Unchanged));
        };
        if protection.is_empty() {
            return Ok(Ok(Refilled::Unchanged));
        }
        let held = self.frames.try_hold(frame).ok_or(frame)?;
        let executable = set_executable(space, page, protection, access);
        let host = space.host_of(page);
        let mapped = if protection.contains(Protection::WRITE) {
            Mapped::Writable
        } else {
            Mapped::WriteProtected
        };
        let result = match held.location() {
            Location::At(at, now) if at == host && now == mapped => Ok(Refilled::Unchanged),
            Location::At(at, _) if at == host => self.remap(&held, host, mapped),
            _ => {
                self.vacate(space, page, host)?;
                self.install(space, page, &held, mapped)
            }
        };
        Ok(executable.and(result))
    }

    /// Whether the host page matches `entry`, which `page` had a moment ago, and no thread is about to change
    /// that.
    ///
    /// A flush holds its frames while it collects them, and changes the host pages later: those of entries that
    /// had lost their rights when it looked, and that may have got them back.
    pub fn is_placed(&self, space: &SpaceCore, page: usize, entry: Entry) -> bool {
        let Entry::Present { frame, protection, .. } = entry else { return false };
        match self.frames.peek_idle(frame) {
            Some(Location::At(at, mapped)) if at == space.host_of(page) => {
                (mapped == Mapped::Writable) == protection.contains(Protection::WRITE)
            }
            _ => false,
        }
    }

    /// Changes the right to store to a page that is in its place.
    pub fn remap(&self, held: &Held<'_>, host: u64, mapped: Mapped) -> Result<Refilled, Errno> {
        if mapped == Mapped::Writable {
            // The host copies the page for the first process that stores to it.
            self.own_for_store(held)?;
        }
        self.descriptor.write_protect(host..host + PAGE as u64, mapped)?;
        held.set_location(Location::At(host, mapped));
        self.counters.add(Counter::Reprotected, 1);
        Ok(Refilled::Changed)
    }

    /// Parks another frame's page that is still at `host`.
    fn vacate(&self, space: &SpaceCore, page: usize, host: u64) -> Result<(), Frame> {
        // A frame arrives here only under this leaf's lock, so none can replace the other.
        let Some(other) = space.table.shown(page, host, &self.frames) else { return Ok(()) };
        let held = self.frames.try_hold(other).ok_or(other)?;
        if matches!(held.location(), Location::At(at, _) if at == host) {
            self.park(&held);
        }
        Ok(())
    }

    /// Maps a held frame at an empty host page.
    fn install(
        &self,
        space: &SpaceCore,
        page: usize,
        held: &Held<'_>,
        mapped: Mapped,
    ) -> Result<Refilled, Errno> {
        if matches!(held.location(), Location::At(..)) {
            self.park(held);
            self.counters.add(Counter::Pulled, 1);
        }
        self.unpoison_locked(space, page);
        let (location, host) = (held.location(), space.host_of(page));
        // SAFETY: the source is a whole page that stays while the frame is held, and the target is
        // a page of the space's own.
        let copied =
            unsafe { self.descriptor.copy(host, self.parked_page(location).cast(), mapped) };
        match copied {
            Err(Errno::EXIST) if space.is_identity() => {
                return self.adopt_standing(space, page, held, mapped);
            }
            copied => copied?,
        }
        space.table.set_shown(page, held.frame());
        held.set_location(Location::At(host, mapped));
        if let Location::Buffer(slot) = location {
            self.buffers.give(slot, &self.sweep);
        }
        self.counters.add(Counter::Installed, 1);
        Ok(Refilled::Changed)
    }

    /// Copies the content of a held frame to a buffer that the caller took. The program may store to the
    /// page meanwhile, where its entry allows that: its entry then tells of the store. The page keeps the
    /// right to store: a call may have it pinned, and the host's own stores, unlike the program's, would
    /// fail.
    pub fn copy_held(&self, held: &Held<'_>, slot: u32) {
        // SAFETY: the page stays while its frame is held, and the buffer is the caller's alone.
        unsafe {
            let page = self.parked_page(held.location());
            self.buffers.page(slot).copy_from_nonoverlapping(page, 1);
        }
    }

    /// Moves the content of a held frame that is mapped into a buffer, and returns the buffer.
    pub fn park(&self, held: &Held<'_>) -> u32 {
        self.write_protect_held(held);
        self.credits.own(held.frame());
        let slot = self.buffers.take();
        self.copy_held(held, slot);
        if let Location::At(host, _) = held.location() {
            self.drop_page(host);
        }
        held.set_location(Location::Buffer(slot));
        self.counters.add(Counter::Parked, 1);
        slot
    }

    /// Ensures that no thread stores to a frame while it is held. A later store faults, and our
    /// table then allows it. Without other threads there is nothing to do.
    fn write_protect_held(&self, held: &Held<'_>) {
        if let Location::At(host, Mapped::Writable) = held.location()
            && !self.is_alone()
        {
            // It fails only where the page is gone.
            let _ = self.protect_range(host..host + PAGE as u64);
            held.set_location(Location::At(host, Mapped::WriteProtected));
        }
    }

    /// Empties the host page of a held frame, whose content is not needed there.
    pub fn drop_page(&self, host: u64) {
        self.empty(host);
        self.counters.add(Counter::Dropped, 1);
    }

    fn empty(&self, host: u64) {
        // The host refuses only a range that is no longer mapped, and so empty. SAFETY: the page is
        // of one of our spaces, and whoever holds its frame, if there is one, gives it up.
        let _ = unsafe { host::discard(host..host + PAGE as u64) };
    }

    /// Makes the kernel's own accesses to a page fail until it is unpoisoned. Returns false if the host refuses.
    #[cfg(feature = "std")]
    pub fn poison(&self, space: &SpaceCore, page: usize) -> bool {
        loop {
            match self.try_poison(space, page) {
                Ok(poisoned) => return poisoned,
                Err(busy) => self.frames.wait_until_idle(busy),
            }
        }
    }

    /// One attempt, as [`try_refill`](Self::try_refill).
    #[cfg(feature = "std")]
    fn try_poison(&self, space: &SpaceCore, page: usize) -> Result<bool, Frame> {
        let Ok(_leaf) = space.table.lock(page) else { return Ok(false) };
        let host = space.host_of(page);
        // Only an empty page can be poisoned, and this one may be there for loads.
        self.vacate(space, page, host)?;
        let poisoned = self.descriptor.poison(host).is_ok();
        match poisoned {
            true => space.table.set_poisoned(page),
            false => _ = space.table.clear_poisoned(page),
        }
        Ok(poisoned)
    }

    /// Undoes [`Shared::poison`].
    #[cfg(feature = "std")]
    pub fn unpoison(&self, space: &SpaceCore, page: usize) {
        if let Ok(_leaf) = space.table.lock(page) {
            self.unpoison_locked(space, page);
        }
    }

    fn unpoison_locked(&self, space: &SpaceCore, page: usize) {
        if space.table.clear_poisoned(page) {
            self.empty(space.host_of(page));
        }
    }

    /// Parks every frame in a range of host addresses that is about to go.
    pub fn park_all_in(&self, range: core::ops::Range<u64>) {
        for number in 0..self.frames.used() {
            let inside =
                |location| matches!(location, Location::At(host, _) if range.contains(&host));
            if inside(self.frames.peek(Frame(number))) {
                let held = self.frames.hold(Frame(number));
                if inside(held.location()) {
                    self.park(&held);
                }
            }
        }
    }

    /// Parks every frame that is still in a range of pages without entries: the thread that took
    /// its entry has not flushed yet.
    pub fn vacate_range(&self, space: &SpaceCore, pages: core::ops::Range<usize>) {
        if pages.len() > self.frames.used() as usize {
            return self.park_all_in(space.host_of(pages.start)..space.host_of(pages.end));
        }
        for page in pages {
            let host = space.host_of(page);
            let Some(frame) = space.table.shown(page, host, &self.frames) else { continue };
            let held = self.frames.hold(frame);
            if matches!(held.location(), Location::At(at, _) if at == host) {
                self.park(&held);
            }
        }
    }

    /// Removes stale pages of changed entries from the host's page table.
    pub fn flush(&self, space: &SpaceCore, stale: &[Stale]) {
        let mut batch = Batch::new(self, space);
        for stale in stale {
            batch.add(stale);
        }
        batch.settle();
        self.counters.add(Counter::Flushes, 1);
    }

    /// Write-protects host pages that are mapped, and goes on after a page whose protection fails. A page that is
    /// no longer mapped is protected: no thread stores to it.
    pub fn protect_range(&self, range: core::ops::Range<u64>) -> Result<(), Errno> {
        let protect = |range| self.descriptor.write_protect(range, Mapped::WriteProtected);
        if protect(range.clone()).is_ok() {
            return Ok(());
        }
        // Older kernels refuse a range over several mappings.
        let mut result = Ok(());
        for page in range.step_by(PAGE) {
            match protect(page..page + PAGE as u64) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => result = Err(errno),
            }
        }
        result
    }
}

/// Makes the host page executable on a permitted fetch, and takes that right away with the
/// permission.
pub(crate) fn set_executable(
    space: &SpaceCore,
    page: usize,
    protection: Protection,
    access: Access,
) -> Result<(), Errno> {
    let was = space.table.is_executable(page);
    let allowed = protection.contains(Protection::EXECUTE);
    let wanted = allowed && (was || access == Access::Execute);
    if was == wanted || space.is_identity() {
        return Ok(());
    }
    let mut flags = MprotectFlags::READ | MprotectFlags::WRITE;
    flags.set(MprotectFlags::EXEC, wanted);
    let host = space.host_of(page);
    // SAFETY: the page is of our own window, and stays readable and writable.
    unsafe { host::protect(host..host + PAGE as u64, flags)? };
    match wanted {
        true => space.table.set_executable(page),
        false => space.table.clear_executable(page),
    }
    Ok(())
}
