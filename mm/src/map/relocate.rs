//! The move of mremap: a region and its pages leave one place and arrive at another (spec C14).

use crate::edit::{Edit, Exclusive};
use crate::entries::PageCursor;
use crate::error::RemapError;
use crate::machine::{
    Cursor, Entry, Fate, Frame, Machine, PAGE_SHIFT, PAGE_SIZE, Pages, Space, VirtAddr,
};
use crate::map::region::remainders;
use crate::mm::Mm;
use crate::tlb::Gather;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

/// What becomes of the old place of moved pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OldPlace {
    /// Nothing is mapped there any more.
    Unmapped,
    /// The mapping stays, without its pages.
    Kept,
}

/// The lengths of a mapping before and after, in whole pages.
pub(super) struct Sizes {
    pub(super) old: u64,
    pub(super) new: u64,
}

/// The new address, and what is mapped there beyond the old length.
pub(super) type Remapped = Result<(VirtAddr, Option<Range<VirtAddr>>), RemapError>;

/// Whether a region is of memory that was never stored to.
fn is_untouched<M: Machine>(vma: &Vma<M>) -> bool {
    vma.file.is_none() && vma.written_family().is_none() && vma.ancestors.is_empty()
}

/// Whether a range begins or ends where a region ends or begins.
fn touches<M: Machine>(vma: &Vma<M>, range: &Range<VirtAddr>) -> bool {
    range.end == vma.start || range.start == vma.end
}

impl<M: Machine> Exclusive<'_, M> {
    /// Moves the first `sizes.old` bytes from `address`, as a mapping of `sizes.new` bytes.
    ///
    /// While the pages move, look-ups find neither place, so that no fault sees half of the move;
    /// the reverse maps know both. A fault at a place that is kept waits until the region is back.
    pub(super) fn relocate(
        &self,
        vma: &Arc<Vma<M>>,
        address: VirtAddr,
        sizes: &Sizes,
        target: VirtAddr,
        old_place: OldPlace,
    ) -> Remapped {
        if self.room_for(4).is_err() {
            return Err(RemapError::TooManyRegions);
        }
        let mm = self.mm();
        let from = address..address + sizes.old;
        let grow = match old_place {
            OldPlace::Unmapped => sizes.new - sizes.old,
            OldPlace::Kept => sizes.new,
        };
        self.check_total(if old_place == OldPlace::Kept { grow } else { 0 })?;
        let to = target..target + sizes.new;
        // Useless levels are freed once every page's region is back in the tree.
        let prune = |range: &Range<VirtAddr>| {
            mm.space.prune(self.hole_around(range), range.clone());
        };
        self.make_tables(&from, &to).inspect_err(|_| prune(&to))?;
        self.charge_growth(vma, grow)?;
        let parts = match self.transfer(vma, &from, &to, old_place) {
            Ok(parts) => parts,
            Err(error) => {
                prune(&to);
                self.uncharge_growth(vma, grow);
                return Err(error);
            }
        };
        if let Some(file) = &vma.file {
            // One region became the moved one and the parts that stay.
            (0..parts).for_each(|_| file.opened());
        }
        if old_place == OldPlace::Unmapped {
            prune(&from);
        }
        let grown = (sizes.new > sizes.old).then(|| target + sizes.old..target + sizes.new);
        Ok((target, grown))
    }

    /// Whether the address space may have this many more bytes.
    pub(super) fn check_total(&self, grow: u64) -> Result<(), RemapError> {
        let mm = self.mm();
        let total = mm.usage.total.load(Ordering::Relaxed).max(0) as u64 * PAGE_SIZE;
        if grow > 0 && total + grow > mm.limits.address_space.load(Ordering::Relaxed) {
            return Err(RemapError::AddressSpaceLimit);
        }
        Ok(())
    }

    pub(super) fn charge_growth(&self, vma: &Vma<M>, grow: u64) -> Result<(), RemapError> {
        if !vma.has(VmaFlags::ACCOUNT) {
            return Ok(());
        }
        let charged = self.mm().manager.charge(grow >> PAGE_SHIFT);
        charged.map_err(|_| RemapError::CommitLimit)
    }

    /// Undoes [`charge_growth`](Self::charge_growth).
    fn uncharge_growth(&self, vma: &Vma<M>, grow: u64) {
        if vma.has(VmaFlags::ACCOUNT) {
            self.mm().manager.uncharge(grow >> PAGE_SHIFT);
        }
    }

    /// Moves the pages of a part of a region, makes the region of their new place, and returns how
    /// many regions stay at the old one.
    fn transfer(
        &self,
        vma: &Arc<Vma<M>>,
        from: &Range<VirtAddr>,
        to: &Range<VirtAddr>,
        old_place: OldPlace,
    ) -> Result<usize, RemapError> {
        let mm = self.mm();
        let note_move = || {
            if old_place == OldPlace::Kept {
                mm.moves.fetch_add(1, Ordering::AcqRel);
            }
        };
        // In the order of their numbers, in which a truncation visits regions: it finds pages that
        // have left the old place at the new one.
        let old = Arc::new(vma.part(mm.manager.vma_id(), from.clone()));
        let mut new = self.copy_at(vma, from.start, to.start, to.end - to.start);
        if old_place == OldPlace::Kept && is_untouched(vma) && touches(vma, to) {
            // Linux joins the two before it takes the locks off the old place.
            new.flags.remove(VmaFlags::LOCKS);
        }
        let new = Arc::new(new);
        let rest = remainders(vma, from, || mm.manager.vma_id());
        note_move();
        let begin = Edit { out: vec![vma.clone()], into: rest.clone() };
        self.apply_moving(&begin, &[], &[old.clone(), new.clone()]);
        // A fault may have made a table at the old place before the region left the tree; no other
        // does from here on.
        if let Err(error) = self.make_tables(from, to) {
            self.put_back(vma.part(mm.manager.vma_id(), vma.range()), rest, &[old, new]);
            note_move();
            return Err(error);
        }
        self.move_pages(&old, &new);
        let parts = match old_place {
            OldPlace::Unmapped => {
                self.apply_moving(&Edit { out: Vec::new(), into: Vec::new() }, &[old], &[]);
                rest.len()
            }
            OldPlace::Kept => {
                let mut kept = vma.part(mm.manager.vma_id(), vma.range());
                // Its pages are no longer locked in memory.
                kept.flags.remove(VmaFlags::LOCKS);
                if *from == vma.range() {
                    kept.forget_families();
                }
                self.put_back(kept, rest, &[old]);
                1
            }
        };
        note_move();
        self.insert_moved(&new);
        Ok(parts)
    }

    /// Makes one region again where one was taken apart. `parts` are its remains in the tree, and
    /// `moving` what only the reverse maps know.
    fn put_back(&self, whole: Vma<M>, parts: Vec<Arc<Vma<M>>>, moving: &[Arc<Vma<M>>]) {
        self.apply_moving(&Edit { out: parts, into: vec![Arc::new(whole)] }, moving, &[]);
    }

    /// Makes the page tables that the pages of one range need in another, so that moving them cannot
    /// fail. Where nothing was touched, none is needed.
    fn make_tables(&self, from: &Range<VirtAddr>, to: &Range<VirtAddr>) -> Result<(), RemapError> {
        let mm = self.mm();
        for chunk in mm.blocks(from.clone()) {
            let start = to.start + (chunk.start - from.start);
            for piece in Pages::new(&(start..start + (chunk.end - chunk.start)), M::Space::SPAN) {
                let _engaged = mm.manager.engage();
                drop(mm.entries(piece).map_err(|_| RemapError::OutOfMemory)?);
            }
        }
        Ok(())
    }

    /// A region like the part of `vma` from `address` on, but at another address (`copy_vma`).
    pub(super) fn copy_at(
        &self,
        vma: &Vma<M>,
        address: VirtAddr,
        target: VirtAddr,
        length: u64,
    ) -> Vma<M> {
        let mut copy = vma.part(self.mm().manager.vma_id(), address..vma.end);
        if is_untouched(&copy) {
            // Nothing refers to the old page indexes of memory that was never stored to. If real
            // pages of zeros stand for it, they get new indexes.
            copy.pgoff = target.page_number();
        }
        (copy.start, copy.end) = (target, target + length);
        copy
    }

    /// Moves all entries of a region to another one (`move_page_tables`).
    fn move_pages(&self, old: &Vma<M>, new: &Vma<M>) {
        let mm = self.mm();
        let (from, to) = (old.range(), new.start);
        let shift = |address: VirtAddr| to + (address - from.start);
        for chunk in mm.blocks(from.clone()) {
            let target = shift(chunk.start)..to + (chunk.end - from.start);
            for piece in Pages::new(&target, M::Space::SPAN) {
                let start = from.start + (piece.start - to);
                let end = from.start + (piece.end - to);
                mm.move_piece(&Moved { old, new }, start..end);
            }
        }
    }

    /// Enters a region whose pages have arrived, and removes its placeholder from the reverse maps.
    fn insert_moved(&self, arrived: &Arc<Vma<M>>) {
        let new = arrived.part(self.mm().manager.vma_id(), arrived.range());
        self.insert_replacing(new, core::slice::from_ref(arrived));
    }
}

/// Two regions, from one of which the pages move to the other.
struct Moved<'a, M: Machine> {
    old: &'a Vma<M>,
    new: &'a Vma<M>,
}

impl<M: Machine> Moved<'_, M> {
    fn target(&self, address: VirtAddr) -> VirtAddr {
        self.new.start + (address - self.old.start)
    }

    /// The page index at the new place of an address of the old region, if it changes.
    fn new_index(&self, address: VirtAddr) -> Option<u64> {
        let index = self.new.index_of(self.target(address));
        (index != self.old.index_of(address)).then_some(index)
    }
}

impl<M: Machine> Mm<M> {
    /// Moves the entries of a range that lies in one block, to a range that does too.
    fn move_piece(&self, moved: &Moved<'_, M>, from: Range<VirtAddr>) {
        let mut gather = Gather::new(self);
        let mut at = from.start;
        while at < from.end {
            at = self.move_some(moved, at..from.end, &mut gather);
            gather.flush();
        }
        gather.settle();
    }

    fn move_some(
        &self,
        moved: &Moved<'_, M>,
        from: Range<VirtAddr>,
        gather: &mut Gather<'_, M>,
    ) -> VirtAddr {
        let to = moved.target(from.start);
        let target = to..to + (from.end - from.start);
        let block = |address: VirtAddr| address.value() & !(M::Space::SPAN - 1);
        if block(from.start) == block(target.start) {
            let both = from.start.min(target.start)..from.end.max(target.end);
            let Some(mut cursor) = self.existing_entries(both) else { return from.end };
            return move_entries(moved, &mut cursor, None, from, gather);
        }
        // Two cursors nest with the lower address first.
        if from.start < target.start {
            let Some(mut old) = self.existing_entries(from.clone()) else { return from.end };
            let Some(mut new) = self.existing_entries(target) else { return from.end };
            move_entries(moved, &mut old, Some(&mut new), from, gather)
        } else {
            let Some(mut new) = self.existing_entries(target) else { return from.end };
            let Some(mut old) = self.existing_entries(from.clone()) else { return from.end };
            move_entries(moved, &mut old, Some(&mut new), from, gather)
        }
    }

    /// Gives the page of an entry that is being moved another index; returns whether that was
    /// possible at once. The page is a page of zeros of this region alone.
    fn reindex(&self, frame: Frame, index: u64) -> bool {
        let page = self.manager.page(frame);
        let done = page.try_lock(&*self.manager.machine);
        if done {
            page.set_owner(page.owner(), index);
            self.manager.unlock_page(frame);
        }
        done
    }
}

/// Moves entries until the end of the range or until the batch is full; returns how far.
fn move_entries<M: Machine>(
    moved: &Moved<'_, M>,
    old: &mut PageCursor<'_, M>,
    mut new: Option<&mut PageCursor<'_, M>>,
    from: Range<VirtAddr>,
    gather: &mut Gather<'_, M>,
) -> VirtAddr {
    let mut at = from.start;
    while at < from.end {
        if !gather.has_room_for(2) {
            return at;
        }
        let Some(address) = old.next(at).filter(|address| *address < from.end) else {
            return from.end;
        };
        at = address + PAGE_SIZE;
        let mm = gather.mm;
        let entry = old.replace(address, Entry::None);
        if let Some(frame) = entry.frame().filter(|frame| !mm.manager.is_bare(*frame))
            && let Some(index) = moved.new_index(address)
            && !mm.reindex(frame, index)
        {
            // Another thread has the page of zeros locked: the new place gets another one at its
            // first touch.
            mm.zapped(address, entry, gather);
            continue;
        }
        let target = moved.target(address);
        let there = match &mut new {
            Some(new) => new.replace(target, entry),
            None => old.replace(target, entry),
        };
        // A fault at the target came first, and got another page.
        mm.zapped(target, there, gather);
        if let Some(frame) = entry.frame() {
            // Held until the flush: reclaim may find the page at its new place before (spec G4).
            gather.add_held(address, frame, Fate::Kept);
        }
    }
    from.end
}
