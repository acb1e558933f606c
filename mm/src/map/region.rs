//! Splitting and joining regions (spec C5, C6).

use crate::edit::{Edit, Exclusive};
use crate::machine::{Machine, VirtAddr};
use crate::tree::RegionTree;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// A split would make more regions than an address space may have.
pub(crate) struct TooManyRegions;

impl<M: Machine> Exclusive<'_, M> {
    /// Refuses if `more` further regions would be too many.
    pub(crate) fn room_for(&self, more: usize) -> Result<(), TooManyRegions> {
        let mm = self.mm();
        let regions = mm.regions.read(&mm.manager.order, RegionTree::len);
        if regions + more > mm.manager.config.max_regions { Err(TooManyRegions) } else { Ok(()) }
    }

    /// Enters a new region, joined with its neighbours where possible; returns the region that
    /// covers it.
    pub(crate) fn insert(&self, new: Vma<M>) -> Arc<Vma<M>> {
        self.insert_replacing(new, &[])
    }

    /// Like [`insert`](Self::insert), but replaces regions that only the reverse maps know.
    pub(crate) fn insert_replacing(&self, new: Vma<M>, leaving: &[Arc<Vma<M>>]) -> Arc<Vma<M>> {
        let (edit, joined) = self.joined(new);
        self.apply_moving(&edit, leaving, &[]);
        if let Some(file) = &joined.file {
            for _ in 0..edit.out.len() {
                file.closed();
            }
        }
        joined
    }

    /// Gives a part of a region new flags, splitting and joining as needed; returns the region
    /// that covers the part.
    pub(crate) fn reflag(
        &self,
        vma: &Arc<Vma<M>>,
        range: Range<VirtAddr>,
        flags: VmaFlags,
    ) -> Result<Arc<Vma<M>>, TooManyRegions> {
        let manager = &self.mm().manager;
        let mut changed = vma.part(manager.vma_id(), range.clone());
        changed.flags = flags;
        let rest = remainders(vma, &range, || manager.vma_id());
        let (mut edit, joined) = self.joined(changed);
        edit.out.push(vma.clone());
        edit.into.extend(rest);
        let more = edit.into.len().saturating_sub(edit.out.len());
        if more > 0 {
            self.room_for(more)?;
        }
        self.apply(&edit);
        self.tell_file(&edit);
        Ok(joined)
    }

    /// Tells the file how many regions came or went by an edit that neither maps nor unmaps
    /// anything (spec D1).
    pub(crate) fn tell_file(&self, edit: &Edit<M>) {
        let Some(file) = edit.out.first().and_then(|vma| vma.file.as_ref()) else { return };
        for _ in edit.out.len()..edit.into.len() {
            file.opened();
        }
        for _ in edit.into.len()..edit.out.len() {
            file.closed();
        }
    }

    /// The edit that enters `new`, joined with the neighbours that allow it.
    pub(crate) fn joined(&self, new: Vma<M>) -> (Edit<M>, Arc<Vma<M>>) {
        let mm = self.mm();
        let before = mm.regions.read(&mm.manager.order, |tree| tree.previous(new.start).cloned());
        self.join(before, new)
    }

    /// The same with the neighbour above alone.
    pub(crate) fn joined_above(&self, new: Vma<M>) -> (Edit<M>, Arc<Vma<M>>) {
        self.join(None, new)
    }

    fn join(&self, before: Option<Arc<Vma<M>>>, new: Vma<M>) -> (Edit<M>, Arc<Vma<M>>) {
        let mm = self.mm();
        let after = mm.regions.read(&mm.manager.order, |tree| tree.containing(new.end).cloned());
        let left = before.filter(|left| left.joins(&new) && left.joins_anon(&new));
        let right = after.filter(|right| {
            // Each may join the new region but not the other neighbour; then only the left one
            // does.
            new.joins(right)
                && new.joins_anon(right)
                && left.as_ref().is_none_or(|left| left.joins_anon(right))
        });
        let mut whole = new;
        for neighbour in left.iter().chain(&right) {
            let range = whole.start.min(neighbour.start)..whole.end.max(neighbour.end);
            whole = whole.part(whole.id, range);
            whole.adopt(neighbour);
        }
        let whole = Arc::new(whole);
        let out = left.into_iter().chain(right).collect();
        (Edit { out, into: vec![whole.clone()] }, whole)
    }
}

/// The parts of a region on both sides of a range that is cut out.
pub(crate) fn remainders<M: Machine>(
    vma: &Vma<M>,
    range: &Range<VirtAddr>,
    mut id: impl FnMut() -> u64,
) -> Vec<Arc<Vma<M>>> {
    let mut rest = Vec::new();
    if vma.start < range.start {
        rest.push(Arc::new(vma.part(id(), vma.start..range.start)));
    }
    if range.end < vma.end {
        rest.push(Arc::new(vma.part(id(), range.end..vma.end)));
    }
    rest
}
