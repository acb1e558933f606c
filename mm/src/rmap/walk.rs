//! Walking the entries that name a page.

use crate::entries::PageCursor;
use crate::machine::{Cursor, Frame, Machine, PAGE_SIZE, Space, VirtAddr};
use crate::manager::Manager;
use crate::mm::Mm;
use crate::page::{Owner, Page};
use crate::rmap::RegionLink;
use crate::vma::Vma;
use alloc::sync::Arc;

/// An entry that names the page: where it is, and the lock on it.
pub(crate) struct Spot<'a, M: Machine> {
    pub(crate) mm: &'a Arc<Mm<M>>,
    pub(crate) vma: &'a Arc<Vma<M>>,
    pub(crate) address: VirtAddr,
    pub(crate) cursor: PageCursor<'a, M>,
}

/// Where the last page with a single entry was found: the next page is probably in the same region.
pub(crate) struct Near<M: Machine> {
    family: u64,
    mm: Arc<Mm<M>>,
    vma: Arc<Vma<M>>,
}

impl<M: Machine> Near<M> {
    /// Hints that the entry of a page will be looked at, if it is in the same region.
    pub(crate) fn prefetch(&self, page: &Page) {
        if page.is_of(self.family)
            && let Some(address) = self.vma.address_of(page.index())
        {
            self.mm.space.prefetch(address);
        }
    }

    /// Calls `f` for the entry that names a locked page, if it is in the same region.
    #[inline]
    fn visit(&self, page: &Page, frame: Frame, f: &mut impl FnMut(&mut Spot<'_, M>)) -> bool {
        if !page.is_of(self.family) {
            return false;
        }
        let Some(address) = self.vma.address_of(page.index()) else { return false };
        let Some(mut spot) = spot(&self.mm, &self.vma, address, frame) else { return false };
        // Checked under the cursor: a thread that replaces the region later reaches the entry
        // later.
        let is_there = self.vma.is_alive();
        if is_there {
            f(&mut spot);
        }
        is_there
    }
}

impl<M: Machine> Manager<M> {
    /// Like [`walk`](Self::walk), but first looks near the last page, which takes only the entry's
    /// lock, and remembers where the page was.
    #[inline]
    pub(crate) fn walk_near(
        &self,
        near: &mut Option<Near<M>>,
        page: &Page,
        frame: Frame,
        mut f: impl FnMut(&mut Spot<'_, M>),
    ) -> u32 {
        if page.maps() == 1
            && let Some(near) = near
            && near.visit(page, frame, &mut f)
        {
            return 1;
        }
        self.walk_afar(near, frame, &mut f)
    }

    fn walk_afar(
        &self,
        near: &mut Option<Near<M>>,
        frame: Frame,
        f: &mut dyn FnMut(&mut Spot<'_, M>),
    ) -> u32 {
        let page = self.page(frame);
        let is_only = page.maps() == 1;
        let mut next = None;
        let found = self.walk(frame, |spot| {
            // A file must not lose its last user while pages of it may be locked.
            if let (true, Owner::Anon(family), None) = (is_only, page.owner(), &spot.vma.file) {
                next = Some(Near { family, mm: spot.mm.clone(), vma: spot.vma.clone() });
            }
            f(spot);
        });
        if next.is_some() {
            *near = next;
        }
        found
    }

    /// Calls `f` for every entry that names `frame`, under the entry's lock, and returns how many
    /// there were. The caller holds the page's lock, so that its owner stays.
    ///
    /// If this finds fewer entries than the page has mappings, some are being moved. A caller that
    /// needs all of them must compare.
    pub(crate) fn walk(&self, frame: Frame, mut f: impl FnMut(&mut Spot<'_, M>)) -> u32 {
        let page = self.page(frame);
        if page.maps() == 0 {
            return 0;
        }
        let mut found = 0;
        let index = page.index();
        let mut visit = |link: &RegionLink<M>, address: VirtAddr| {
            // Not the last reference: the end of an address space needs the lock held here.
            if let Some(mm) = link.mm.upgrade()
                && let Some(mut spot) = spot(&mm, &link.vma, address, frame)
            {
                found += 1;
                f(&mut spot);
            }
        };
        match page.owner() {
            Owner::None => {}
            Owner::Anon(id) => {
                let Some(family) = self.families.find(&self.order, id) else { return 0 };
                let regions = family.regions.lock(&self.order);
                for entry in regions.stabbing(index) {
                    if let Some(address) = entry.value.vma.address_of(index) {
                        visit(&entry.value, address);
                    }
                }
            }
            Owner::File(id) => {
                let Some(mapping) = self.mappings.find(&self.order, id) else { return 0 };
                let regions = mapping.regions.lock(&self.order);
                for entry in regions.linear.stabbing(index) {
                    if let Some(address) = entry.value.vma.address_of(index) {
                        visit(&entry.value, address);
                    }
                }
                for link in &regions.nonlinear {
                    sweep(link, frame, &mut visit);
                }
            }
        }
        found
    }
}

/// Locks the entry at `address`, if it names the frame.
#[inline(always)]
fn spot<'a, M: Machine>(
    mm: &'a Arc<Mm<M>>,
    vma: &'a Arc<Vma<M>>,
    address: VirtAddr,
    frame: Frame,
) -> Option<Spot<'a, M>> {
    let cursor = mm.existing_entries(address..address + PAGE_SIZE)?;
    if cursor.entry(address).frame() != Some(frame) {
        return None;
    }
    Some(Spot { mm, vma, address, cursor })
}

/// Finds a page in a nonlinear region, where its index does not give its address (spec F19).
fn sweep<M: Machine>(
    link: &RegionLink<M>,
    frame: Frame,
    visit: &mut impl FnMut(&RegionLink<M>, VirtAddr),
) {
    let Some(mm) = link.mm.upgrade() else { return };
    for chunk in mm.blocks(link.vma.range()) {
        let mut from = chunk.start;
        while from < chunk.end {
            let at = {
                let Some(cursor) = mm.existing_entries(chunk.clone()) else { break };
                let mut at = cursor.next(from);
                while let Some(address) = at
                    && cursor.entry(address).frame() != Some(frame)
                {
                    let after = address + PAGE_SIZE;
                    at = if after < chunk.end { cursor.next(after) } else { None };
                }
                at
            };
            let Some(address) = at else { break };
            visit(link, address);
            from = address + PAGE_SIZE;
        }
    }
}
