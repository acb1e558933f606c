//! Pins: pages that stay where they are for a device or a system call that uses them behind the
//! processor's back (`pin_user_pages`, spec B20, E3, J6).
//!
//! While a page is pinned, its entry goes on naming it, whatever is done to make room: reclaim and
//! advice leave the page and the entry alone, write-back does not take the right to store, a fork
//! copies the page at once, a store never does. Only what takes the memory itself away (munmap,
//! mremap, truncation) or its rights (mprotect) parts the entry from the page or narrows it.
//!
//! A pin is noted under the cursor over an entry that names the page. Whoever changes the entry looks
//! for pins under the same cursor, so that the page lock is needed only to count who shares the page.

use crate::entries::PageCursor;
use crate::error::Refusal;
use crate::error::UserError;
use crate::fault::page_range;
use crate::machine::{Access, Cursor, Entry, Frame, Machine, PAGE_SIZE, Pages, Space, VirtAddr};
use crate::mm::Mm;
use crate::page::PageFlags;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use core::ops::Range;
use smallvec::SmallVec;

/// After so many attempts at a page the others are let run, before as many more.
const ATTEMPTS: u32 = 16;

/// Pages held in memory; dropping it lets them go.
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

impl<M: Machine> Drop for Pin<M> {
    fn drop(&mut self) {
        for frame in &self.frames {
            let page = self.mm.manager.page(*frame);
            // The device may have stored after the page was written back. Whoever clears the flag
            // reads the content afterwards.
            if self.access == Access::Write && !page.has(PageFlags::DIRTY) {
                self.mm.manager.mark_dirty(page);
            }
            page.unpin();
            self.mm.manager.put(*frame);
        }
    }
}

/// What became of an attempt to pin a page.
enum Attempt {
    /// The page is pinned.
    Pinned(Frame),
    /// The entry does not allow the access.
    Absent,
    /// The region shows a page that others may see.
    Shared,
    /// Someone has the page locked, to which a reference was taken.
    Locked(Frame),
    /// The region has to be known, and is not or has changed.
    Unknown,
    /// The page is pinned so often that no more can be counted.
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

    /// Like [`pin`](Self::pin), as far as the pages can be had: says why it stopped, if it did.
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

    /// Pins pages as long as they are there and nothing has to be done for it; says how far it came.
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
            let attempt = self
                .existing_entries(page_range(page))
                .map(|mut cursor| self.pin_entry(&mut cursor, page, access, region.as_deref()));
            match attempt.unwrap_or(Attempt::Absent) {
                Attempt::Pinned(frame) => return Ok(frame),
                Attempt::Absent => self.fault_in_engaged(page, access)?,
                // Whatever else may be the matter will be met again.
                Attempt::Shared if self.unshare(page) == Err(Refusal::OutOfMemory) => {
                    return Err(UserError::OutOfMemory);
                }
                Attempt::Locked(frame) => {
                    self.manager.lock_page(frame);
                    self.manager.unlock_and_put(frame);
                }
                Attempt::TooOften => return Err(UserError::OutOfMemory),
                Attempt::Shared | Attempt::Unknown => {}
            }
            attempts = attempts.wrapping_add(1);
            if attempts.is_multiple_of(ATTEMPTS) {
                self.manager.machine.pause();
            }
        }
    }

    /// Pins the page of an entry, if the entry allows the access and the page is one that the program
    /// and a device may share: the region's own, or a shared region's.
    ///
    /// Nobody else has a page that a private region may store to (spec I12). Of one that it may not,
    /// the page lock tells; of a file's page, the region.
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
        if manager.is_zero_frame(frame) {
            return Attempt::Shared;
        }
        let page = manager.page(frame);
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
            // Nobody else will: the device does not go through the entry.
            let entry = Entry::Present { frame, protection, accessed: true, dirty: true };
            cursor.replace(at, entry);
        }
        Attempt::Pinned(frame)
    }

    /// Pins an anonymous page that is not to be stored to now, if it is the region's own. The entry
    /// is locked.
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
