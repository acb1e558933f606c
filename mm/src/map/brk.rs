//! brk: the traditional heap, one region that grows and shrinks at its end (spec C15).

use crate::edit::Exclusive;
use crate::fault::stack::GUARD_GAP;
use crate::machine::{Machine, PAGE_SIZE, VirtAddr};
use crate::map::mmap::{Brought, MapOptions, MapRequest};
use crate::map::pages_up;
use crate::mm::Mm;
use crate::vma::VmaFlags;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

impl<M: Machine> Mm<M> {
    /// Begins an empty heap at an address, for a program with this many bytes of its own data
    /// (`start_data` to `end_data`). Forgets an earlier heap, and unmaps nothing.
    pub fn begin_heap(self: &Arc<Self>, start: VirtAddr, data: u64) {
        let _exclusive = self.exclusive();
        self.heap.start.store(start.value(), Ordering::Relaxed);
        self.heap.end.store(start.value(), Ordering::Relaxed);
        self.heap.data.store(data, Ordering::Relaxed);
    }

    /// The start of the heap, and its break.
    pub fn heap(&self) -> Range<VirtAddr> {
        let address = |word: &AtomicU64| VirtAddr(word.load(Ordering::Relaxed));
        address(&self.heap.start)..address(&self.heap.end)
    }

    /// Moves the break, and returns its new place: the old one if it cannot move.
    ///
    /// [`begin_heap`](Self::begin_heap) comes first. The heap must stay within the
    /// [layout](crate::Layout), and at least a page below the next mapping. It grows as if by `mmap` with
    /// these options: [`MapOptions::LOCKED`] for a program that locks its new memory.
    pub fn brk(self: &Arc<Self>, wanted: VirtAddr, options: MapOptions) -> VirtAddr {
        let exclusive = self.exclusive();
        let Range { start, end: now } = self.heap();
        let limit = self.limits.data.load(Ordering::Relaxed);
        let data = self.heap.data.load(Ordering::Relaxed);
        let fits = |bytes: u64| bytes.checked_add(data).is_some_and(|bytes| bytes <= limit);
        if exclusive.has_ended() || wanted < start || !fits(wanted - start) {
            return now;
        }
        let ends = [now, wanted].map(|end| pages_up(end.value()).map(VirtAddr));
        let [Some(old), Some(new)] = ends else { return now };
        let moved = match old < new {
            true => exclusive.grow_heap(old..new, options),
            false if old == new || exclusive.shrink_heap(new..old) => Some(Brought::WhenTouched),
            false => None,
        };
        let Some(brought) = moved else { return now };
        self.heap.end.store(wanted.value(), Ordering::Relaxed);
        drop(exclusive);
        if brought == Brought::Now {
            self.populate(old..new);
        }
        wanted
    }
}

impl<M: Machine> Exclusive<'_, M> {
    /// Maps the heap's growth, if it can; returns when its pages are to come in.
    fn grow_heap(&self, more: Range<VirtAddr>, options: MapOptions) -> Option<Brought> {
        let mm = self.mm();
        let request = MapRequest::anonymous(more.end - more.start).with(options);
        let next = mm.regions.read(&mm.manager.order, |tree| tree.find(more.start).cloned());
        let is_free = next.is_none_or(|next| {
            // A stack above may grow, and keeps its distance.
            let gap = if next.has(VmaFlags::GROWSDOWN) { GUARD_GAP } else { 0 };
            next.start > more.end && next.start - more.end >= PAGE_SIZE + gap
        });
        let layout = &mm.layout.range;
        if more.start < layout.start || more.end > layout.end || !is_free {
            return None;
        }
        mm.map_fixed(self, &request, more).ok()
    }

    /// Unmaps the end of the heap, if it can. Where nothing is mapped, the break stays, as in Linux since 6.2.
    fn shrink_heap(&self, less: Range<VirtAddr>) -> bool {
        let mm = self.mm();
        if mm.regions.read(&mm.manager.order, |tree| tree.is_free(less.clone())) {
            return false;
        }
        if self.splits(&less) && self.room_for(1).is_err() || self.meets_seal(&less) {
            return false;
        }
        self.unmap(&less);
        true
    }
}
