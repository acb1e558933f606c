//! mremap (spec C13, C14), with the order of checks of Linux 6.17, and with `MREMAP_DONTUNMAP`.

use crate::edit::{Edit, Exclusive};
use crate::entries::PageCursor;
use crate::error::{MapError, RemapError};
use crate::machine::{
    Cursor, Entry, Fate, Frame, Machine, PAGE_SHIFT, PAGE_SIZE, Pages, Space, VirtAddr,
};
use crate::map::mmap::is_data;
use crate::map::region::remainders;
use crate::map::{Placement, pages_up};
use crate::mm::Mm;
use crate::tlb::Gather;
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

/// Whether and where a mapping may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// It must stay where it is.
    Never,
    /// Wherever there is room, if it cannot stay (`MREMAP_MAYMOVE`).
    Anywhere,
    /// To this address, replacing existing mappings (`MREMAP_FIXED`).
    To(VirtAddr),
    /// Its pages must move, and the mapping stays where it was, as one that was never touched
    /// (`MREMAP_DONTUNMAP`). The size stays the same.
    Leaving(Placement),
}

/// What becomes of the old place of moved pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OldPlace {
    /// Nothing is mapped there any more.
    Unmapped,
    /// The mapping stays, without its pages.
    Kept,
}

/// A mapping to be resized or moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemapRequest {
    /// Its address.
    pub address: VirtAddr,
    /// Its length in bytes now; 0 duplicates a shared mapping.
    pub old_length: u64,
    /// Its length in bytes afterwards.
    pub new_length: u64,
    /// Whether and where it may move.
    pub movement: Move,
}

/// A request with its lengths rounded up.
struct Sizes {
    old: u64,
    new: u64,
}

impl<M: Machine> Mm<M> {
    /// Resizes or moves a mapping and returns its new address (`mremap(2)`).
    ///
    /// Lengths are in bytes and rounded up to whole pages. An error changes nothing, except that a
    /// fixed target may have been unmapped before it, as on Linux. Takes the exclusive right to the
    /// address space, and may wait for memory. While pages move, an access to either place raises
    /// `SIGSEGV`.
    pub fn mremap(self: &Arc<Self>, request: &RemapRequest) -> Result<VirtAddr, RemapError> {
        let sizes = self.check_remap(request)?;
        let exclusive = self.exclusive();
        let (address, grown) = exclusive.remap(request, &sizes)?;
        drop(exclusive);
        if let Some(grown) = grown
            && self.containing(grown.start).is_some_and(|vma| vma.has(VmaFlags::LOCKED))
        {
            self.populate(grown);
        }
        Ok(address)
    }

    /// The checks that need no region.
    fn check_remap(&self, request: &RemapRequest) -> Result<Sizes, RemapError> {
        let RemapRequest { address, old_length, new_length, movement } = *request;
        if !address.is_page_aligned() {
            return Err(RemapError::Unaligned);
        }
        let end = self.layout.range.end.value();
        let new = pages_up(new_length).filter(|n| *n > 0).ok_or(RemapError::ZeroLength)?;
        // A length that wraps when rounded counts as 0, as on Linux. A length that leaves the
        // address space is noticed once a mapping was found.
        let old = pages_up(old_length).unwrap_or(0);
        // The page table may cover less than a program's part of the addresses.
        if new > self.manager.machine.capabilities().task_size.value().max(end) {
            return Err(RemapError::BadTarget);
        }
        if let Some(target) = movement.target() {
            if !target.is_page_aligned() {
                return Err(RemapError::Unaligned);
            }
            let overlaps = target.value() < address.value().wrapping_add(old)
                && address.value() < target.value().saturating_add(new);
            let fits = target.value().checked_add(new).is_some_and(|last| last <= end);
            if !fits || target < self.layout.range.start || overlaps {
                return Err(RemapError::BadTarget);
            }
        }
        if matches!(movement, Move::Leaving(_)) && old != new {
            return Err(RemapError::KeepsSize);
        }
        Ok(Sizes { old, new })
    }
}

impl Move {
    /// The requested address, as a hint or an order.
    const fn target(self) -> Option<VirtAddr> {
        match self {
            Self::Never | Self::Anywhere | Self::Leaving(Placement::Anywhere) => None,
            Self::To(target)
            | Self::Leaving(
                Placement::Hint(target)
                | Placement::Fixed(target)
                | Placement::FixedNoReplace(target)
                | Placement::Between(target, _),
            ) => Some(target),
        }
    }
}

type Remapped = Result<(VirtAddr, Option<Range<VirtAddr>>), RemapError>;

impl<M: Machine> Exclusive<'_, M> {
    fn remap(&self, request: &RemapRequest, sizes: &Sizes) -> Remapped {
        let address = request.address;
        let vma = self.mm().containing(address).ok_or(RemapError::Unmapped)?;
        if sizes.old == 0 {
            return self.duplicate(request, sizes, &vma);
        }
        match request.movement {
            Move::To(target) => return self.move_to(request, sizes, target),
            Move::Leaving(placement) => return self.move_leaving(&vma, address, sizes, placement),
            Move::Never | Move::Anywhere => {}
        }
        if sizes.new <= sizes.old {
            if sizes.new < sizes.old {
                self.unmap_tail(address, sizes.new, sizes.old)?;
            }
            return Ok((address, None));
        }
        let grow = sizes.new - sizes.old;
        self.check_growth(&vma, address, sizes)?;
        let old_end = address + sizes.old;
        if vma.end == old_end && self.can_grow_in_place(old_end, grow) {
            self.charge_growth(&vma, grow)?;
            let mut longer = vma.part(self.mm().manager.vma_id(), vma.start..vma.end);
            longer.end = old_end + grow;
            self.replace_grown(&vma, longer);
            return Ok((address, Some(old_end..old_end + grow)));
        }
        if request.movement == Move::Never {
            return Err(RemapError::MustMove);
        }
        let target = self.find_gap(sizes.new).ok_or(RemapError::NoGap)?;
        self.relocate(&vma, address, sizes, target, OldPlace::Unmapped)
    }

    /// Moves the pages alone (`MREMAP_DONTUNMAP`).
    fn move_leaving(
        &self,
        vma: &Arc<Vma<M>>,
        address: VirtAddr,
        sizes: &Sizes,
        placement: Placement,
    ) -> Remapped {
        if vma.has(VmaFlags::DONTEXPAND) {
            return Err(RemapError::CannotStay);
        }
        if let Placement::Fixed(target) = placement {
            return self.move_all(address..address + sizes.old, target, OldPlace::Kept);
        }
        self.check_growth(vma, address, sizes)?;
        let target = self.place(placement, sizes.new).map_err(|error| match error {
            MapError::NoGap => RemapError::NoGap,
            _ => RemapError::BadTarget,
        })?;
        self.relocate(vma, address, sizes, target, OldPlace::Kept)
    }

    /// Unmaps the part that a mapping loses by shrinking, and all else in that range.
    fn unmap_tail(&self, address: VirtAddr, kept: u64, whole: u64) -> Result<(), RemapError> {
        let end = address.checked_add(whole).filter(|end| *end <= self.mm().layout.range.end);
        self.unmap(&(address + kept..end.ok_or(RemapError::BadOldLength)?));
        Ok(())
    }

    /// A second mapping of the same pages of a shared object (old length 0).
    fn duplicate(&self, request: &RemapRequest, sizes: &Sizes, vma: &Arc<Vma<M>>) -> Remapped {
        if !vma.has(VmaFlags::MAYSHARE) {
            return Err(RemapError::BadOldLength);
        }
        let target = match request.movement {
            // The length cannot stay the same if the old one is 0.
            Move::Never | Move::Leaving(_) => return Err(RemapError::MustMove),
            Move::Anywhere => self.find_gap(sizes.new).ok_or(RemapError::NoGap)?,
            Move::To(target) => {
                self.unmap(&(target..target + sizes.new));
                target
            }
        };
        let vma = self.mm().containing(request.address).ok_or(RemapError::Unmapped)?;
        self.check_growth(&vma, request.address, sizes)?;
        let copy = self.copy_at(&vma, request.address, target, sizes.new);
        if let Some(file) = &copy.file {
            file.opened();
        }
        self.insert(copy);
        Ok((target, Some(target..target + sizes.new)))
    }

    fn move_to(&self, request: &RemapRequest, sizes: &Sizes, target: VirtAddr) -> Remapped {
        let address = request.address;
        let kept = sizes.old.min(sizes.new);
        if sizes.old == sizes.new {
            return self.move_all(address..address + sizes.old, target, OldPlace::Unmapped);
        }
        let vma = self.mm().containing(address).ok_or(RemapError::Unmapped)?;
        if vma.end < address + kept {
            return Err(RemapError::Unmapped);
        }
        let sizes = Sizes { old: kept, new: sizes.new };
        self.check_growth(&vma, address, &sizes)?;
        self.unmap(&(target..target + sizes.new));
        if self.mm().containing(address).is_none() {
            return Err(RemapError::Unmapped);
        }
        if request.old_length > kept {
            let whole = pages_up(request.old_length).unwrap_or(kept);
            self.unmap_tail(address, kept, whole)?;
        }
        // The unmapped range may have been a part of the region.
        let vma = self.mm().containing(address).ok_or(RemapError::Unmapped)?;
        self.relocate(&vma, address, &sizes, target, OldPlace::Unmapped)
    }

    /// Moves every mapping in a range, gaps and all, without changing sizes.
    fn move_all(&self, range: Range<VirtAddr>, target: VirtAddr, old: OldPlace) -> Remapped {
        let first = self.mm().containing(range.start).ok_or(RemapError::Unmapped)?;
        let length = range.end - range.start;
        if first.end >= range.end {
            self.check_growth(&first, range.start, &Sizes { old: length, new: length })?;
        }
        let parts: Vec<Range<VirtAddr>> = self
            .mm()
            .overlapping(range.clone())
            .iter()
            .map(|vma| vma.start.max(range.start)..vma.end.min(range.end))
            .collect();
        for part in parts {
            let size = part.end - part.start;
            // Mappings under a gap of the old range stay (Linux 6.17).
            let to = target + (part.start - range.start);
            self.unmap(&(to..to + size));
            // Looked up again: unmapping may have cut it.
            let vma = self.mm().containing(part.start).ok_or(RemapError::Unmapped)?;
            self.relocate(&vma, part.start, &Sizes { old: size, new: size }, to, old)?;
        }
        Ok((target, None))
    }

    /// Checks whether this mapping may be resized.
    fn check_growth(
        &self,
        vma: &Vma<M>,
        address: VirtAddr,
        sizes: &Sizes,
    ) -> Result<(), RemapError> {
        if sizes.old > vma.end - address {
            return Err(RemapError::Unmapped);
        }
        if sizes.new <= sizes.old {
            return Ok(());
        }
        let limits = &self.mm().limits;
        let usage = &self.mm().usage;
        let grow = sizes.new - sizes.old;
        if vma.has(VmaFlags::DONTEXPAND) {
            return Err(RemapError::NotResizable);
        }
        let locked = usage.locked.load(Ordering::Relaxed).max(0) as u64 * PAGE_SIZE;
        if vma.has(VmaFlags::LOCKED) && locked + grow > limits.locked.load(Ordering::Relaxed) {
            return Err(RemapError::LockLimit);
        }
        let data = is_data(vma.flags).then(|| self.data_bytes(&(address..address)));
        if data.is_some_and(|data| data + grow > limits.data.load(Ordering::Relaxed)) {
            return Err(RemapError::DataLimit);
        }
        self.check_total(grow)
    }

    /// Whether the address space may have this many more bytes.
    fn check_total(&self, grow: u64) -> Result<(), RemapError> {
        let mm = self.mm();
        let total = mm.usage.total.load(Ordering::Relaxed).max(0) as u64 * PAGE_SIZE;
        if grow > 0 && total + grow > mm.limits.address_space.load(Ordering::Relaxed) {
            return Err(RemapError::AddressSpaceLimit);
        }
        Ok(())
    }

    fn charge_growth(&self, vma: &Vma<M>, grow: u64) -> Result<(), RemapError> {
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

    fn can_grow_in_place(&self, end: VirtAddr, grow: u64) -> bool {
        let mm = self.mm();
        let Some(new_end) = end.checked_add(grow) else { return false };
        new_end <= mm.layout.range.end
            && mm.regions.read(&mm.manager.order, |tree| tree.is_free(end..new_end))
    }

    /// Replaces a region by one that grew at its end, joined with its follower. It is not joined
    /// with its neighbour below: that was possible before the growth, and did not happen, as on
    /// Linux.
    fn replace_grown(&self, old: &Arc<Vma<M>>, longer: Vma<M>) {
        let (mut edit, _) = self.joined_above(longer);
        edit.out.push(old.clone());
        self.apply(&edit);
        self.tell_file(&edit);
    }

    /// Moves the first `sizes.old` bytes from `address`, as a mapping of `sizes.new` bytes.
    ///
    /// While the pages move, look-ups find neither place, so that no fault sees half of the move;
    /// the reverse maps know both. A fault at a place that is kept waits until the region is back.
    fn relocate(
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
        self.make_tables(&from, &to)?;
        self.charge_growth(vma, grow)?;
        let parts = match self.transfer(vma, &from, &to, old_place) {
            Ok(parts) => parts,
            Err(error) => {
                self.uncharge_growth(vma, grow);
                return Err(error);
            }
        };
        if let Some(file) = &vma.file {
            // One region became the moved one and the parts that stay.
            (0..parts).for_each(|_| file.opened());
        }
        mm.space.prune(self.hole_around(&from), from);
        let grown = (sizes.new > sizes.old).then(|| target + sizes.old..target + sizes.new);
        Ok((target, grown))
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
        let new = Arc::new(self.copy_at(vma, from.start, to.start, to.end - to.start));
        let rest = remainders(vma, from, || mm.manager.vma_id());
        note_move();
        let begin = Edit { out: vec![vma.clone()], into: rest.clone() };
        self.apply_moving(&begin, &[], &[old.clone(), new.clone()]);
        // A fault may have made a table at the old place before the region left the tree; no other
        // does from here on.
        if let Err(error) = self.make_tables(from, to) {
            self.put_back(vma, vma.flags, rest, &[old, new]);
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
                // Its pages are no longer locked in memory.
                self.put_back(vma, vma.flags.difference(VmaFlags::LOCKS), rest, &[old]);
                1
            }
        };
        note_move();
        self.insert_moved(&new);
        Ok(parts)
    }

    /// Makes one region again where one was taken apart. `parts` are its remains in the tree, and
    /// `moving` what only the reverse maps know.
    fn put_back(
        &self,
        vma: &Vma<M>,
        flags: VmaFlags,
        parts: Vec<Arc<Vma<M>>>,
        moving: &[Arc<Vma<M>>],
    ) {
        let mut whole = vma.part(self.mm().manager.vma_id(), vma.range());
        whole.flags = flags;
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
                if mm.entries(piece).is_err() {
                    mm.space.prune(self.hole_around(to), to.clone());
                    return Err(RemapError::OutOfMemory);
                }
            }
        }
        Ok(())
    }

    /// A region like the part of `vma` from `address` on, but at another address (`copy_vma`).
    fn copy_at(&self, vma: &Vma<M>, address: VirtAddr, target: VirtAddr, length: u64) -> Vma<M> {
        let mut copy = vma.part(self.mm().manager.vma_id(), address..vma.end);
        if copy.file.is_none() && copy.written_family().is_none() && copy.ancestors.is_empty() {
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
