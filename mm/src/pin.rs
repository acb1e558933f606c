//! Pins: pages that stay in place while a device or a system call uses them without the page table
//! (`pin_user_pages`, spec B20, E3, J6).
//!
//! While a page is pinned, its entry keeps naming it. Reclaim and advice leave the page and the
//! entry alone, and write-back does not take the right to store. A fork copies the page at once; a
//! store never copies it. Only munmap, mremap and truncation take the entry away, and only mprotect
//! narrows it.
//!
//! A pin is noted under the cursor over an entry that names the page. Every change of the entry
//! checks for pins under the same cursor. So a pin needs the page lock only to count the page's
//! users.

use crate::entries::PageCursor;
use crate::error::Refusal;
use crate::error::UserError;
use crate::fault::page_range;
use crate::machine::{Access, Cursor, Entry, Frame, Machine, PAGE_SIZE, Pages, Space, VirtAddr};
use crate::mm::Mm;
use crate::page::PageFlags;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use smallvec::SmallVec;

/// After this many attempts at a page, a retry yields the CPU so that the page's owner can run.
const ATTEMPTS: u32 = 16;

/// Pages held in memory; dropping it releases them.
#[must_use = "the pages are pinned only as long as this lives"]
pub struct Pin<M: Machine> {
    mm: Arc<Mm<M>>,
    access: Access,
    /// Most pins are of a page or two: those need no memory from the heap.
    frames: SmallVec<[Frame; 4]>,
}

impl<M: Machine> Pin<M> {
    /// The frames of the pinned pages, in the order of their addresses.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }
}

impl<M: Machine> fmt::Debug for Pin<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pin").field(&self.frames).finish()
    }
}

impl<M: Machine> Drop for Pin<M> {
    fn drop(&mut self) {
        for frame in &self.frames {
            let page = self.mm.manager.page(*frame);
            // The device may have stored after the page was written back. A thread that clears the
            // flag reads the content afterwards.
            if self.access == Access::Write && !page.has(PageFlags::DIRTY) {
                self.mm.manager.mark_dirty(page);
            }
            page.unpin();
            self.mm.manager.put(*frame);
        }
    }
}

/// The outcome of an attempt to pin a page.
enum Attempt {
    /// The page is pinned.
    Pinned(Frame),
    /// The entry does not allow the access.
    Absent,
    /// The region shows a page that others may see.
    Shared,
    /// Another thread has the page locked; a reference to it was taken.
    Locked(Frame),
    /// The pin needs the region, which is unknown or has changed.
    Unknown,
    /// The page has as many pins as can be counted.
    TooOften,
}

impl<M: Machine> Mm<M> {
    /// Keeps the pages of a range in memory where they are until the pin is dropped.
    ///
    /// As long as a page stays mapped, the program and the device see each other's stores: a
    /// private page is the region's own from here on, and a fork copies it at once. With
    /// [`Access::Write`] the entries are present, writable and dirty, and the pin counts as a store
    /// when it is dropped.
    ///
    /// A page that is resident and allows the access costs one look at its entry: no flush, no
    /// look-up of its region.
    pub fn pin(
        self: &Arc<Self>,
        range: Range<VirtAddr>,
        access: Access,
    ) -> Result<Pin<M>, UserError> {
        let (pin, refused) = self.pin_prefix(range, access);
        refused.map_or(Ok(pin), Err)
    }

    /// Like [`pin`](Self::pin), but keeps the pages pinned so far if it must stop, and returns why:
    /// [`UserError::BadAddress`] at a page that the access does not get, [`UserError::OutOfMemory`] if
    /// there is no frame, [`UserError::TooManyPins`] if a page has 65,535 pins.
    pub fn pin_prefix(
        self: &Arc<Self>,
        range: Range<VirtAddr>,
        access: Access,
    ) -> (Pin<M>, Option<UserError>) {
        let mut pin = Pin { mm: self.clone(), access, frames: SmallVec::new() };
        if range.start >= range.end {
            return (pin, None);
        }
        let start = range.start.page();
        let within = range.end.min(self.layout.range.end);
        let end = within.page_up().unwrap_or(within.page());
        for chunk in Pages::new(&(start..end), M::Space::SPAN) {
            if let Err(error) = self.pin_block(chunk, access, &mut pin.frames) {
                return (pin, Some(error));
            }
        }
        let beyond = (range.end > within).then_some(UserError::BadAddress);
        (pin, beyond)
    }

    /// Pins the pages of a range that lies in one block.
    fn pin_block(
        self: &Arc<Self>,
        range: Range<VirtAddr>,
        access: Access,
        frames: &mut SmallVec<[Frame; 4]>,
    ) -> Result<(), UserError> {
        // Before the cursor is taken, under which nothing is allocated.
        frames.reserve(((range.end - range.start) / PAGE_SIZE) as usize);
        let _engaged = self.manager.engage();
        let mut at = range.start;
        while at < range.end {
            at = self.pin_resident(at..range.end, access, frames);
            if at < range.end {
                frames.push(self.pin_page(at, access)?);
                at = at + PAGE_SIZE;
            }
        }
        Ok(())
    }

    /// Pins pages as long as they are present and need no work; returns how far it came.
    fn pin_resident(
        &self,
        range: Range<VirtAddr>,
        access: Access,
        frames: &mut SmallVec<[Frame; 4]>,
    ) -> VirtAddr {
        let Some(mut cursor) = self.existing_entries(range.clone()) else { return range.start };
        let mut at = range.start;
        while at < range.end {
            match self.pin_entry(&mut cursor, at, access, None) {
                Attempt::Pinned(frame) => frames.push(frame),
                Attempt::Locked(frame) => {
                    drop(cursor);
                    self.manager.put(frame);
                    break;
                }
                _ => break,
            }
            at = at + PAGE_SIZE;
        }
        at
    }

    /// Pins a page, bringing it in, waiting for it, or giving the region one of its own. The caller
    /// is engaged.
    #[cold]
    fn pin_page(self: &Arc<Self>, page: VirtAddr, access: Access) -> Result<Frame, UserError> {
        let mut attempts = 0_u32;
        loop {
            let region = self.containing(page);
            if region.as_ref().is_some_and(|vma| vma.has(VmaFlags::PFNMAP)) {
                // Memory of a device is no page, so it cannot be pinned (spec B20).
                return Err(UserError::BadAddress);
            }
            let attempt = self
                .existing_entries(page_range(page))
                .map(|mut cursor| self.pin_entry(&mut cursor, page, access, region.as_deref()));
            match attempt.unwrap_or(Attempt::Absent) {
                Attempt::Pinned(frame) => return Ok(frame),
                Attempt::Absent => self.fault_in_engaged(page, access)?,
                // The next attempt meets any other error again.
                Attempt::Shared if self.unshare(page) == Err(Refusal::OutOfMemory) => {
                    return Err(UserError::OutOfMemory);
                }
                Attempt::Locked(frame) => {
                    self.manager.lock_page(frame);
                    self.manager.unlock_and_put(frame);
                }
                Attempt::TooOften => return Err(UserError::TooManyPins),
                Attempt::Shared | Attempt::Unknown => {}
            }
            attempts = attempts.wrapping_add(1);
            if attempts.is_multiple_of(ATTEMPTS) {
                self.manager.machine.pause();
            }
        }
    }

    /// Pins the page of an entry, if the entry allows the access and the program may share the page
    /// with a device: the region's own page, or a shared region's.
    ///
    /// A private region's writable entry proves that the page is its own (spec I12). For a
    /// read-only entry the page lock decides; for a file's page, the region.
    fn pin_entry(
        &self,
        cursor: &mut PageCursor<'_, M>,
        at: VirtAddr,
        access: Access,
        region: Option<&Vma<M>>,
    ) -> Attempt {
        let manager = &self.manager;
        let entry = cursor.entry(at);
        let Entry::Present { frame, protection, dirty, .. } = entry else { return Attempt::Absent };
        if !entry.allows(access) {
            return Attempt::Absent;
        }
        let Some(page) = manager.normal_page(frame) else { return Attempt::Shared };
        if !entry.is_writable() {
            if page.is_anon() {
                return self.pin_read_only(frame);
            }
            match region.filter(|vma| vma.is_alive()) {
                None => return Attempt::Unknown,
                Some(vma) if !vma.has(VmaFlags::SHARED) => return Attempt::Shared,
                Some(_) => {}
            }
        }
        if !page.pin() {
            return Attempt::TooOften;
        }
        page.hold(&*manager.machine);
        if access == Access::Write && !dirty {
            // Set here, because the device does not go through the entry.
            let entry = Entry::Present { frame, protection, accessed: true, dirty: true };
            cursor.replace(at, entry);
        }
        Attempt::Pinned(frame)
    }

    /// Pins an anonymous page for loads, if it is the region's own. The entry is locked.
    fn pin_read_only(&self, frame: Frame) -> Attempt {
        let manager = &self.manager;
        let page = manager.page(frame);
        page.hold(&*manager.machine);
        if !page.try_lock(&*manager.machine) {
            return Attempt::Locked(frame);
        }
        let attempt = match manager.entries_of(page) == 1 {
            true if page.pin() => Attempt::Pinned(frame),
            true => Attempt::TooOften,
            false => Attempt::Shared,
        };
        manager.unlock_page(frame);
        if !matches!(attempt, Attempt::Pinned(_)) {
            // The entry has a reference of its own, so that this cannot be the last.
            manager.put(frame);
        }
        attempt
    }
}
