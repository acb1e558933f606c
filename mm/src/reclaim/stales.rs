//! Stale translations of a few address spaces, gathered until each gets one flush.

use crate::machine::{Fate, Frame, Machine, Stale};
use crate::manager::Manager;
use crate::mm::Mm;
use crate::pending::Noted;
use alloc::sync::Arc;
use arrayvec::ArrayVec;

/// How many translations are gathered before a flush.
const STALES: usize = 64;

/// The number of address spaces.
const SPACES: usize = 4;

/// Reserved room for a translation of an address space.
pub(super) struct Place(u8);

/// The translations, each with the number of its space.
pub(super) struct Stales<M: Machine> {
    spaces: ArrayVec<(Arc<Mm<M>>, Noted), SPACES>,
    list: ArrayVec<(u8, Stale), STALES>,
}

impl<M: Machine> Stales<M> {
    pub(super) const fn new() -> Self {
        Self { spaces: ArrayVec::new_const(), list: ArrayVec::new_const() }
    }

    /// How many translations wait.
    pub(super) const fn len(&self) -> usize {
        self.list.len()
    }

    /// Room for one more translation of an address space, if there is any. [`note`](Self::note)
    /// fills it; an entry that needs no flush leaves it to others.
    pub(super) fn room_for(&self, mm: &Arc<Mm<M>>) -> Option<Place> {
        if self.list.is_full() {
            return None;
        }
        match self.spaces.iter().position(|(other, _)| Arc::ptr_eq(other, mm)) {
            Some(known) => Some(Place(known as u8)),
            None => (!self.spaces.is_full()).then_some(Place(self.spaces.len() as u8)),
        }
    }

    /// Notes a translation of `mm` in its reserved `place`. The caller has just changed the entry
    /// under its cursor.
    pub(super) fn note(&mut self, Place(space): Place, mm: &Arc<Mm<M>>, stale: Stale) {
        if usize::from(space) == self.spaces.len() {
            self.spaces.push((mm.clone(), Noted::default()));
        }
        let (mm, noted) = &mut self.spaces[usize::from(space)];
        mm.pending.note(noted, stale.address, &*mm.manager.machine);
        self.list.push((space, stale));
    }

    /// Notes that the content of a frame is no longer needed; its translations start at `from`.
    pub(super) fn set_freed(&mut self, from: usize, frame: Frame) {
        for (_, stale) in &mut self.list[from..] {
            if stale.frame == frame {
                stale.fate = Fate::Freed;
            }
        }
    }

    /// Flushes all, those of each address space together.
    pub(super) fn flush(&mut self, manager: &Manager<M>) {
        let machine = &*manager.machine;
        for (number, (mm, noted)) in self.spaces.drain(..).enumerate() {
            let own = self.list.iter().filter(|(of, _)| usize::from(*of) == number);
            let together: ArrayVec<Stale, STALES> = own.map(|(_, stale)| *stale).collect();
            debug_assert!(!together.is_empty(), "a flush of nothing");
            machine.flush(&mm.space, &together);
            let pages = together.iter().map(|stale| stale.address);
            mm.pending.flushed(noted, pages, machine);
            manager.stats.flushes.add(machine, 1);
        }
        self.list.clear();
    }
}
