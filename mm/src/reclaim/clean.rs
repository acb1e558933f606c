//! Cleaning: takes the right to store from the entries of a page, so that it can be written.

use crate::machine::{Cursor, Entry, Fate, Frame, Machine, Stale};
use crate::manager::Manager;
use crate::page::{Page, PageFlags};
use crate::reclaim::queue::Sight;
use crate::reclaim::stales::Stales;
use crate::reclaim::victim::Force;
use crate::reclaim::work::Work;
use crate::replacement::Queue;
use crate::rmap::walk::Spot;
use crate::vma::VmaFlags;

/// Why a page is cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To bring its file up to date; the page stays.
    WriteBack,
    /// To evict it, unless it is worth keeping.
    Eviction(Force, Queue),
}

/// Whether every later store to a cleaned page will be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cleaned {
    /// No entry is writable.
    Entirely,
    /// No other thread runs that could store to the page, so its entry is unchanged.
    Needless,
    /// The page was used or is locked in memory, and keeps its remaining rights.
    Spared,
    /// The same, and no entry lost a right.
    Untouched,
    /// Some entries are being moved, and were not seen.
    Moving,
    /// The page is pinned: a device may store to it at any moment.
    Pinned,
}

impl<M: Machine> Work<'_, M> {
    /// Takes the right to store from every entry of a page, and learns whether the page was
    /// written.
    #[inline]
    pub(super) fn clean_page(&mut self, page: &Page, frame: Frame, purpose: Purpose) -> Cleaned {
        let manager = self.manager;
        let mut before = Seen::empty();
        if let Purpose::Eviction(force, _) = purpose
            && page.has(PageFlags::REFERENCED)
        {
            page.clear(&*manager.machine, PageFlags::REFERENCED);
            before.set(Seen::SPARED, force == Force::Polite);
        }
        loop {
            let mut seen = before;
            let stales = &mut self.stales;
            let found = manager.walk_near(&mut self.near, page, frame, |spot| {
                seen |= clean_entry(stales, spot, page, purpose, seen.contains(Seen::SPARED));
            });
            if seen.contains(Seen::DIRTY) {
                manager.mark_dirty(page);
                page.clear(&*manager.machine, PageFlags::LAZY_FREE);
            }
            match () {
                () if seen.contains(Seen::PINNED) => return Cleaned::Pinned,
                () if seen.contains(Seen::SPARED | Seen::NARROWED) => return Cleaned::Spared,
                () if seen.contains(Seen::SPARED) => return Cleaned::Untouched,
                () if seen.contains(Seen::LEFT) => self.flush(),
                () if found != page.maps() => return Cleaned::Moving,
                () if seen.contains(Seen::ALONE) => return Cleaned::Needless,
                () => return Cleaned::Entirely,
            }
        }
    }
}

bitflags::bitflags! {
    /// What the entries of a page showed while the page was cleaned.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Seen: u8 {
        /// The page was used, or is locked in memory: it stays.
        const SPARED = 1;
        /// The page was written.
        const DIRTY = 2;
        /// A device stores to the page without the entry.
        const PINNED = 4;
        /// Only the caller could store to the page.
        const ALONE = 8;
        /// An entry lost the right to store; its flush comes later.
        const NARROWED = 0x10;
        /// There was no room to note the flush of an entry.
        const LEFT = 0x20;
    }
}

/// Takes the right to store from one entry of a page, unless the page is spared.
fn clean_entry<M: Machine>(
    stales: &mut Stales<M>,
    spot: &mut Spot<'_, M>,
    page: &Page,
    purpose: Purpose,
    mut is_spared: bool,
) -> Seen {
    let manager = &spot.mm.manager;
    if let Purpose::Eviction(force, from) = purpose {
        is_spared |= spot.vma.has(VmaFlags::LOCKED);
        // On a machine without accessed bits, before standby the mark means only that the page was
        // mapped.
        let sees_use = manager.queues.sight() == Sight::Bits || from == Queue::Standby;
        if sees_use && spot.cursor.clear_accessed(spot.address) {
            manager.note_use_of(page);
            is_spared |= force == Force::Polite;
        }
    }
    if page.is_pinned() {
        return Seen::PINNED;
    }
    if is_spared {
        return Seen::SPARED;
    }
    if purpose != Purpose::WriteBack && manager.is_left_alone(spot, page) {
        let is_dirty = spot.cursor.entry(spot.address).is_dirty();
        return if is_dirty { Seen::ALONE | Seen::DIRTY } else { Seen::ALONE };
    }
    let Some(place) = stales.room_for(spot.mm) else { return Seen::LEFT };
    let mut was_dirty = false;
    let Some(stale) = write_protect(spot, &mut was_dirty) else { return Seen::empty() };
    stales.note(place, spot.mm, stale);
    if was_dirty { Seen::NARROWED | Seen::DIRTY } else { Seen::NARROWED }
}

/// Makes an entry read-only and clean; `None` if it was.
fn write_protect<M: Machine>(spot: &mut Spot<'_, M>, dirty: &mut bool) -> Option<Stale> {
    let before = spot.cursor.entry(spot.address);
    let Entry::Present { dirty: was_dirty, .. } = before else { return None };
    if !was_dirty && !before.is_writable() {
        return None;
    }
    let old = spot.cursor.replace(spot.address, Entry::None);
    let Entry::Present { frame, protection, accessed, dirty: was } = old else { return None };
    *dirty |= was;
    let protection = protection.read_only();
    spot.cursor.replace(spot.address, Entry::Present { frame, protection, accessed, dirty: false });
    Some(Stale { address: spot.address, frame, fate: Fate::Narrowed })
}

impl<M: Machine> Manager<M> {
    /// Takes the right to store from every entry of a locked page, and notes whether the page was
    /// written (`page_mkclean`, spec D8). A page that proves pinned at one of its entries keeps its
    /// remaining rights, and is then as dirty as before.
    pub(crate) fn clean(&self, frame: Frame) -> Cleaned {
        let mut work = Work::new(self, None);
        let cleaned = work.clean_page(self.page(frame), frame, Purpose::WriteBack);
        work.flush();
        cleaned
    }

    /// Whether only the caller can store to a page whose only entry is this one. Calls can store to
    /// pages of objects.
    fn is_left_alone(&self, spot: &Spot<'_, M>, page: &Page) -> bool {
        page.is_anon() && page.maps() == 1 && self.machine.is_alone(&spot.mm.space)
    }
}
