//! Stale translations of a few address spaces, gathered until each gets one flush.

use crate::machine::{Fate, Frame, Machine, Stale};
use crate::manager::Manager;
use crate::mm::Mm;
use crate::pending::Noted;
use crate::reclaim::spare::MOST;
use alloc::sync::Arc;
use arrayvec::ArrayVec;

/// How many translations of an address space are gathered before a flush: one for each page of a batch.
const STALES: usize = MOST;

/// The number of address spaces.
const SPACES: usize = 4;

/// Reserved room for a translation of an address space.
pub(super) struct Place(usize);

/// The translations of one space.
struct Group<M: Machine> {
    mm: Arc<Mm<M>>,
    noted: Noted,
    list: ArrayVec<Stale, STALES>,
}

/// The translations by their spaces.
pub(super) struct Stales<M: Machine>(ArrayVec<Group<M>, SPACES>);

impl<M: Machine> Stales<M> {
    pub(super) const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    /// Room for one more translation of an address space, if there is any. [`note`](Self::note)
    /// fills it; an entry that needs no flush leaves it to others.
    #[inline]
    pub(super) fn room_for(&self, mm: &Arc<Mm<M>>) -> Option<Place> {
        let Self(groups) = self;
        match groups.iter().position(|group| Arc::ptr_eq(&group.mm, mm)) {
            Some(known) => (!groups[known].list.is_full()).then_some(Place(known)),
            None => (!groups.is_full()).then_some(Place(groups.len())),
        }
    }

    /// Notes a translation of `mm` in its reserved `place`. The caller has just changed the entry
    /// under its cursor.
    #[inline]
    pub(super) fn note(&mut self, Place(place): Place, mm: &Arc<Mm<M>>, stale: Stale) {
        let Self(groups) = self;
        if place == groups.len() {
            groups.push(Group { mm: mm.clone(), noted: Noted::default(), list: ArrayVec::new() });
        }
        let Group { mm, noted, list } = &mut groups[place];
        mm.pending.note(noted, stale.address, &*mm.manager.machine);
        list.push(stale);
    }

    /// Notes that the content of a frame is no longer needed. Its translations are the last of each space.
    pub(super) fn set_freed(&mut self, frame: Frame) {
        for Group { list, .. } in &mut self.0 {
            for stale in list.iter_mut().rev().take_while(|stale| stale.frame == frame) {
                stale.fate = Fate::Freed;
            }
        }
    }

    /// Flushes all, those of each address space together.
    pub(super) fn flush(&mut self, manager: &Manager<M>) {
        let machine = &*manager.machine;
        for Group { mm, noted, list } in &self.0 {
            debug_assert!(!list.is_empty(), "a flush of nothing");
            machine.flush(&mm.space, list);
            mm.pending.flushed(*noted, list.iter().map(|stale| stale.address), machine);
            manager.stats.of(machine).flushes.add(machine, 1);
        }
        self.0.clear();
    }
}
